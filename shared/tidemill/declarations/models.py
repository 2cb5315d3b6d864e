"""Models: their inputs, their outcome, and the function that makes their pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from tidemill.declarations.checks import FIELD_TYPES, Declaration, did_you_mean, duration_ms
from tidemill.declarations.events import Event
from tidemill.declarations.expressions import Column, number_of, parse_column
from tidemill.declarations.online import Online, mistake
from tidemill.declarations.retrain import Retrain
from tidemill.declarations.texts import kept
from tidemill.declarations.training import ByGroup, Training
from tidemill.declarations.views import FeatureView, Selection
from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError, ProjectError
from tidemill.limits import MOST_CLASSES
from tidemill.names import check_name


@dataclass(frozen=True, eq=False)
class Request(Declaration):
    """A value that comes with the request itself. `type`: float, int, bool, or str for a category."""

    name: str
    type: Any = float

    def __post_init__(self) -> None:
        check_name(self.name, self.declared_at, "name")
        if self.type not in FIELD_TYPES:
            raise DeclarationError(
                f"Request {self.name!r}: {self.type!r} is not a type",
                where=self.declared_at,
                field="type",
                mend="write float, int, bool or str",
            )

    @property
    def kind(self) -> Literal["number", "category", "words", "tensor"]:
        """As a manifest calls it."""
        return "category" if self.type is str else "number"

    @property
    def is_content(self) -> bool:
        """Whether the model takes it whole, beside its matrix."""
        return self.kind in ("words", "tensor")


class FeatureInput(NamedTuple):
    """An input that is a feature. `view`: the place of its view among the model's views; `feature`: its place in the view; `text`: whether
    it is a text, which the model takes as a category."""

    name: str
    view: int
    feature: int
    text: bool = False

    @property
    def kind(self) -> Literal["feature", "text"]:
        """As a manifest calls it."""
        return "text" if self.text else "feature"


class RequestInput(NamedTuple):
    """An input that comes with the request."""

    name: str
    request: Request

    @property
    def kind(self) -> Literal["number", "category", "words", "tensor"]:
        """As a manifest calls it."""
        return self.request.kind


FEATURES = "features"
"""The name of the matrix of numbers among the tensors that a model takes."""

InputPlan = tuple[FeatureInput | RequestInput, ...]
"""The columns of a model's matrix, in order. Only `Model.plan` decides the order; all code that makes, checks or shows inputs uses it."""


class Wait(NamedTuple):
    """How long a question waits for an outcome, and the answer when none comes (None: there is no answer)."""

    within_ms: int
    absent: float | str | None = None


def class_name(outcome: float | str) -> str:
    """The name of the class that an outcome is: a text itself, "2" for the number 2."""
    return (
        outcome if isinstance(outcome, str) else str(int(outcome)) if math.isfinite(outcome) and outcome == int(outcome) else repr(outcome)
    )


@dataclass(frozen=True, eq=False)
class Outcome(Declaration):
    """The true label, which arrives later. `source`: the event that brings it; `value`: the field or condition that gives it; `subject`:
    the field that names the subject.

    A text is one of several classes. `classes`: which there are, in the order of the answers: texts, or whole numbers where the field is a number; by default those
    that the training examples have, in order. An outcome that is none of them is no example.

    `within`: how long after the prediction an outcome may become known; one that was known before the prediction does not answer it.
    After the wait the prediction is marked as never answered, unless `absent` says what the absence of an event means: `absent=0` is the
    answer 0, in the log and in training alike.
    """

    source: Event
    value: str
    subject: str
    _: KW_ONLY
    within: str = "24h"
    absent: float | str | None = None
    classes: Sequence[str | int] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.source, Event):
            raise DeclarationError(
                f"Outcome: {self.source!r} is not an Event", where=self.declared_at, field="source", mend="pass the Event object itself"
            )
        duration_ms(self, "within", self.within)
        if self.subject not in self.source.fields:
            self._fail(
                "subject", f"event {self.source.name!r} has no field {self.subject!r}", f"name one of {', '.join(self.source.fields)}"
            )
        try:
            object.__setattr__(self, "column", parse_column(self.value, self.source.types))
        except ValueError as error:
            self._fail("value", str(error), "name a field of the event, or a condition on its fields")
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.classes:
            self._check_classes()
        if self.absent is not None:
            self._check_absent(self.absent)
            if self.classes and class_name(self.absent) not in self.class_names:
                self._fail("absent", f"{self.absent!r} is none of the classes", f"write one of {', '.join(map(repr, self.classes))}")

    column: Column = field(init=False, repr=False)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"of {self.source.name}"

    @property
    def is_text(self) -> bool:
        """Whether it is a text, the name of a class."""
        return self.source.types.get(self.value) is str

    @property
    def class_names(self) -> list[str]:
        """The names of `classes`, in order."""
        return list(map(class_name, self.classes))

    def reader(self) -> Callable[[Any], float | str | None]:
        """A function that gives the outcome of an event with one attribute per field: a number, perhaps infinite, the text that is kept, or
        None."""
        if not self.is_text:
            return number_of(self.column)
        get: Callable[[Any], str | None] = attrgetter(self.value)
        return lambda event: None if (text := get(event)) is None else kept(text)

    @property
    def wait(self) -> Wait:
        """`within` in ms, and `absent` as the outcome that a result has."""
        return Wait(parse_ms(self.within), self.absent)

    def _check_classes(self) -> None:
        wanted: type = str if self.is_text else int
        if self.column.truth or self.value not in self.source.fields:
            self._fail("classes", f"{self.value!r} is no field that has classes", "leave classes out, or name a field of texts or numbers")
        if wrong := [one for one in self.classes if type(one) is not wanted or (wanted is str and kept(str(one)) != one)]:
            self._fail("classes", f"{wrong[0]!r} is no class of {self.value!r}", f"write {'texts' if self.is_text else 'whole numbers'}")
        if len(set(self.classes)) != len(self.classes) or not 2 <= len(self.classes) <= MOST_CLASSES:
            self._fail(
                "classes", f"there are {len(self.classes)}, {len(set(self.classes))} different", f"name 2 to {MOST_CLASSES}, each once"
            )

    def _check_absent(self, absent: float | str) -> None:
        if isinstance(absent, str) != self.is_text:
            self._fail("absent", f"{absent!r} is no value of {self.value!r}", f"write a {'text' if self.is_text else 'number'}")
        if isinstance(absent, str):
            object.__setattr__(self, "absent", kept(absent))
            return
        absent = float(absent)
        object.__setattr__(self, "absent", absent)
        if (self.value not in self.source.fields or self.source.base_type(self.value) is bool) and absent not in (0, 1):
            self._fail("absent", f"{absent!r} is neither 0 nor 1, as {self.value!r} is", "write 0 or 1")

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Outcome {self.name}: {message}", where=self.declared_at, field=name, mend=mend)


def no_pipeline() -> Any:
    """Stands for the pipeline of a model whose versions are files from elsewhere. Raises ProjectError."""
    raise ProjectError("the model has no pipeline", mend="run: tidemill models import MODEL FILE.onnx --contract CONTRACT.json")


@dataclass(frozen=True, eq=False)
class Model(Declaration):
    """A model: its inputs, the source of its training examples, and the function that makes its scikit-learn pipeline.

    `on`: the event that announces a subject for a prediction; its fields give the subject, the entities of the views and the Request
    values. `at`: its field with the moment of the request (epoch ms or RFC 3339). `pipeline`: a function without arguments that returns
    a scikit-learn classifier or regressor. If it chooses columns by name, it gets a data frame with the inputs by their names, else a float32
    matrix with one column per input. Without it the model cannot be trained, only imported.

    `on_missing`: what becomes of a request of which an input cannot be known: its entity is not found, its value expired or invalid, or its
    category was not there in training. "predict": the answer names these inputs (`degraded`); "refuse": there is no answer. `training`: how it
    is trained, where the defaults are not wanted. `retrain`: when it is trained again by itself; never without it.

    `engine`: what serves it. "onnx": its pipeline, converted and proved equal; "python": its own pickled pipeline, in a process of its own,
    which takes anything that can be pickled, is slower, and is told wherever a version is shown. `online`: it goes on learning with each outcome; `pipeline` returns one of
    river then, which sees a dict of named values, without those that are missing.
    """

    name: str
    on: Event
    at: str
    subject: str
    inputs: Sequence[FeatureView | Selection | Request]
    outcome: Outcome
    pipeline: Callable[[], Any] = no_pipeline
    _: KW_ONLY
    on_missing: Literal["predict", "refuse"] = "predict"
    description: str = ""
    training: Training = Training()
    retrain: Retrain | None = None
    engine: Literal["onnx", "python"] = "onnx"
    online: Online | None = None

    def __post_init__(self) -> None:
        check_name(self.name, self.declared_at, "name")
        for label, kind in (("on", Event), ("outcome", Outcome)):
            if not isinstance(getattr(self, label), kind):
                self._fail(label, f"{getattr(self, label)!r} is not an {kind.__name__}", f"pass an {kind.__name__} object")
        for label in ("at", "subject"):
            self._need_field(label, getattr(self, label))
        if not self.on.is_time(self.at):
            self._fail("at", f"{self.at!r} must be int (epoch ms) or str (RFC 3339), never null", "change the field's type")
        if self.on_missing not in ("predict", "refuse"):
            self._fail("on_missing", f"{self.on_missing!r} says nothing about missing inputs", 'write "predict" or "refuse"')
        if self.engine not in ("onnx", "python"):
            self._fail("engine", f"{self.engine!r} serves no model", 'write "onnx" or "python"')
        if not self.inputs:
            self._fail("inputs", "a model without inputs", "add feature views or Request values")
        if not callable(self.pipeline):
            self._fail("pipeline", f"{self.pipeline!r} cannot be called", "pass the function itself, which returns the pipeline")
        self._check_inputs()
        if self.engine == "python" and (whole := [request.name for request in self.requests if request.is_content]):
            self._fail("engine", f"a worker is not given {whole[0]!r}, which is taken whole", 'leave engine="python" out, or this input')
        self._check_training()
        self._check_retrain()
        self._check_online()

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        """The views that the model reads, each with the selected features, in the order of the inputs."""
        whole = [item.select(*(f.name for f in item.served)) if isinstance(item, FeatureView) else item for item in self.inputs]
        return tuple(item for item in whole if isinstance(item, Selection))

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """The values that come with a request."""
        return tuple(item for item in self.inputs if isinstance(item, Request))

    @cached_property
    def views(self) -> tuple[FeatureView, ...]:
        """The views that the model reads, each once."""
        return tuple(dict.fromkeys(selection.view for selection in self.selections))

    @cached_property
    def plan(self) -> InputPlan:
        """The columns of the model's matrix: `<view>__<feature>` of the selections in order, then the Request values."""
        plan: list[FeatureInput | RequestInput] = []
        for selection in self.selections:
            view, places = selection.view, {feature.name: i for i, feature in enumerate(selection.view.served)}
            plan += [
                FeatureInput(
                    f"{view.plain_name}__{name}", self.views.index(view), places[name], view.served[places[name]].aggregation.gives is str
                )
                for name in selection.names
            ]
        return (*plan, *(RequestInput(request.name, request) for request in self.requests))

    @property
    def making(self) -> str:
        """The command that makes a version."""
        imports = self.pipeline is no_pipeline
        return f"tidemill models import {self.name} FILE.onnx --contract CONTRACT.json" if imports else f"tidemill train {self.name}"

    @property
    def input_names(self) -> list[str]:
        """The names of the columns of the model's matrix, in order."""
        return [column.name for column in self.plan]

    @cached_property
    def request_fields(self) -> list[str]:
        """The names that a request must give: the entities of the views, then the Request values, each once."""
        return list(dict.fromkeys([name for view in self.views for name in view.key.names] + [request.name for request in self.requests]))

    def _check_inputs(self) -> None:
        for item in self.inputs:
            if isinstance(item, Request):
                self._need_field("inputs", item.name)
                self._check_content(item)
                self._check_type(item)
            elif isinstance(item, FeatureView | Selection):
                view = item if isinstance(item, FeatureView) else item.view
                for name in view.key.names:
                    self._need_field("inputs", name)
                self._refuse_lists(view, None if isinstance(item, FeatureView) else item.names)
            else:
                self._fail("inputs", f"{item!r} is not an input", "pass a FeatureView, view.select(...) or Request(...)")
        names = self.input_names
        if len(set(names)) != len(names):
            self._fail("inputs", "an input is named twice", "remove one of them")

    def _check_content(self, request: Request) -> None:
        if request.is_content and self.on.base_type(request.name) is not str:
            self._fail("inputs", f"{request.name!r} of event {self.on.name!r} is no text", f"declare the field of {request.name!r} as str")
        if request.is_content and request.name in (FEATURES, *(name for view in self.views for name in view.key.names)):
            self._fail("inputs", f"{request.name!r} is the name of something else that a request has", "rename the field")

    def _check_type(self, request: Request) -> None:
        """A training set takes the values of requests from the event that asks."""
        field = self.on.base_type(request.name)
        if field is not request.type and not {field, request.type} <= {int, float}:
            told = f"{request.name!r} of event {self.on.name!r} is {field.__name__}, and the request is to give {request.type.__name__}"
            self._fail("inputs", told, f"write Request({request.name!r}{'' if field is float else f', {field.__name__}'})")

    def _check_training(self) -> None:
        if not isinstance(self.training, Training):
            self._fail("training", f"{self.training!r} is no Training", "write training=Training(...)")
        inputs = self.input_names
        fields = [*self.request_fields, *inputs]
        for label, names, known in (
            ("segment", self.training.segments, fields), ("expect", self.training.expect, inputs),
            ("trusted", self.training.trusted, inputs),
            ("weight", [self.training.weights] if self.training.weights else [], fields),
            ("group", [self.training.split.field] if isinstance(self.training.split, ByGroup) else [], ["subject", *fields]),
        ):  # fmt: skip
            for name in names:
                if name not in known:
                    self._fail(
                        "training",
                        f"{label} {name!r} is no {'input' if known is inputs else 'field of requests or input'}",
                        did_you_mean(name, known) or f"name one of {', '.join(known)}",
                    )

    def _check_retrain(self) -> None:
        if self.retrain is None:
            return
        if not isinstance(self.retrain, Retrain):
            self._fail("retrain", f"{self.retrain!r} is no Retrain", "write retrain=Retrain(...)")
        if self.pipeline is no_pipeline:
            self._fail("retrain", "a model without a pipeline cannot be trained again", "give it a pipeline, or leave retrain out")
        self._check_policy("retrain", self.retrain)

    def _check_policy(self, label: str, policy: Retrain | Online) -> None:
        for name in [*([policy.cluster] if policy.cluster else []), *(policy.segments or ())]:
            if name not in self.request_fields:
                near = did_you_mean(name, self.request_fields)
                self._fail(label, f"{name!r} is no field that requests give", near or f"name one of {', '.join(self.request_fields)}")

    def _check_online(self) -> None:
        if self.online is None:
            return
        if not isinstance(self.online, Online):
            self._fail("online", f"{self.online!r} is no Online", "write online=Online(...)")
        if wrong := mistake(self.engine, self.training, retrained=self.retrain is not None, pipeline=self.pipeline is not no_pipeline):
            self._fail("online", *wrong)
        self._check_policy("online", self.online)

    def _refuse_lists(self, view: FeatureView, names: Collection[str] | None) -> None:
        chosen = [feature for feature in view.served if names is None or feature.name in names]
        lists = [feature.name for feature in chosen if feature.aggregation.gives is list]
        if lists:
            rest = [feature.name for feature in view.served if feature.aggregation.gives is not list]
            mend = f"select the others: {view.name}.select({', '.join(map(repr, rest)) or '...'})"
            self._fail("inputs", f"{', '.join(lists)} of view {view.name!r} is a list of numbers, a model takes single ones", mend)

    def _need_field(self, label: str, name: str) -> None:
        if name not in self.on.fields:
            self._fail(
                label, f"event {self.on.name!r} has no field {name!r}", f"add it to the event, or name one of {', '.join(self.on.fields)}"
            )

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Model {self.name!r}: {message}", where=self.declared_at, field=name, mend=mend)
