"""Adversarial streams, and the way they take: ingestion's routing, a worker with a store, offline rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import structlog
from faust.types import TP
from hypothesis import strategies as st
from tests.event_time.oracle import Told
from tests.features.letters import KeptLetters
from tests.kernel.streams import FEW
from tests.oracles import aggregation_kinds

from tidemill import Event, FeatureView, age, count, distinct, first, last, last_k, max, mean, min, std, sum
from tidemill.declarations.project import Project
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.online.writer import OnlineWriter
from tidemill.records import DeadLetterRecord, KafkaRecord, decoder
from tidemill.routing.router import Router
from tidemill.streams.topics import dead_letters_topic, view_topic
from tidemill_features import worker as worker_module
from tidemill_features.delivery import Chain, Slice
from tidemill_features.recall import ReadBack
from tidemill_features.worker import Worker

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
HAPPENED = Event(
    "happened", {"who": str, "at": int, "id": str | None, "x": int | None, "word": str | None}, time="at", id="id", future="3h"
)
FEATURES = [count(), count("x", name="known"), sum("x"), mean("x"), min("x"), max("x"), std("x")]
NEWEST = [last("x", windows=["20m", "2h"]), age(windows=["20m", "2h"]), age("x", windows=["2h"], name="age_x")]
KEPT = [first("x", windows=["20m", "2h"]), last_k("x", 2, windows=["20m", "5h"]), distinct("x"), distinct("id", windows=["2h"])]
NAMED = {type(feature) for feature in (*FEATURES, *NEWEST, *KEPT)}
OTHERS = [
    kind(column="x > 1" if kind.needs_truth else "word" if kind.gives is str else "x", name=kind.__name__.lower(), **FEW.get(kind, {}))
    for kind in aggregation_kinds()
    if kind not in NAMED
]
TILES: dict[str, Any] = {"windows": ["20m", "2h", "5h"], "tile": "1m", "tiles": {"20m": "5m", "2h": "5m", "5h": "20m"}}
WAITING = FeatureView(
    "waiting", HAPPENED, "who", [*FEATURES, *NEWEST, *KEPT, *OTHERS], ahead="90m", ttl="6h", dedupe=2, partitions=1, **TILES
)
AT_ONCE = FeatureView(
    "at_once", HAPPENED, "who", [*FEATURES, last("x"), age(), sum("x", windows=["lifetime"], name="all")], dedupe=2, partitions=2, **TILES
)
LATELY = FeatureView("lately", HAPPENED, "who", [count(), sum("x"), last("x")], dedupe="2h", partitions=1, **TILES)
LATELY.__dict__["last_ids"] = 1  # as few as a short stream outlives
VIEWS = (WAITING, AT_ONCE, LATELY)
PROJECT = Project("world", {"happened": HAPPENED}, {view.name: view for view in VIEWS})
ALONE = {view_topic("world", view.log): Project("world", {"happened": HAPPENED}, {view.name: view}) for view in VIEWS}
"""By topic, the project with this view alone: a worker compiles the folds of all its views, each time it begins."""
POISON = [None, b"", b"{", b"\xff", b'{"time":1}', b"null"]


class Row(NamedTuple):
    """A record as it lies on a view's topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Sent(NamedTuple):
    """One thing that happens: an event is published, or ingestion routes an earlier one again, or noise gets on a view's topic."""

    kind: str
    told: Told
    source: tuple[int, int]
    noise: bytes | None


@dataclass
class Logs:
    """Everything that ingestion made of a stream: `rows` of the views' topics, and its dead letters."""

    rows: dict[TP, list[Row]] = field(default_factory=dict)
    letters: list[DeadLetterRecord] = field(default_factory=list)


def routed(stream: Sequence[Sent]) -> Logs:
    """The logs that ingestion's own routing makes of a stream."""
    router, logs = Router(PROJECT), Logs({TP(view_topic("world", v.log), p): [] for v in VIEWS for p in range(v.partitions)})
    letters = decoder(DeadLetterRecord)

    def append(tp: TP, key: bytes | None, value: bytes | None, known_ms: int) -> None:
        logs.rows[tp].append(Row(len(logs.rows[tp]), key, value, known_ms))

    for kind, told, (partition, offset), noise in stream:
        if kind == "noise":
            for view in VIEWS:
                append(
                    TP(view_topic("world", view.log), partition_of(told.entity.encode(), view.partitions)),
                    told.entity.encode(),
                    noise,
                    told.known_ms,
                )
            continue
        data = json.dumps({"who": told.entity, "at": told.time_ms, "id": told.id, "x": told.x, "word": told.word}).encode()
        headers = [("ce_recordedtime", str(told.known_ms).encode())]
        for topic, number, key, value in router.route("happened", partition, offset, told.known_ms, None, data, headers):
            if topic == dead_letters_topic("world"):
                logs.letters.append(letters.decode(value))
            else:
                append(TP(topic, number), key, value, told.known_ms)
    return logs


class Shelf(OnlineWriter):
    """A store in memory with the rules of the real one: whole values and pieces, all or nothing, only on top of the expected fence."""

    def __init__(self) -> None:
        self.fence: dict[tuple[str, int], bytes] = {}
        self.values: dict[tuple[str, int], dict[bytes, bytes]] = {}

    async def eviction_policy(self) -> str:
        """As it must be."""
        return "noeviction"

    async def fences(self, partitions: Sequence[tuple[LogName, int]]) -> list[bytes | None]:
        """The fences."""
        return [self.fence.get(place) for place in partitions]

    async def load(self, log: LogName, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, dict[bytes, bytes]]:
        """Fence and entities."""
        held = self.values[log, partition]
        return self.fence[log, partition], {entity: held[entity] for entity in entities if entity in held}

    async def apply(
        self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
    ) -> bool:
        """Writes when the fence is as expected."""
        if self.fence[log, partition] != expected:
            return False
        held = self.values[log, partition]
        for entity, value in values.items():
            held[entity] = value if isinstance(value, bytes) else _changed(held[entity], value)
        self.fence[log, partition] = fence
        return True

    async def begin(self, log: LogName, partition: int, fence: bytes) -> None:
        """The first fence."""
        self.fence[log, partition], self.values[log, partition] = fence, {}

    def counters(self, view: FeatureView) -> tuple[int, int, int, int]:
        """Duplicates, resent, late and poison of a view, as its fences count them."""
        fences = [Fence.decode(fence) for (log, _), fence in self.fence.items() if log == view.log]
        return tuple(map(_sum, zip(*((f.duplicates, f.resent, f.late, f.poison) for f in fences), strict=True)))  # type: ignore[return-value]


def _sum(numbers: Sequence[int]) -> int:
    total = 0
    for number in numbers:
        total += number
    return total


def _changed(value: bytes, patch: Patch) -> bytes:
    assert len(value) == patch.length
    whole = bytearray(value)
    for offset, piece in patch.pieces:
        whole[offset : offset + len(piece)] = piece
    return bytes(whole)


class Cut(NamedTuple):
    """One step of a worker's life: how many records the next slice has, whether the worker starts anew before it, how often Kafka is away."""

    records: int
    anew: bool
    away: int


def fold(logs: Logs, cuts: Sequence[Cut], cache_bytes: int) -> tuple[Shelf, KeptLetters]:
    """What a worker makes of the logs, cut into slices; after the cuts the rest comes at once."""
    shelf, letters = Shelf(), KeptLetters()
    with pytest.MonkeyPatch.context() as patch:  # nobody waits, and nobody reads the logs
        patch.setattr(worker_module, "log", structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(50)))
        patch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0)
        asyncio.run(_fold(logs, cuts, shelf, letters, cache_bytes))
    return shelf, letters


def past_of(logs: Mapping[TP, Sequence[KafkaRecord]]) -> ReadBack:
    """What logs that begin at offset 0 had before, in small pieces."""

    async def past(spans: Mapping[TP, range]) -> AsyncIterator[tuple[TP, Sequence[KafkaRecord]]]:
        for tp, span in spans.items():
            for i in span[::3]:
                yield tp, logs[tp][i : span.stop][:3]

    return past


async def _fold(logs: Logs, cuts: Sequence[Cut], shelf: Shelf, letters: KeptLetters, cache_bytes: int) -> None:
    for tp, rows in logs.rows.items():
        worker = Worker(ALONE[tp.topic], shelf, cache_bytes, letters, past_of(logs.rows))

        async def held(_: object, tp: TP = tp, end: int = len(rows)) -> dict[TP, range]:
            return {tp: range(end)}

        chain = Chain((await worker.positions([tp], held))[tp])
        for cut in [*cuts, Cut(len(rows), True, 0)]:
            if cut.anew:
                worker = Worker(ALONE[tp.topic], shelf, cache_bytes, letters, past_of(logs.rows))
                chain = Chain((await worker.positions([tp], held))[tp])
            piece = rows[chain.next : chain.next + cut.records]
            if piece:
                letters.away = cut.away
                start, chain.next = chain.next, chain.next + len(piece)
                await worker.handle(tp, Slice(chain, start, piece))
            assert not chain.broken
            assert not worker.refused


_MINUTES = st.one_of(
    st.integers(-30, 30), st.integers(-300, 200), st.integers(-900, 240), st.sampled_from([-390, -391, -300, 90, 91, 180, 181])
)
_EDGES_MS = st.sampled_from([0, 0, 1, -1, 17_331])
_KINDS = st.sampled_from(["new"] * 8 + ["resent", "noise"])
_CUTS = st.builds(Cut, st.integers(1, 8), st.booleans(), st.sampled_from([0, 0, 1]))


@st.composite
def streams(draw: st.DrawFn, *, in_order: bool, min_size: int = 1) -> list[Sent]:
    """A stream of two entities from two partitions: late, too late, waiting, too far ahead, published twice, null, routed again, and noise.

    `in_order`: no event becomes known before one that was routed earlier, and events of one moment come from one partition, since nothing
    says which of two partitions was first.
    """
    steps = st.integers(0, 90) if in_order else st.integers(-30, 120)
    fields = st.tuples(
        _KINDS, st.sampled_from("ab"), steps, _MINUTES, _EDGES_MS, st.sampled_from([None, *"pqr"]), st.none() | st.integers(-5, 5)
    )
    known_ms, partition, offsets, stream = START_MS, 0, [0, 0], list[Sent]()
    for kind, entity, step, minutes, edge_ms, event_id, x in draw(st.lists(fields, min_size=min_size, max_size=25)):
        published = [sent for sent in stream if sent.kind == "new"]
        if kind == "resent" and published:
            again = draw(st.sampled_from(published[-4:]))
            stream.append(Sent("resent", again.told, again.source, b""))
            continue
        known_ms += step * MINUTE_MS
        drawn = draw(st.integers(0, 1))
        partition = partition if in_order and not step else drawn
        offsets[partition] += 1
        told = Told(entity, known_ms + minutes * MINUTE_MS + edge_ms, known_ms, event_id, x)
        stream.append(Sent("noise" if kind == "noise" else "new", told, (partition, offsets[partition]), draw(st.sampled_from(POISON))))
    return stream


def cuttings() -> st.SearchStrategy[list[Cut]]:
    """How a log is cut into slices, with restarts between."""
    return st.lists(_CUTS, max_size=12)
