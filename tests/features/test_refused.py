"""What a worker does with records that the fold refuses: a dead letter for each, before the batch is applied."""

from __future__ import annotations

import asyncio
import base64
import gc
from collections.abc import Mapping
from functools import partial
from weakref import ref

import pytest
from faust.types import TP
from prometheus_client import REGISTRY
from tests.event_time.world import HOUR_MS, PROJECT, START_MS, WAITING, Row, Shelf, past_of
from tests.features.letters import KeptLetters

from tidemill.errors import StoreUnavailable
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.records import ViewRecord, encode
from tidemill.streams.topics import view_topic
from tidemill_features import worker as worker_module
from tidemill_features.delivery import Chain, Slice
from tidemill_features.worker import Worker

TOPIC = TP(view_topic("world", WAITING.log), 0)


def row(offset: int, hours: float, source: int | None = None) -> Row:
    """One event of one entity."""
    record = ViewRecord(START_MS + int(hours * HOUR_MS), START_MS, (2, offset if source is None else source), {"x": 1})
    return Row(offset, b"north", encode(record), START_MS + 5)


ROWS = [
    row(0, 0),
    Row(1, b"north", b'{"time": "soon"}', START_MS + 7),
    row(2, -7),
    row(3, -1),
    row(4, -8, source=0),
    Row(5, None, b"", START_MS + 9),
]


class Watched(Shelf):
    """A store that notes how many letters were kept when a batch was applied; the first `lost` replies get lost."""

    def __init__(self, letters: KeptLetters) -> None:
        super().__init__()
        self.letters = letters
        self.noted: list[int] = []

    async def apply(
        self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
    ) -> bool:
        """Writes and notes."""
        self.noted.append(len(self.letters.kept))
        return await super().apply(log, partition, expected, fence, values)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before asking again."""
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0)


async def _placed(store: Shelf, letters: KeptLetters) -> tuple[Worker, Chain]:
    worker = Worker(PROJECT, store, 1 << 20, letters, past_of({TOPIC: ROWS}))

    async def held(_: object) -> dict[TP, range]:
        return {TOPIC: range(len(ROWS))}

    return worker, Chain((await worker.positions([TOPIC], held))[TOPIC])


async def _handle(store: Shelf, letters: KeptLetters, *, break_chain: bool = False) -> None:
    worker, chain = await _placed(store, letters)
    chain.broken = False
    work = asyncio.ensure_future(worker.handle(TOPIC, Slice(chain, chain.next, ROWS[chain.next :])))
    if break_chain:
        await asyncio.sleep(0)
        while letters.away == 10**9:
            await asyncio.sleep(0)
        assert worker.held_up is not None
        chain.broken = True
    await work
    assert worker.held_up is None


def test_letters_come_before_the_batch() -> None:
    """Poison and the too late are kept first, each with reason, place, origin and value; what was sent twice is no letter."""
    letters = KeptLetters(away=2)
    store = Watched(letters)
    asyncio.run(_handle(store, letters))
    assert store.noted == [3]
    poison, late, keyless = letters.kept
    assert [(letter.reason, letter.source, letter.view) for letter in letters.kept] == [
        ("poison", (TOPIC.topic, 0, 1), "waiting"), ("late", (TOPIC.topic, 0, 2), "waiting"), ("poison", (TOPIC.topic, 0, 5), "waiting"),
    ]  # fmt: skip
    assert [letter.origin for letter in letters.kept] == [None, ("happened", 2, 2), None]
    assert [letter.known for letter in letters.kept] == [START_MS + 7, START_MS, START_MS + 9]
    assert [letter.key for letter in letters.kept] == ["north", "north", None]
    assert [base64.b64decode(letter.value) for letter in letters.kept] == [ROWS[i].value for i in (1, 2, 5)]
    assert "Expected `int`, got `str` - at `$.time`" in poison.detail
    assert "lies 25200000 ms before the entity's newest event, view 'waiting' reaches back 390m" in late.detail
    assert keyless.detail == "the record has no key"
    assert store.counters(WAITING)[1:] == (1, 1, 2)


def test_a_worker_that_lost_its_partition_stops_insisting() -> None:
    """While Kafka is away nothing is applied; when the chain breaks, the slice is given up, and whoever folds it next sends the letters."""
    letters = KeptLetters(away=10**9)
    store = Watched(letters)
    asyncio.run(_handle(store, letters, break_chain=True))
    assert (letters.kept, store.noted) == ([], [])
    letters.away = 0
    asyncio.run(_handle(store, letters))
    assert (len(letters.kept), store.noted) == (3, [3])


def test_what_is_held_up_is_told_as_long_as_it_is() -> None:
    """Of batches that wait side by side each has its reason; one that goes on says nothing of the others."""

    async def waiting() -> None:
        worker, _ = await _placed(Watched(KeptLetters()), KeptLetters())
        away = [True, True]

        async def ask(i: int) -> int:
            if away[i]:
                raise StoreUnavailable(f"away {i}")
            return i

        asked = [asyncio.ensure_future(worker._insist(Chain(0), partial(ask, i))) for i in range(2)]
        for i, reason in enumerate(("away 0", "away 1")):
            while worker.held_up is None or reason not in worker.held_up:
                await asyncio.sleep(0)
            away[i] = False
            assert await asked[i] == i
        assert worker.held_up is None

    asyncio.run(waiting())


def test_a_batch_folded_again_sends_the_same_letters() -> None:
    """After a crash between letters and batch, or a store that fell back, the letters are sent again, equal in every field."""
    letters = KeptLetters()
    for _ in range(2):
        asyncio.run(_handle(Watched(letters), letters))
    assert letters.kept[:3] == letters.kept[3:]


def test_partitions_that_are_given_up_are_forgotten() -> None:
    """Their entities and ids take no memory any more; a slice that is being applied ends as the store decides, and who comes next goes on from there."""

    async def given_up() -> None:
        letters = KeptLetters()
        worker, chain = await _placed(store := Watched(letters), letters)
        held = ref(worker._partitions[TOPIC])
        assert worker.next == {TOPIC: 0}
        letters.away = 10**9
        work = asyncio.ensure_future(worker.handle(TOPIC, Slice(chain, 0, ROWS)))
        while letters.away == 10**9:
            await asyncio.sleep(0)
        worker.give_up()
        assert worker.next == {}
        assert held() is not None  # the slice has it
        letters.away = 0
        await work
        gc.collect()
        assert held() is None
        assert await worker.displaced([TOPIC]) == set()
        assert store.counters(WAITING)[1:] == (1, 1, 2)

        async def log(_: object) -> dict[TP, range]:
            return {TOPIC: range(len(ROWS))}

        assert await worker.positions([TOPIC], log) == {TOPIC: len(ROWS) - 1}
        assert worker.next == {TOPIC: len(ROWS)}

    asyncio.run(given_up())


def test_lateness_is_counted() -> None:
    """The histogram has one observation for each event that came late, corrected or refused, and none for the others."""

    def observed(part: str) -> float:
        return REGISTRY.get_sample_value(f"tidemill_features_lateness_seconds_{part}", {"view": "waiting"}) or 0.0

    before = observed("count"), observed("sum")
    letters = KeptLetters()
    asyncio.run(_handle(Watched(letters), letters))
    assert (observed("count") - before[0], observed("sum") - before[1]) == (2, 8 * 3600)
