"""From what the store has to a record for the log: features, inputs, output. Pure, but for the clock in the record and a pipeline's worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidemill.clock import now_ms
from tidemill.errors import BadRequest
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.answers import ModelAnswer
from tidemill.models.contents import Contents
from tidemill.models.inputs import Vector, vector_of
from tidemill.online.reader import Stored, stamp_of
from tidemill.records import PredictionRecord
from tidemill_inference.loaded import LoadedVersion
from tidemill_inference.messages import Instance


class Features:
    """The features that one request sees. Its instances share entities and times, and so do its shadows: what was read once is not read again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[ViewKernel, bytes, int], tuple[bytes | None, Served]] = {}

    def of(self, kernel: ViewKernel, key: bytes | None, stored: Stored | None, time_ms: int) -> Served:
        """The features of one view. What one read of the store gave for a key is one object; what another read gave is read anew."""
        if key is None or stored is None:
            return serve(kernel.view, None, time_ms)
        place = kernel, key, time_ms
        found = self._seen.get(place)
        if found is None or found[0] is not stored.value:
            reading = None if stored.value is None else kernel.read(stored.value, time_ms, stored.since_ms)
            found = self._seen[place] = stored.value, serve(kernel.view, reading, time_ms)
        return found[1]

    def of_all(self, version: LoadedVersion, keys: Sequence[bytes | None], stored: Sequence[Stored | None], time_ms: int) -> list[Served]:
        """The features of each view of a version."""
        views = zip(version.kernels, keys, stored, strict=True)
        return [self.of(kernel, key, item, time_ms) for kernel, key, item in views]


async def record_of(
    version: LoadedVersion, instance: Instance, served: Sequence[Served], stored: Sequence[Stored | None]
) -> PredictionRecord:
    """What a version answers from features, for the log. Raises as `answered_by`."""
    contents = version.inputs.contents(instance.given)
    vector = vector_of(version.inputs.row(served, instance.given, contents))
    answer = await answered_by(version, vector, contents)
    return logged(version, instance, vector, answer, [item for item in stored if item is not None], contents)


async def answered_by(version: LoadedVersion, vector: Vector, contents: Contents = ()) -> ModelAnswer:
    """What a version answers to inputs: at once, unless its own pipeline serves it. Raises BadRequest when it is no number, EngineUnavailable."""
    worker = version.engine.worker
    answer = version.engine.answer(vector, contents) if worker is None else await version.engine.answer_of_worker(worker, vector)
    if not answer.is_finite:
        raise BadRequest(
            f"model {version.engine.label} gives no number for these inputs", mend="check the values that come with the request"
        )
    return answer


def logged(
    version: LoadedVersion, instance: Instance, vector: Vector, answer: ModelAnswer, stored: Sequence[Stored], contents: Contents = ()
) -> PredictionRecord:
    """The record for the log; a NaN input is written as null. `stored`: what it has seen of the store."""
    manifest = version.manifest
    given: dict[str, Any] = {name: instance.given[name] for name in version.inputs.entity_fields} if instance.given else {}
    return PredictionRecord(
        instance.id,
        manifest.model,
        manifest.version,
        instance.time_ms,
        now_ms(),
        vector.tolist(),
        answer.output,
        instance.subject,
        given,
        stamp_of(stored),
        dict(answer.probabilities),
        version.inputs.named(contents),
    )
