"""A worker that takes a partition over knows what the log had lately, however long the log is, and reads no more of it than it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from tests.event_time.world import Row

from tidemill import Event, FeatureView, count
from tidemill.kernel.fold import entry_decoder
from tidemill.kernel.recent import Recent
from tidemill.records import KafkaRecord, ViewRecord, encode
from tidemill_features.recall import recall

MINUTE_MS = 60_000
FOR_MS = 30 * MINUTE_MS
VIEW = FeatureView("shops", Event("bought", {"shop": str, "at": int, "id": str}, time="at", id="id"), "shop", [count()])
DECODE = entry_decoder(VIEW)
TOPIC = TP("p.view.shops.p4", 0)


class Kafka:
    """A log in memory. `read`: how many records were given."""

    def __init__(self, minutes: Sequence[int], ids: Sequence[str | None]) -> None:
        self.records = [
            Row(i, b"a", encode(ViewRecord(0, minute * MINUTE_MS, (0, i), {}, event_id)), 0)
            for i, (minute, event_id) in enumerate(zip(minutes, ids, strict=True))
        ]
        self.read = 0

    async def past(self, tp: TP, start: int, end: int) -> AsyncIterator[Sequence[KafkaRecord]]:
        """Pieces of a thousand records."""
        for begin in range(start, end, 1_000):
            piece = self.records[begin:end][:1_000]
            self.read += len(piece)
            yield piece

    def recalled(self, start: int = 0) -> Recent:
        """The memory of the whole log from an offset on."""
        return asyncio.run(recall(FOR_MS, DECODE, self.past, TOPIC, range(start, len(self.records))))

    def remembered(self) -> Recent:
        """The memory of a fold that saw every record."""
        recent = Recent(FOR_MS)
        for row in self.records:
            record = DECODE(row.offset, row.key, row.value).record
            if record is not None and record.id is not None:
                recent.again(b"a", record.id, record.known)
        return recent


@given(st.lists(st.tuples(st.integers(0, 90), st.sampled_from([None, *"uvwxyz"])), max_size=40), st.integers(0, 120))
def test_what_was_recalled_answers_as_what_was_remembered(log: list[tuple[int, str | None]], minute: int) -> None:
    """Records in any order of known: the next record is judged as by a fold that never ended."""
    kafka = Kafka([minute for minute, _ in log], [event_id for _, event_id in log])
    for event_id in "uvwxyz":
        assert kafka.recalled().again(b"a", event_id, minute * MINUTE_MS) == kafka.remembered().again(b"a", event_id, minute * MINUTE_MS)


def test_only_the_end_of_a_long_log_is_read() -> None:
    """Of 400,000 records, 100 a minute, some 5,000 may matter; the first 10,000 that are read reach further back."""
    kafka = Kafka([i // 100 for i in range(400_000)], [f"e{i}" for i in range(400_000)])
    recent = kafka.recalled()
    assert kafka.read == 10_000
    assert recent.again(b"a", "e397500", 4_000 * MINUTE_MS)
    assert not recent.again(b"a", "e300000", 4_000 * MINUTE_MS)


def test_a_busy_log_is_read_further_back() -> None:
    """2,000 records a minute: ten thousand are five minutes, so more is read until it reaches back far enough."""
    kafka = Kafka([i // 2_000 for i in range(200_000)], [f"e{i}" for i in range(200_000)])
    recent = kafka.recalled()
    assert kafka.read == 10_000 + 40_000 + 160_000
    assert len(recent) == len(kafka.remembered())


def test_what_kafka_deleted_is_not_asked_for() -> None:
    """The log begins later: its first record is the first that is read."""
    kafka = Kafka([0] * 50, [f"e{i}" for i in range(50)])
    recent = kafka.recalled(start=40)
    assert kafka.read == 10
    assert not recent.again(b"a", "e39", 0)
    assert recent.again(b"a", "e40", 0)


def test_noise_is_passed_over() -> None:
    """What the fold refuses tells nothing: it has no id that counts."""
    kafka = Kafka([1, 1], ["x", "y"])
    kafka.records[0] = kafka.records[0]._replace(value=kafka.records[0].value and kafka.records[0].value[:-2])
    recent = kafka.recalled()
    assert not recent.again(b"a", "x", MINUTE_MS)
    assert recent.again(b"a", "y", MINUTE_MS)
