"""From checked instances to logged predictions: one read of the store, one model call per row, one write to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from tidemill.clock import now_ms
from tidemill.declarations.models import FeatureInput
from tidemill.errors import BadRequest, MissingInputs, Rebuilding, TidemillError
from tidemill.kernel.served import Served
from tidemill.models.answers import ModelAnswer
from tidemill.models.contents import Contents
from tidemill.models.inputs import ModelInputs, Vector
from tidemill.online.reader import OnlineReader, Stored
from tidemill.records import encode
from tidemill.runtime import metrics
from tidemill_inference.computing import Features, answered_by, logged, record_of
from tidemill_inference.explaining import Explaining
from tidemill_inference.first_answers import FirstAnswers, Made
from tidemill_inference.loaded import LoadedModel, LoadedVersion
from tidemill_inference.messages import FeatureShown, Instance, PredictionAnswer, PredictRequest
from tidemill_inference.prediction_log import PredictionLog
from tidemill_inference.shadows import Seen, Shadows

_BREATH = 20  # rows between two turns of the loop, so that a large request does not delay small ones


class _Routed(NamedTuple):
    """An instance, the key of its entity for each view (None: no entity), and the version that answers it."""

    instance: Instance
    keys: list[bytes | None]
    version: LoadedVersion


class Predictor:
    """Predicts by entity and by tensor. `reader`: reads views by the names of their logs; another may take its place at any time."""

    def __init__(
        self,
        reader: OnlineReader,
        answers: FirstAnswers,
        log: PredictionLog,
        shadows: Shadows | None = None,
        explaining: Explaining | None = None,
    ) -> None:
        self.reader = reader
        self._answers = answers
        self._log = log
        self._shadows = shadows
        self._explaining = explaining

    async def by_entity(self, model: LoadedModel, request: PredictRequest) -> list[PredictionAnswer | TidemillError]:
        """One result per instance, logged. Raises StoreUnavailable, KafkaUnavailable and RecordTooLarge for the whole request."""
        routed = [_route(model, item) for item in request.instances]
        read = await self._read([item for item in routed if isinstance(item, _Routed)])
        stored = iter(read)
        features = Features()
        results: list[Made | TidemillError] = []
        for count, item in enumerate(routed, 1):
            if isinstance(item, TidemillError):
                results.append(item)
                continue
            try:
                results.append(await self._predict(item, next(stored), features, show_features=request.features))
            except TidemillError as error:
                results.append(error)
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        results = await self._logged(model.name, results)
        if model.shadows and self._shadows is not None:
            self._ask_shadows(self._shadows, model, routed, read, results, features)
        answers = [item.prediction if isinstance(item, Made) else item for item in results]
        return await self._explained(results, answers) if request.explain else answers

    async def _explained(
        self, results: Sequence[Made | TidemillError], answers: Sequence[PredictionAnswer | TidemillError]
    ) -> list[PredictionAnswer | TidemillError]:
        """The answers with their explanations, which are those of the logged inputs."""
        found = iter(
            await self._explaining.explain([item.record for item in results if isinstance(item, Made)]) if self._explaining else ()
        )
        return [answer._replace(explanation=next(found, None)) if isinstance(answer, PredictionAnswer) else answer for answer in answers]

    @staticmethod
    def _ask_shadows(
        shadows: Shadows,
        model: LoadedModel,
        routed: Sequence[_Routed | TidemillError],
        read: Sequence[list[Stored | None]],
        results: Sequence[Made | TidemillError],
        features: Features,
    ) -> None:
        """Lets shadows be asked what was answered for the first time. `read`: what was read for each instance without an error; `features`: what
        was made of it."""
        stored = iter(read)
        for item, result in zip(routed, results, strict=True):
            if isinstance(item, _Routed):
                views = zip(item.version.kernels, item.keys, next(stored), strict=True)
                if isinstance(result, Made) and not result.repeated:
                    seen: Seen = {
                        (kernel.view.log, key): of_view for kernel, key, of_view in views if key is not None and of_view is not None
                    }
                    shadows.ask(model.shadows, item.instance, seen, features)

    async def by_tensor(
        self, version: LoadedVersion, rows: Sequence[Vector], contents: Sequence[Contents], prediction_id: str
    ) -> list[ModelAnswer]:
        """The answers to rows of inputs. `contents`: of each row, none for a model that takes none. The first row's prediction has the id given, row i > 0 has `<id>-<i>`. Raises as `by_entity`."""
        now = now_ms()
        entries, answers = [], list[ModelAnswer]()
        for i, vector in enumerate(rows):
            instance = Instance(f"{prediction_id}-{i}" if i else prediction_id, None, now, {})
            of_row = contents[i] if contents else ()
            answers.append(await answered_by(version, vector, of_row))
            entries.append((instance.id.encode(), encode(logged(version, instance, vector, answers[-1], [], of_row))))
            if i % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        await self._log.append(entries)
        metrics.PREDICTIONS.labels(version.manifest.model, version.manifest.version).inc(len(entries))
        return answers

    async def _logged(self, model: str, results: list[Made | TidemillError]) -> list[Made | TidemillError]:
        """The results once they are in the log, each replaced by the first prediction of its id."""
        made = [item for item in results if isinstance(item, Made)]
        if any(item.instance.own_id for item in made):
            self._log.check([(item.instance.id.encode(), item.value) for item in made])  # do not store first answers that cannot be logged
            settled = iter(await self._answers.settle(made))
            results = [next(settled) if isinstance(item, Made) else item for item in results]
            made = [item for item in results if isinstance(item, Made)]
        if made:
            await self._log.append([(item.instance.id.encode(), item.value) for item in made])
            for item in made:
                if item.repeated:
                    metrics.PREDICTIONS_REPEATED.labels(model).inc()
                else:
                    metrics.PREDICTIONS.labels(model, item.record.version).inc()
        return results

    async def _read(self, asked: Sequence[_Routed]) -> list[list[Stored | None]]:
        """The stored value of each view for each instance, in one read. Raises Rebuilding when a view must not be served."""
        pairs = [
            (kernel.view, key) for item in asked for kernel, key in zip(item.version.kernels, item.keys, strict=True) if key is not None
        ]
        stored = await self.reader.read([(view.log, key) for view, key in pairs])
        if rebuilding := sorted({view.name for (view, _), item in zip(pairs, stored, strict=True) if item.rebuilding}):
            raise Rebuilding(rebuilding)
        found = iter(stored)
        return [[None if key is None else next(found) for key in item.keys] for item in asked]

    async def _predict(self, routed: _Routed, stored: list[Stored | None], features: Features, *, show_features: bool) -> Made:
        instance, version, inputs = routed.instance, routed.version, routed.version.inputs
        served = features.of_all(version, routed.keys, stored, instance.time_ms)
        degraded = inputs.degraded(served, instance.given)
        if degraded:
            if version.model.on_missing == "refuse":
                raise MissingInputs(version.manifest.model, degraded)
            metrics.PREDICTIONS_DEGRADED.labels(version.manifest.model).inc()
        record = await record_of(version, instance, served, stored)
        shown = _features_shown(inputs, served, instance, record.inputs) if show_features else None
        return Made(instance, record, encode(record), version.manifest.output, shown, degraded, inputs.ignored(instance.given))


def _route(model: LoadedModel, item: Instance | TidemillError) -> _Routed | TidemillError:
    if isinstance(item, TidemillError):
        return item
    try:
        version = model.choose(model.first.inputs.keys(item.given), item.id)
        return _Routed(item, version.inputs.keys(item.given), version)
    except BadRequest as error:
        return error


def _features_shown(
    inputs: ModelInputs, served: Sequence[Served], instance: Instance, row: Sequence[float | None]
) -> dict[str, FeatureShown]:
    """Each input. In the place of a content stands the number that is logged for it."""
    shown = {}
    for i, column in enumerate(inputs.plan):
        if isinstance(column, FeatureInput):
            of_view = served[column.view]
            age = None if of_view.newest_ms is None else max(instance.time_ms - of_view.newest_ms, 0) / 1000
            shown[column.name] = FeatureShown(of_view.value(column.feature), of_view.statuses[column.feature], age)
        else:
            value = row[i] if column.request.is_content else instance.given[column.name]
            shown[column.name] = FeatureShown(value, "NULL_VALUE" if value is None else "PRESENT", None)
    return shown
