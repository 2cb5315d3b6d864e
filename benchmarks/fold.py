"""What a worker does with a slice besides talking to servers: decode, take apart, fold, pack and keep. Needs no server.

    python -m benchmarks.fold

The view of the feature benchmark, for so many keys of one partition, all of them in the store and in the worker's memory, or none in memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from benchmarks.features import MINUTE_MS, VIEW, Source
from benchmarks.figures import Figure

from tidemill.clock import now_ms
from tidemill.kernel.fold import entry_decoder
from tidemill.kernel.view import ViewKernel
from tidemill_features.delivery import SLICE_RECORDS
from tidemill_features.partition import Partition

ALL_IN_MEMORY, ROUND_SLICES = 1 << 40, 5


class Row(NamedTuple):
    """What a partition needs of a Kafka record."""

    offset: int
    key: bytes | None
    value: bytes | None


def rows_of(keys: int, events: int, *, ids: bool) -> list[Row]:
    """So many records of one partition, with an id of their own or without."""
    (drawn,) = Source(keys, partitions=1).wave(events, now_ms() - MINUTE_MS, MINUTE_MS).values()
    return [Row(i, key, b'%s,"id":"payment-%d"}' % ((value or b"")[:-1], i) if ids else value) for i, (key, value, _) in enumerate(drawn)]


def slice_seconds(partition: Partition, start: int, rows: Sequence[Row], store: dict[bytes, bytes], cache_bytes: int) -> float:
    """CPU seconds of one slice, the store's own work left out."""
    began = time.process_time()
    entries = partition.accept(start, rows)
    missing = partition.missing(entries)
    asked = time.process_time()
    found = {entity: store[entity] for entity in missing if entity in store}
    answered = time.process_time()
    partition.admit(partition.stored, found)
    batch = partition.advance(entries)
    written = time.process_time()
    store |= {entity: value for entity, value in batch.values.items() if isinstance(value, bytes)}  # all of them are short
    kept = time.process_time()
    partition.applied(batch, cache_bytes)
    return asked - began + written - answered + time.process_time() - kept


def speed(keys: int, events: int, cache_bytes: int, dedupe: int | str | None = None) -> float:
    """Events per CPU second once every key is in the store: the median of rounds of some slices. `dedupe`: of events with ids."""
    first, view = 3 * keys // SLICE_RECORDS * SLICE_RECORDS, VIEW if dedupe is None else replace(VIEW, dedupe=dedupe)
    rows, partition = rows_of(keys, first + events, ids=dedupe is not None), Partition(ViewKernel(view), entry_decoder(view), 0, None)
    store = dict[bytes, bytes]()
    gc.freeze()
    slices = [
        slice_seconds(partition, start, rows[start : start + SLICE_RECORDS], store, cache_bytes)
        for start in range(0, len(rows), SLICE_RECORDS)
    ]
    measured = slices[first // SLICE_RECORDS :]
    rounds = sorted(sum(measured[i : i + ROUND_SLICES]) for i in range(0, len(measured) - ROUND_SLICES + 1, ROUND_SLICES))
    gc.unfreeze()
    return ROUND_SLICES * SLICE_RECORDS / rounds[len(rounds) // 2]


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """By number of keys, and with none of them in memory."""
    events = 30_000 if quick else 150_000
    few = speed(250, events, ALL_IN_MEMORY)
    yield Figure("fold alone, 250 keys", few, "events per CPU second", {})
    for keys in (2_500, 25_000) if quick else (2_500, 25_000, 250_000):
        beside = {"250 keys": few, "none in memory": speed(keys, events, 0)}
        yield Figure(f"fold alone, {keys:,} keys", speed(keys, events, ALL_IN_MEMORY), "events per CPU second", beside)
    by_number = {f"dedupe {n}": speed(2_500, events, ALL_IN_MEMORY, n) for n in (0, 8)}
    yield Figure("fold alone, 2,500 keys, ids", speed(2_500, events, ALL_IN_MEMORY, "30m"), "events per CPU second", by_number)


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
