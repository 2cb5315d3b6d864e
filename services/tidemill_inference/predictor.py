"""From checked instances to logged predictions: one read of the store, one model call per row, one write to the log."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tidemill.clock import now_ms
from tidemill.errors import BadRequest, Rebuilding, TidemillError
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.inputs import ModelInputs, Vector, vector_of
from tidemill.online.reader import OnlineReader, Stored, stamp_of
from tidemill.records import PredictionRecord, encode
from tidemill.runtime import metrics
from tidemill_inference.first_answers import FirstAnswers, Made
from tidemill_inference.messages import FeatureShown, Instance, Prediction, PredictRequest, new_id
from tidemill_inference.prediction_log import Entry, PredictionLog
from tidemill_inference.registry import LoadedModel

_BREATH = 20  # rows between two turns of the loop, so that a large request does not hold up small ones


class _Asked(NamedTuple):
    """An instance and the keys of its views' entities (None: it has none)."""

    instance: Instance
    keys: list[bytes | None]


class Predictor:
    """Predicts by entity and by tensor."""

    def __init__(self, kernels: Mapping[str, ViewKernel], reader: OnlineReader, answers: FirstAnswers, log: PredictionLog) -> None:
        self._kernels = kernels
        self._reader = reader
        self._answers = answers
        self._log = log

    async def by_entity(self, loaded: LoadedModel, request: PredictRequest) -> list[Prediction | TidemillError]:
        """One result per instance, logged. Raises StoreUnavailable, KafkaUnavailable and RecordTooLarge for all of them."""
        asked = [_ask(loaded.inputs, item) for item in request.instances]
        stored = iter(await self._read(loaded.inputs, [item for item in asked if isinstance(item, _Asked)]))
        results: list[Made | TidemillError] = []
        for count, item in enumerate(asked, 1):
            if isinstance(item, TidemillError):
                results.append(item)
                continue
            try:
                results.append(self._predict(loaded, item, next(stored), show_features=request.features))
            except TidemillError as error:
                results.append(error)
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        return [item.prediction if isinstance(item, Made) else item for item in await self._logged(loaded, results)]

    async def by_tensor(self, loaded: LoadedModel, rows: Sequence[Vector]) -> tuple[str, list[float]]:
        """The outputs of rows of inputs, and the id of the first's prediction; row i > 0 has `<id>-<i>`. Raises as `by_entity`."""
        now = now_ms()
        first = new_id(now)
        entries, outputs = [], []
        for i, vector in enumerate(rows):
            instance = Instance(f"{first}-{i}" if i else first, None, now, {})
            outputs.append(_output(loaded, vector))
            entries.append((instance.id.encode(), encode(_record(loaded, instance, vector, outputs[-1], []))))
            if i % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        await self._append(loaded, entries)
        return first, outputs

    async def _logged(self, loaded: LoadedModel, results: list[Made | TidemillError]) -> list[Made | TidemillError]:
        """The results, each the first of its id, once they are in the log."""
        made = [item for item in results if isinstance(item, Made)]
        if any(item.instance.own_id for item in made):
            self._log.check([_entry(item) for item in made])  # what cannot be logged is not kept either
            settled = iter(await self._answers.settle(made))
            results = [next(settled) if isinstance(item, Made) else item for item in results]
            made = [item for item in results if isinstance(item, Made)]
        await self._append(loaded, [_entry(item) for item in made], repeated=sum(item.repeated for item in made))
        return results

    async def _append(self, loaded: LoadedModel, entries: list[Entry], repeated: int = 0) -> None:
        if entries:
            await self._log.append(entries)
            metrics.PREDICTIONS.labels(loaded.manifest.model, loaded.manifest.version).inc(len(entries) - repeated)
            metrics.PREDICTIONS_REPEATED.labels(loaded.manifest.model).inc(repeated)

    async def _read(self, inputs: ModelInputs, asked: Sequence[_Asked]) -> list[list[Stored | None]]:
        """What is stored for each view of each instance, all of it in one read. Raises Rebuilding when one of them is not to be served."""
        names = [view.name for view, _ in inputs.views]
        pairs = [(name, key) for item in asked for name, key in zip(names, item.keys, strict=True) if key is not None]
        stored = await self._reader.read(pairs)
        if rebuilding := sorted({view for (view, _), item in zip(pairs, stored, strict=True) if item.rebuilding}):
            raise Rebuilding(rebuilding)
        found = iter(stored)
        return [[None if key is None else next(found) for key in item.keys] for item in asked]

    def _predict(self, loaded: LoadedModel, asked: _Asked, stored: list[Stored | None], *, show_features: bool) -> Made:
        instance, time_ms = asked.instance, asked.instance.time_ms
        served = []
        for (view, _), item in zip(loaded.inputs.views, stored, strict=True):
            value = None if item is None else item.value
            served.append(serve(view, None if value is None else self._kernels[view.name].read(value, time_ms), time_ms))
        vector = vector_of(loaded.inputs.row(served, instance.given))
        output = _output(loaded, vector)
        manifest = loaded.manifest
        record = _record(loaded, instance, vector, output, [item for item in stored if item is not None])
        shown = _features_shown(loaded.inputs, served, instance) if show_features else None
        prediction = Prediction(instance.id, manifest.model, manifest.version, time_ms, manifest.output, output, shown)
        return Made(instance, prediction, encode(record))


def _entry(item: Made) -> Entry:
    return item.instance.id.encode(), item.value


def _ask(inputs: ModelInputs, item: Instance | TidemillError) -> _Asked | TidemillError:
    if isinstance(item, TidemillError):
        return item
    try:
        return _Asked(item, inputs.keys(item.given))
    except BadRequest as error:
        return error


def _output(loaded: LoadedModel, vector: Vector) -> float:
    output = loaded.engine.predict(vector)
    if not math.isfinite(output):
        raise BadRequest(
            f"model {loaded.engine.label} gives no number for these inputs", mend="check the values that come with the request"
        )
    return output


def _record(loaded: LoadedModel, instance: Instance, vector: Vector, output: float, stored: Sequence[Stored]) -> PredictionRecord:
    """The log's record; NaN among the inputs is written as null."""
    manifest = loaded.manifest
    given: dict[str, Any] = {name: instance.given[name] for name in loaded.inputs.fields} if instance.given else {}
    return PredictionRecord(
        instance.id,
        manifest.model,
        manifest.version,
        instance.time_ms,
        now_ms(),
        vector.tolist(),
        output,
        instance.subject,
        given,
        stamp_of(stored),
    )


def _features_shown(inputs: ModelInputs, served: Sequence[Served], instance: Instance) -> dict[str, FeatureShown]:
    shown = {}
    for name, (view, place) in zip(inputs.names, inputs.places, strict=False):  # features come first among the inputs
        of_view = served[view]
        age = None if of_view.newest_ms is None else (instance.time_ms - of_view.newest_ms) / 1000
        shown[name] = FeatureShown(of_view.values[place], of_view.statuses[place], age)
    for name in inputs.names[len(inputs.places) :]:
        value = instance.given[name]
        shown[name] = FeatureShown(value, "NULL_VALUE" if value is None else "PRESENT", None)
    return shown
