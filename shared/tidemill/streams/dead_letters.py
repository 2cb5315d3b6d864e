"""Dead letters: the record that is written for a message that a service refuses.

Ingestion refuses a whole event, or refuses it for one view when its time is further ahead than the view accepts. Feature computation
refuses a record of a view that cannot be decoded or is too late. Source and view identify a letter: after a crash a service may write it
again, and readers count it once.
"""

from __future__ import annotations

import base64
from typing import Protocol

from tidemill.declarations import FeatureView
from tidemill.durations import format_ms
from tidemill.kernel.fold import RefusedEntry, typed_decoder
from tidemill.limits import CUT_BYTES, KEY_BYTES
from tidemill.records import DECODE_ERRORS, DeadLetterRecord, KafkaRecord, Position, encode
from tidemill.timestamps import LAST_MS

_DETAIL_CHARACTERS = 500


class SourceRecord(KafkaRecord, Protocol):
    """A record as Kafka's client gives it."""

    @property
    def timestamp(self) -> int:
        """When it was produced, epoch ms."""


def dead_letter(
    reason: str, detail: str, source: Position, known_ms: int, key: bytes | None, value: bytes | None,
    view: str | None = None, origin: Position | None = None,
) -> DeadLetterRecord:  # fmt: skip
    """A dead letter; its key and value are cut to their limits."""
    value = value or b""
    return DeadLetterRecord(
        reason=reason,
        detail=detail[:_DETAIL_CHARACTERS],
        source=source,
        known=min(max(known_ms, 0), LAST_MS),
        size=len(value),
        value=base64.b64encode(value[:CUT_BYTES]).decode(),
        key=None if key is None else key[:KEY_BYTES].decode(errors="replace"),
        view=view,
        origin=origin,
    )


def letter_of_refused(
    view: FeatureView, topic: str, partition: int, refused: RefusedEntry, horizon_ms: int, raw: SourceRecord
) -> DeadLetterRecord:
    """The dead letter of a record that a view's fold refused. `raw`: the same record as it is on the topic."""
    source, record = (topic, partition, raw.offset), refused.entry.record
    if record is None:
        return dead_letter(refused.reason, _why_poison(view, raw.key, raw.value), source, raw.timestamp, raw.key, raw.value, view.name)
    late_by_ms = refused.newest_ms - record.time
    detail = f"its time {record.time} lies {late_by_ms} ms before the entity's newest event, view {view.name!r} reaches back {format_ms(horizon_ms)}"
    origin = (view.source.topic, *record.source)
    return dead_letter(refused.reason, detail, source, record.known, raw.key, raw.value, view.name, origin)


def _why_poison(view: FeatureView, key: bytes | None, value: bytes | None) -> str:
    if key is None:
        return "the record has no key"
    try:
        key.decode()
        typed_decoder(view).decode(value or b"")
    except DECODE_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"{value!r} can be decoded")


def letter_record(letter: DeadLetterRecord, key: bytes | None) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of a letter for its topic. `key`: that of the refused message, cut to its limit."""
    return None if key is None else key[:KEY_BYTES], encode(letter), []
