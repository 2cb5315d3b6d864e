"""What a view makes of a list of records, as plain data: what is pinned in `golden/<view>.json` and compared with it.

A file holds the records of one partition (key and value as they stand in the topic) and what came of them: the text and the fingerprint of
the view's definition, what was written after each batch, and at some points on the way every packed value, what is read from it, and the fence.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidemill import FeatureView
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.view import Reading, ViewKernel

FOLDER = Path(__file__).parent / "golden"
BATCH = 3
CHECKPOINTS = 4
MINUTE_MS = 60_000
READ_OFFSETS_MS = [
    -24 * 60 * MINUTE_MS, -61 * MINUTE_MS, -7 * MINUTE_MS, -1, 0, 1, 7 * MINUTE_MS, 59 * MINUTE_MS, 5 * 60 * MINUTE_MS, 10**10,
]  # fmt: skip
"""Times to read at, relative to the entity's newest event."""

Record = Sequence[str | None]


def text_of(data: bytes) -> str:
    """Bytes as they are pinned."""
    return base64.b64encode(data).decode()


def outcome(view: FeatureView, records: Sequence[Record]) -> dict[str, Any]:
    """All that is pinned of a view, computed anew from its records."""
    kernel = ViewKernel(view)
    fold, states, stored, decode = PartitionFold.start(kernel), dict[bytes, Any](), dict[bytes, bytes](), entry_decoder(view)
    writes, points = [], []
    batches = range(0, len(records), BATCH)
    shown = {batches[-1 - i * len(batches) // CHECKPOINTS] for i in range(CHECKPOINTS)}
    for start in batches:
        batch = records[start : start + BATCH]
        entries = [
            decode(start + i, None if key is None else key.encode(), None if value is None else value.encode())
            for i, (key, value) in enumerate(batch)
        ]
        for key in sorted(fold.advance(entries, states).touched):
            written = kernel.write(states[key])
            stored[key] = written if isinstance(written, bytes) else patched(stored[key], *written)
            writes.append([start, key.decode(), *write_of(written)])
        if start in shown:
            points.append(point(kernel, fold, start + len(batch), stored))
    return {
        "definition_text": kernel.definition_text,
        "definition": kernel.definition,
        "records": [list(record) for record in records],
        "writes": writes,
        "points": points,
    }


def write_of(written: Any) -> list[Any]:
    """What was written, in short: the length of the value, offset and length of each piece (none: the value was written whole), and a
    checksum of all the bytes."""
    pieces = [] if isinstance(written, bytes) else written.pieces
    data = written if isinstance(written, bytes) else b"".join(piece for _, piece in pieces)
    length = len(written) if isinstance(written, bytes) else written.length
    return [length, [[offset, len(piece)] for offset, piece in pieces], hashlib.sha256(data).hexdigest()[:16]]


def patched(value: bytes, length: int, pieces: Sequence[tuple[int, bytes]]) -> bytes:
    """A stored value after its pieces were written, as the store does it."""
    assert len(value) == length
    changed = bytearray(value)
    for offset, piece in pieces:
        changed[offset : offset + len(piece)] = piece
    return bytes(changed)


def point(kernel: ViewKernel, fold: PartitionFold, end: int, stored: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The store after the records below `end`."""
    entities = {key.decode(): {"value": text_of(value), "readings": readings(kernel, value)} for key, value in sorted(stored.items())}
    return {"end": end, "fence": text_of(fold.fence.encode()), "entities": entities}


def readings(kernel: ViewKernel, value: bytes) -> list[list[Any]]:
    """What is read from a stored value: time, values, time of the newest event seen, and a digit for each value: whether it is complete."""
    newest = kernel.decode(value).newest
    return [reading_of(newest + offset, kernel.read(value, newest + offset)) for offset in READ_OFFSETS_MS]


def reading_of(time_ms: int, reading: Reading) -> list[Any]:
    """A reading as plain data; NaN is null."""
    values = [None if math.isnan(value) else value for value in reading.values]
    return [time_ms, values, reading.newest_ms, "".join(str(int(whole)) for whole in reading.complete)]


def pinned(name: str) -> dict[str, Any]:
    """What a file holds."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def dumped(found: Mapping[str, Any]) -> str:
    """The text of a file: one line for each record and each write, and for each point's fence and entities."""
    parts = []
    for name, value in found.items():
        lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value] if isinstance(value, list) else []
        text = "[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value, ensure_ascii=False)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
