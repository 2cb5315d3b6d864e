"""Running a model row by row: one float32 row in, one answer out. So the output of a row never depends on other rows."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from msgspec import UnsetType

from tidemill.declarations.models import FEATURES
from tidemill.errors import ArtifactError, BadRequest
from tidemill.models.answers import ModelAnswer, answer_of
from tidemill.models.artifact import Artifact, GoldenRow, ModelInput, Output, Parity, PythonEngine
from tidemill.models.contents import Contents
from tidemill.models.feeding import Feed
from tidemill.models.inputs import Vector, vector_of
from tidemill.models.pipelines.courier import Terms
from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.models.pipelines.packages import checked_packages, installing, project_file
from tidemill.models.pipelines.runner import PipelineRunner
from tidemill.models.pipelines.wire import LoadedColumn, Loading
from tidemill.models.runner import Array, OnnxRunner, Runner

_WARM_UP_RUNS = 20
_FLOAT32 = np.dtype(np.float32)
PATIENT = Terms()


class _ToTheBit(Parity, frozen=True):
    """Allows no difference."""

    def allowed(self, answer: Any) -> Any:
        return 0.0


def _width(output: Output, classes: Sequence[str]) -> int:
    """How many numbers an answer has before one of them is chosen."""
    return {"probability": 2, "value": 1, "probabilities": len(classes)}[output]


class Engine:
    """A model that turns one matrix into one answer per row, checked and warm. `label`: its name in errors; `columns`: the inputs of a row;
    `classes`: of `probabilities`, their names in order; `feed`: of a model that takes contents, what makes the runner's arrays.

    Without a feed, the runner takes one float32 matrix of shape (rows, columns). It returns a float32 matrix: for a `probability` of two columns, the
    probabilities of false and true; for a `value` of one column; for `probabilities` of a column for each class. Raises ArtifactError when
    the model cannot serve.
    """

    def __init__(
        self, label: str, runner: Runner, columns: int, output: Output, classes: Sequence[str] = (), feed: Feed | None = None
    ) -> None:
        self.label = label
        self.classes = classes
        self._runner = runner
        self._feed = feed
        self.input_name = FEATURES if feed else self._input(columns)
        width = _width(output, classes)
        self._outputs = [self._output(output, width)]
        if not classes:
            self._column = width - 1
        self._warm_up(columns)

    @classmethod
    def of_pipeline(
        cls, label: str, pickled: bytes, made: PythonEngine, inputs: Sequence[ModelInput], output: Output, classes: Sequence[str] = (),
        terms: Terms = PATIENT,
    ) -> Self:  # fmt: skip
        """The engine of a pickled pipeline, in a worker of its own. Raises ArtifactError."""
        columns = [LoadedColumn(item.name, item.is_category, item.categories) for item in inputs]
        loading = Loading(
            columns, made.frame, output, _width(output, classes), terms.memory_mb, made.module, project_file(label, made.module)
        )
        try:
            return cls(label, PipelineRunner(label, loading, pickled, terms), len(inputs), output, classes)
        except (BadRequest, EngineUnavailable) as error:
            raise ArtifactError(error.message, mend="put an imputer first in the pipeline, and see that it answers in time") from error

    @classmethod
    def of_onnx(cls, label: str, onnx: bytes, inputs: int | Sequence[ModelInput], output: Output, classes: Sequence[str] = ()) -> Self:
        """The engine of an ONNX file. `inputs`: those of a row, or how many numbers it has. Raises ArtifactError."""
        runner, feed = OnnxRunner(label, onnx), None
        if not isinstance(inputs, int) and any(item.is_content for item in inputs):
            feed = Feed(label, inputs, runner.inputs, runner.metadata)
        return cls(label, runner, inputs if isinstance(inputs, int) else len(inputs), output, classes, feed)

    def pooled(self, inputs: Sequence[ModelInput]) -> Self:
        """The engine for rows of a training set, which have a content's place among the `categories` of its input. `inputs`: of the set."""
        if self._feed is None:
            return self
        made = copy.copy(self)
        made._feed = self._feed.pooled(inputs)
        return made

    @property
    def worker(self) -> PipelineRunner | None:
        """The runner of a version that is served by its own pipeline, in a worker: slower than ONNX, and it may be away. None of another."""
        return self._runner if isinstance(self._runner, PipelineRunner) else None

    async def answer_of_worker(self, worker: PipelineRunner, vector: Vector) -> ModelAnswer:
        """`answer`, while the loop does other things. Raises BadRequest when the pipeline fails on these inputs, EngineUnavailable."""
        numbers = worker.answer_of(await asyncio.wrap_future(worker.asked(vector.reshape(1, -1))))[0]
        if self.classes:
            return answer_of(self.classes, numbers.tolist())
        return ModelAnswer(float(numbers[self._column]))

    def predict(self, vector: Vector, contents: Contents = ()) -> float:
        """The number for one float32 vector: the probability of the true class, or the value. NaN when the model gives NaN. `contents`: of the
        inputs that the model takes whole.

        Raises ArtifactError for a model of several classes, which gives no single number: see `answer`.
        """
        if self.classes:
            raise ArtifactError(
                f"{self.label} answers with the probabilities of {len(self.classes)} classes, and this takes one number",
                mend="use a model of a condition or of a number here",
            )
        (output,) = self._runner.run(
            {self.input_name: vector.reshape(1, -1)} if self._feed is None else self._fed(vector, contents), self._outputs
        )
        return float(output[0, self._column])

    def answer(self, vector: Vector, contents: Contents = ()) -> ModelAnswer:
        """The answer for one float32 vector."""
        if not self.classes:
            return ModelAnswer(self.predict(vector, contents))
        return answer_of(self.classes, self.probabilities(vector, contents))

    def probabilities(self, vector: Vector, contents: Contents = ()) -> list[float]:
        """The probability of each of `classes`, in order. NaN where the model gives NaN."""
        (output,) = self._runner.run(
            {self.input_name: vector.reshape(1, -1)} if self._feed is None else self._fed(vector, contents), self._outputs
        )
        found: list[float] = output[0].tolist()
        return found

    def each(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The answers to many rows, each by itself, as `predict` and `probabilities` give them; of several classes shape (rows, classes)."""
        if self.worker is not None:
            found = self.worker.each(rows)
            return np.asarray(found if self.classes else found[:, self._column], np.float64)
        ask = self.probabilities if self.classes else self.predict
        return np.array([ask(row) for row in rows], np.float64)

    def predict_rows(self, rows: npt.NDArray[np.float32], place: int | None = None) -> npt.NDArray[np.float64]:
        """The outputs for many rows in one run, as explanations ask for them: the last bits of one may depend on the others. `place`: of the
        class whose probability is meant. Contents only by their places (`pooled`)."""
        rows = np.asarray(rows, np.float32)
        (output,) = self._runner.run(self._feed.arrays(rows) if self._feed else {self.input_name: rows}, self._outputs)
        return np.asarray(output[:, self._column if place is None else place], np.float64)

    def check_golden(self, rows: Sequence[GoldenRow], parity: Parity) -> None:
        """Raises ArtifactError when the output of a row differs by more than is allowed from the output when the model was made."""
        for row in rows:
            vector, contents = vector_of(row.inputs), () if isinstance(row.contents, UnsetType) else row.contents
            if self.classes:
                found, wanted = self.probabilities(vector, contents), [] if isinstance(row.probabilities, UnsetType) else row.probabilities
            else:
                found, wanted = [self.predict(vector, contents)], [row.output]
            apart = [pair for pair in zip(found, wanted, strict=False) if not abs(pair[0] - pair[1]) <= parity.allowed(pair[1])]
            if apart or len(found) != len(wanted):
                one, other = apart[0] if apart else (found, wanted)
                raise ArtifactError(
                    f"{self.label} gives {one} where it gave {other} when it was made",
                    mend="make the version again on this kind of machine",
                )

    def _fed(self, vector: Vector, contents: Contents) -> Mapping[str, Array]:
        assert self._feed is not None
        return self._feed.arrays(vector.reshape(1, -1), [contents])

    def _input(self, columns: int) -> str:
        inputs = self._runner.inputs
        if len(inputs) != 1 or inputs[0].dtype != _FLOAT32 or inputs[0].shape[1:] != (columns,):
            raise ArtifactError(
                f"{self.label} takes {', '.join(map(str, inputs))}, not one float32 matrix of {columns} columns",
                mend="convert it with one FloatTensorType input",
            )
        return inputs[0].name

    def _output(self, output: Output, columns: int) -> str:
        for spec in self._runner.outputs:
            if spec.dtype == _FLOAT32 and spec.shape[1:] == (columns,):
                return spec.name
        raise ArtifactError(
            f"{self.label} has no float32 output of {columns} columns for its {output}",
            mend="convert a classifier with zipmap off, or a regressor of one target",
        )

    def _warm_up(self, columns: int) -> None:
        """Runs the model on rows without any value. Requests for new entities look like this, so a model that cannot answer is refused."""
        unknown, contents = np.full(columns, np.nan, np.float32), [None] * columns
        for _ in range(_WARM_UP_RUNS):
            if not self.answer(unknown, contents).is_finite:
                raise ArtifactError(
                    f"{self.label} gives no number when all inputs are missing", mend="put an imputer first in the pipeline"
                )


def load_engine(artifact: Artifact, terms: Terms = PATIENT) -> Engine:
    """The engine of a stored version, after a check of its golden rows. `terms`: of its worker, if its own pipeline serves it. Raises
    ArtifactError."""
    manifest = artifact.manifest
    label = f"{manifest.model} {manifest.version}"
    if manifest.own_pipeline:
        return _load_pipeline(label, artifact, manifest.own_pipeline, terms)
    engine = Engine.of_onnx(label, artifact.file, manifest.inputs, manifest.output, manifest.class_names)
    engine.check_golden(manifest.golden, manifest.parity)
    return engine


def _load_pipeline(label: str, artifact: Artifact, made: PythonEngine, terms: Terms) -> Engine:
    """The engine of a pipeline that serves itself. With other packages than those that made it, it must give the very bits of its golden rows."""
    manifest = artifact.manifest
    others = checked_packages(label, made)
    engine = Engine.of_pipeline(label, artifact.file, made, manifest.inputs, manifest.output, manifest.class_names, terms)
    if not others:
        engine.check_golden(manifest.golden, manifest.parity)
        return engine
    try:
        engine.check_golden(manifest.golden, _ToTheBit(0.0, 0, 0.0))
    except ArtifactError as error:
        raise ArtifactError(f"{error.message}, with other packages: {', '.join(map(str, others))}", mend=installing(others)) from error
    return engine
