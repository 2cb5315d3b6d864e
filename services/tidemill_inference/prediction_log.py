"""The promise of every answer: a prediction is in Kafka before its client gets it.

Concurrent requests share a wave: while one wave is being written the next one gathers. So under load many predictions cost one round trip,
and a single prediction waits for no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import monotonic

from aiokafka import AIOKafkaProducer

from tidemill.errors import KafkaUnavailable, RecordTooLarge
from tidemill.kafka.client import MAX_BATCH_BYTES, started_producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.watch import unanswered
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.keys import partition_of
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse

log = get_logger(__name__)

TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 0.5
MAX_QUEUED_BYTES = 16 << 20
_RECORD_OVERHEAD_BYTES = 200  # of a batch with one record, rounded up

Entry = tuple[bytes, bytes]
"""Id and encoded record of a prediction."""


class _Waiting:
    """The records of one request, and the future that its caller awaits."""

    __slots__ = ("done", "records", "since", "size_bytes")

    def __init__(self, records: Sequence[Entry], size_bytes: int) -> None:
        self.records = records
        self.size_bytes = size_bytes
        self.since = monotonic()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class PredictionLog:
    """Writes predictions to a topic; run `run` as a task while others call `append`.

    `on_change` gets None when Kafka accepts predictions, and the reason when it does not.
    """

    def __init__(self, settings: KafkaSettings, topic: str, spec: TopicSpec, on_change: Callable[[str | None], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._spec = spec
        self._on_change = on_change
        self._queue: list[_Waiting] = []
        self._queued_bytes = 0
        self._in_flight: list[_Waiting] = []
        self._something = asyncio.Event()
        self._away: str | None = "not connected yet"
        self.pulse = Pulse("prediction log")

    def check(self, entries: Sequence[Entry]) -> int:
        """The size of some entries in bytes. Raises RecordTooLarge, and KafkaUnavailable when `append` would refuse them at once."""
        size_bytes = 0
        for key, value in entries:
            if (size := len(key) + len(value) + _RECORD_OVERHEAD_BYTES) > MAX_BATCH_BYTES:
                raise RecordTooLarge(self._topic, partition_of(key, self._spec.partitions), size, MAX_BATCH_BYTES)
            size_bytes += size
        if self._away is not None:
            raise _unavailable(self._away)
        if self._queued_bytes + size_bytes > MAX_QUEUED_BYTES:
            raise _unavailable("too many predictions wait already")
        return size_bytes

    async def append(self, entries: Sequence[Entry]) -> None:
        """Returns once all are acknowledged. Raises as `check` does, and KafkaUnavailable after at most two seconds.

        After KafkaUnavailable they may still be written: repeat the request with the same ids.
        """
        size_bytes = self.check(entries)
        waiting = _Waiting(entries, size_bytes)
        self._queue.append(waiting)
        self._queued_bytes += size_bytes
        self._something.set()
        await waiting.done

    async def run(self) -> None:
        """Write the appended entries, for ever. After KafkaRefused it starts a new producer."""
        watch = asyncio.create_task(self._watch(), name="prediction-log-watch")
        try:
            await supervise(self._write, lambda error: self._report(str(error)), [self.pulse], (Exception,), RETRY_SECONDS)
        finally:
            watch.cancel()
            self._report("shutting down")
            self._fail([*self._in_flight, *self._queue], "shutting down")

    async def _write(self) -> None:
        await ensure_topics(self._settings, {self._topic: self._spec})
        async with started_producer(self._settings, close_seconds=TIMEOUT_SECONDS) as made:
            self._report(None)
            probe = asyncio.create_task(self._probe(made), name="prediction-log-probe")
            try:
                await self._pump(made)
            except Exception as error:  # KafkaRefused, or unexpected: the callers get it before the producer is closed
                log.error("a new producer is needed", reason=str(error))
                self._report(str(error))
                self._fail(self._in_flight, str(error))
                self._in_flight = []
                raise
            finally:
                probe.cancel()

    async def _pump(self, made: AIOKafkaProducer) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            self._in_flight, self._queue, self._queued_bytes = self._queue, [], 0
            wave: dict[tuple[str, int], list[Record]] = {}
            for waiting in self._in_flight:
                if not waiting.done.done():  # the caller of the others has got an error already: do not write them
                    for key, value in waiting.records:
                        wave.setdefault((self._topic, partition_of(key, self._spec.partitions)), []).append((key, value, []))
            await send_wave(made, wave)
            self._report(None)
            for waiting in self._in_flight:
                if not waiting.done.done():
                    waiting.done.set_result(None)
            self._in_flight = []

    async def _watch(self) -> None:
        """Fail calls that waited too long, and refuse new ones while a wave is stuck."""
        while True:
            await asyncio.sleep(TIMEOUT_SECONDS / 8)
            overdue = monotonic() - TIMEOUT_SECONDS
            late = [waiting for waiting in (*self._in_flight, *self._queue) if waiting.since < overdue and not waiting.done.done()]
            if not self._in_flight:
                self.pulse.beat()
            if late:
                reason = f"no acknowledgement within {TIMEOUT_SECONDS:g} s"
                self._report(reason)
                self._fail(late, reason)

    async def _probe(self, made: AIOKafkaProducer) -> None:
        """Notice that Kafka went away or came back while no request comes."""
        while True:
            await asyncio.sleep(TIMEOUT_SECONDS)
            if self._in_flight:
                if self._in_flight[0].since < monotonic() - TIMEOUT_SECONDS:
                    await unanswered(self._settings, self._report, self.pulse, TIMEOUT_SECONDS)
            else:
                reached = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        reached = await asyncio.shield(made.client.force_metadata_update())
                self._report(None if reached else f"no broker at {self._settings.bootstrap_servers} answers")

    def _report(self, reason: str | None) -> None:
        self._away = reason
        self._on_change(reason)

    def _fail(self, waiting: Sequence[_Waiting], reason: str) -> None:
        for item in waiting:
            if not item.done.done():
                item.done.set_exception(_unavailable(reason))


def _unavailable(reason: str) -> KafkaUnavailable:
    return KafkaUnavailable(f"the prediction cannot be logged, so it is not given: {reason}", mend="repeat the request with the same id")
