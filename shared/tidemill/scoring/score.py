"""Scoring: what a version of a model answers to each row of a table, by the code that answers requests.

A row is a request: entities, values of the request and a moment; or it already has all inputs of the model. What a request would be refused
for, its row is refused for; the others are answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tidemill.declarations import Model
from tidemill.declarations.models import FeatureInput
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, MissingInputs, TidemillError
from tidemill.models.answers import ModelAnswer, chosen
from tidemill.models.artifact import Artifact, Manifest
from tidemill.models.contents import Contents
from tidemill.models.declared import as_declared
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import UNKNOWN_CATEGORY, ModelInputs, Vector, numbers_of, vector_of
from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.offline.store import OfflineStore
from tidemill.scoring.asked import Requests, seen_by
from tidemill.scoring.cells import moment_of, ready_input, request_value
from tidemill.scoring.tables import RequestTable

TIME = "time"


class ScoreWatch(NamedTuple):
    """`note` gets messages about progress; `done` the number of rows answered so far."""

    note: Callable[[str], None] = lambda _: None
    done: Callable[[int], None] = lambda _: None


class Scored(NamedTuple):
    """What a row is answered, and the inputs that cannot be known with the reason (as `/predict`); or why there is no answer."""

    answer: ModelAnswer | None
    degraded: Mapping[str, str] = {}
    error: str = ""


class Scorer:
    """Scores tables by one version. Raises UnknownModel, ArtifactError.

    `spec`: the project's folder, file or module, so that other processes can load it and help to read features (None: they do not).
    """

    def __init__(self, project: Project, store: OfflineStore, artifact: Artifact, spec: str | None = None) -> None:
        self.manifest: Manifest = artifact.manifest
        self.model, _ = as_declared(project, artifact.manifest)
        self._engine: Engine = load_engine(artifact)
        self._inputs = ModelInputs(self.model, artifact.manifest.categories)
        self._numbers = [numbers_of(item.categories) for item in artifact.manifest.inputs]
        self._store, self._spec = store, spec

    def has_inputs(self, table: RequestTable) -> bool:
        """Whether the rows have all inputs, so that no feature is read. Raises TidemillError when they have neither these nor a request's values."""
        lacking = [item.name for item in self.manifest.inputs if item.name not in table.columns]
        if not lacking:
            return True
        absent = [name for name in self._inputs.fields if name not in table.columns]
        if absent:
            raise TidemillError(
                f"{table.path} has no column {', '.join(absent)}, which requests of {self.model.name} have, and no input {lacking[0]}",
                mend=f"give it the columns {', '.join([*self._inputs.fields, TIME])}, or all inputs as `tidemill train-set` writes them",
            )
        return False

    def score(self, table: RequestTable, now_ms: int, watch: ScoreWatch) -> list[Scored]:
        """The answer to each row. `now_ms`: the moment of rows without one."""
        if self.has_inputs(table):
            return _each(len(table), lambda row: self._of_inputs(table, row), watch)
        requests = [_request(self.model, table, row, now_ms) for row in range(len(table))]
        return self._of_requests(requests, watch)

    def _of_inputs(self, table: RequestTable, row: int) -> Scored:
        degraded = dict[str, str]()
        vector = [math.nan] * len(self.manifest.inputs)
        for i, item in enumerate(self.manifest.inputs):
            value = table.columns[item.name][row]
            if item.is_content:
                continue
            vector[i] = ready_input(item, self._numbers[i], value, from_text=table.texts)
            if item.is_category and value is not None and value not in self._numbers[i]:
                degraded[item.name] = UNKNOWN_CATEGORY
        contents = self._inputs.contents({name: table.columns[name][row] for name in self._inputs.content_names})
        return self._answer(vector_of(self._inputs.standing(vector, contents)), degraded, contents)

    def _of_requests(self, requests: Sequence[_Request | BadRequest], watch: ScoreWatch) -> list[Scored]:
        """Reads the features of all requests that can be read, then answers each."""
        keys = [self._keys(request) for request in requests]
        asked = [i for i, found in enumerate(keys) if not isinstance(found, BadRequest)]
        views = self.model.views
        seen = []
        if asked and views:
            of_views = [[key[v] for key in keys if not isinstance(key, BadRequest)] for v in range(len(views))]
            used = [
                [column.feature for column in self._inputs.plan if isinstance(column, FeatureInput) and column.view == v]
                for v in range(len(views))
            ]
            times_ms = np.array([request.time_ms for request in (requests[i] for i in asked) if isinstance(request, _Request)], np.int64)
            seen = seen_by(self._store, self._spec, views, Requests(of_views, used, times_ms), watch.note)
        place = {row: i for i, row in enumerate(asked)}

        def answer(row: int) -> Scored:
            request, found = requests[row], keys[row]
            if isinstance(found, BadRequest):
                raise found
            assert isinstance(request, _Request)
            served = [of_view.served(place[row]) for of_view in seen]
            contents = self._inputs.contents(request.given)
            vector = vector_of(self._inputs.row(served, request.given, contents))
            return self._answer(vector, self._inputs.degraded(served, request.given), contents)

        return _each(len(requests), answer, watch)

    def _keys(self, request: _Request | BadRequest) -> list[bytes | None] | BadRequest:
        if isinstance(request, BadRequest):
            return request
        try:
            return self._inputs.keys(request.given)
        except BadRequest as error:
            return error

    def _answer(self, vector: Vector, degraded: Mapping[str, str], contents: Contents) -> Scored:
        if degraded and self.model.on_missing == "refuse":
            raise MissingInputs(self.model.name, dict(degraded))
        answer = self._engine.answer(vector, contents)
        if not answer.is_finite:
            raise BadRequest(f"model {self._engine.label} gives no number for these inputs")
        return Scored(answer, degraded)


class _Request(NamedTuple):
    """A row as a request."""

    given: dict[str, Any]
    time_ms: int


def _request(model: Model, table: RequestTable, row: int, now_ms: int) -> _Request | BadRequest:
    given = {}
    for name in model.request_fields:
        value = table.columns[name][row]
        given[name] = request_value(value, model.on.base_type(name), from_text=table.texts)
    try:
        time = table.columns[TIME][row] if TIME in table.columns else None
        return _Request(given, now_ms if time is None else moment_of(time))
    except ValueError as error:
        return BadRequest(f"{TIME}: {error}")


def result_columns(table: RequestTable, scored: Sequence[Scored], manifest: Manifest) -> dict[str, list[Any]]:
    """The table with what its rows are answered: version; output by its name (of several classes `class`, and `probabilities` as JSON);
    `degraded` (JSON as `/predict` has it); `error`. Raises TidemillError when the table has such a column."""
    answers = [row.answer for row in scored]
    added: dict[str, list[Any]] = {"version": [answer and manifest.version for answer in answers]}
    if manifest.class_names:
        added["class"] = [answer and chosen(answer.probabilities) for answer in answers]
        added[manifest.output] = [answer and _json(answer.probabilities) for answer in answers]
    else:
        added[manifest.output] = [answer and answer.output for answer in answers]
    added["degraded"] = [_json(row.degraded) if row.degraded else None for row in scored]
    added["error"] = [row.error or None for row in scored]
    if both := [name for name in added if name in table.columns]:
        raise TidemillError(f"{table.path} has a column {both[0]}, which the result has too", mend="rename it")
    return {name: list(values) for name, values in table.columns.items()} | added


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _each(count: int, answer: Callable[[int], Scored], watch: ScoreWatch) -> list[Scored]:
    found = []
    for row in range(count):
        try:
            found.append(answer(row))
        except (BadRequest, EngineUnavailable) as error:  # a pipeline that ends its worker, or is too slow, does so for its row
            found.append(Scored(None, error=error.message))
        if row % 500 == 499:
            watch.done(row + 1)
    watch.done(count)
    return found
