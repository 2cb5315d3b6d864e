"""A worker that takes partitions over knows what their logs had lately, however long these are, and reads no more of them than it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from tests.event_time.world import Row

from tidemill import Event, FeatureView, count
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold, entry_decoder, typed_decoder
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import ViewKernel
from tidemill.records import KafkaRecord, ViewRecord, encode
from tidemill_features.recall import Memory, recall

MINUTE_MS = 60_000
VIEW = FeatureView("shops", Event("bought", {"shop": str, "at": int, "id": str}, time="at", id="id"), "shop", [count()])
KERNEL = ViewKernel(VIEW)
DECODE = entry_decoder(VIEW)
TOPIC = TP("p.view.shops.p4", 0)


class Kafka:
    """Logs in memory, of minutes of knowing and ids. `read`: how many records were given."""

    def __init__(self, *logs: Sequence[tuple[int, str | None]]) -> None:
        self.logs = {
            TP(TOPIC.topic, partition): [
                Row(i, b"a", encode(ViewRecord(0, minute * MINUTE_MS, (0, i), {}, event_id)), 0) for i, (minute, event_id) in enumerate(log)
            ]
            for partition, log in enumerate(logs)
        }
        self.read = 0

    def folded(self, tp: TP = TOPIC) -> PartitionFold:
        """A fold that saw every record."""
        fold = PartitionFold.start(KERNEL)
        fold.advance([DECODE(row.offset, row.key, row.value) for row in self.logs[tp]], {})
        return fold

    async def past(self, spans: Mapping[TP, range]) -> AsyncIterator[tuple[TP, Sequence[KafkaRecord]]]:
        """Pieces of a thousand records."""
        for tp, span in spans.items():
            for begin in span[::1_000]:
                piece = self.logs[tp][begin : span.stop][:1_000]
                self.read += len(piece)
                yield tp, piece

    def recalled(self, start: int = 0) -> dict[TP, Recent]:
        """The memories of the whole logs, which Kafka has from an offset on, as a worker gets them that finds only the fences."""
        memories, held = dict[TP, Memory](), dict[TP, range]()
        for tp, rows in self.logs.items():
            recent = PartitionFold(KERNEL, Fence.decode(self.folded(tp).fence.encode())).recent
            assert recent is not None
            if recent.turns:
                memories[tp], held[tp] = Memory(recent, typed_decoder(VIEW)), range(start, len(rows))
        asyncio.run(recall(memories, held, self.past))
        return {tp: memory.recent for tp, memory in memories.items()}


def next_repeats(recent: Recent | None, event_id: str, minute: int) -> bool:
    """What a memory says of the next record of the log."""
    assert recent is not None
    if minute * MINUTE_MS >= recent.turn_ms:
        recent.turn(minute * MINUTE_MS, 10**6)
    return recent.again(b"a", event_id)


LOG = st.lists(st.tuples(st.integers(0, 90), st.sampled_from([None, *"uvwxyz"])), min_size=1, max_size=40)


@given(LOG, LOG, st.integers(0, 120))
def test_what_was_recalled_answers_as_what_was_remembered(
    one: list[tuple[int, str | None]], other: list[tuple[int, str | None]], minute: int
) -> None:
    """Records in any order of known, of two partitions at once: the next record is judged as by a fold that never ended."""
    kafka = Kafka(one, other)
    for event_id in "uvwxyz":
        for tp, recalled in kafka.recalled().items():
            assert next_repeats(recalled, event_id, minute) == next_repeats(kafka.folded(tp).recent, event_id, minute)


def test_only_the_end_of_a_long_log_is_read() -> None:
    """Of 40,000 records, ten a minute, four thirds are read: the one that has begun, and the three before."""
    kafka = Kafka([(i // 10, f"e{i}") for i in range(40_000)])
    recent = kafka.recalled()[TOPIC]
    assert kafka.read == recent.records == 400
    assert next_repeats(recent, "e39600", 3_999)
    assert not next_repeats(recent, "e39599", 3_999)


def test_what_kafka_deleted_is_not_asked_for() -> None:
    """The log begins later: its first record is the first that is read, in the part of time in which it lies."""
    kafka = Kafka([(35, "first"), *((0, f"e{i}") for i in range(1, 50)), (41, "last")])
    recent = kafka.recalled(start=40)[TOPIC]
    assert kafka.read == 11
    assert not next_repeats(recent, "e39", 65)
    assert next_repeats(recent, "e40", 65)


def test_a_log_without_records_is_not_read() -> None:
    """A partition that nothing was folded in has nothing to tell."""
    assert Kafka([]).recalled() == {}


def test_noise_is_passed_over() -> None:
    """What the fold refuses tells nothing: it has no id that counts."""
    kafka = Kafka([(1, "x"), (1, "y"), (1, "z")])
    rows = kafka.logs[TOPIC]
    rows[0], rows[2] = rows[0]._replace(value=rows[0].value and rows[0].value[:-2]), rows[2]._replace(key=b"\xff")
    recent = kafka.recalled()[TOPIC]
    assert [next_repeats(recent, event_id, 1) for event_id in "xyz"] == [False, True, False]
