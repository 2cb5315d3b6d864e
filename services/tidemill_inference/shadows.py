"""What shadows would have answered: asked after the caller has its answer, and logged on a topic of their own.

Shadows cost a caller nothing: they are asked one after the other between other work, only a bounded number wait, and one for which there is
no room, or whose log is away, is left out and counted. So the log of shadows may have gaps; what it has is exact, and can be replayed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tidemill.errors import Rebuilding, TidemillError
from tidemill.online.reader import OnlineReader, Stored
from tidemill.records import encode
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill_inference.computing import Features, record_of
from tidemill_inference.loaded import LoadedVersion
from tidemill_inference.messages import Instance
from tidemill_inference.prediction_log import Entry, PredictionLog

log = get_logger(__name__)

MOST = 2_000
WAVE = 50  # so many are written at once

Seen = Mapping[tuple[str, bytes], Stored]
"""What the answer saw of the store, by log and entity."""


class _Unasked(NamedTuple):
    version: LoadedVersion
    instance: Instance
    seen: Seen
    features: Features


class Shadows:
    """Asks shadows; run `run` as a task. `reader`: reads what the answer did not read; another may take its place at any time."""

    def __init__(self, reader: OnlineReader, to_log: PredictionLog) -> None:
        self.reader = reader
        self._log = to_log
        self._waiting: deque[_Unasked] = deque()
        self._something = asyncio.Event()

    def ask(self, versions: Sequence[LoadedVersion], instance: Instance, seen: Seen, features: Features) -> None:
        """Lets versions be asked what was answered just now. `features`: those that the answer saw."""
        for version in versions:
            if len(self._waiting) >= MOST:
                metrics.SHADOWS_LEFT_OUT.labels(version.manifest.model).inc()
            else:
                self._waiting.append(_Unasked(version, instance, seen, features))
                self._something.set()

    async def run(self) -> None:
        """Ask what waits, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._waiting:
                await self._wave([self._waiting.popleft() for _ in range(min(WAVE, len(self._waiting)))])

    async def _wave(self, asked: Sequence[_Unasked]) -> None:
        answered, entries = list[_Unasked](), list[Entry]()
        for item in asked:
            await asyncio.sleep(0)  # requests come first
            try:
                entries.append(await self._answer(item))
                answered.append(item)
            except Exception as error:  # a wrong shadow must not stop what answers
                self._left_out([item], error)
        try:
            await self._log.append(entries)
        except TidemillError as error:
            self._left_out(answered, error)
        else:
            for item in answered:
                metrics.SHADOWS.labels(item.version.manifest.model, item.version.manifest.version).inc()

    async def _answer(self, item: _Unasked) -> Entry:
        """Raises what the reader raises, and BadRequest for inputs that the version cannot take."""
        version, instance = item.version, item.instance
        keys = version.inputs.keys(instance.given)
        places = [None if key is None else (kernel.view.log, key) for kernel, key in zip(version.kernels, keys, strict=True)]
        seen = dict(item.seen)
        lacking = [place for place in places if place is not None and place not in seen]
        seen.update(zip(lacking, await self.reader.read(lacking), strict=True))
        if rebuilding := sorted({name for (name, _), of_view in seen.items() if of_view.rebuilding}):
            raise Rebuilding(rebuilding)
        stored = [None if place is None else seen[place] for place in places]
        served = item.features.of_all(version, keys, stored, instance.time_ms)
        return instance.id.encode(), encode(await record_of(version, instance, served, stored))

    @staticmethod
    def _left_out(items: Sequence[_Unasked], error: Exception) -> None:
        for item in items:
            metrics.SHADOWS_LEFT_OUT.labels(item.version.manifest.model).inc()
        log.warning("shadows are left out", versions=len(items), reason=str(error) or repr(error))
