"""One answer per id: whoever repeats a request with its id is answered from the first record, whatever became of the features since.

A prediction whose id the client gave is kept in Redis between computing and logging, unless one of that id is there already: then that one is
logged and answered instead. So all records of an id are the same bytes, from whichever process and after whatever crash:

- killed before it is kept: nothing has happened;
- kept but not logged: the repetition logs and answers what was kept;
- logged but not answered: the repetition logs the same bytes again, and readers count them once.

A Redis that falls back (to an older copy, or to a replica that lags) forgets the newest, which are those that are repeated. So a process also
remembers what it kept itself, and puts it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

import msgspec
from cachetools import TLRUCache

from tidemill.errors import CorruptState, IdReused
from tidemill.records import DECODE_ERRORS, PredictionRecord, decoder
from tidemill.redis.protocol import RedisClient
from tidemill_inference.messages import FeatureShown, Instance, Prediction

KEEP_SECONDS = 1800
"""How long an id is known: well below the hour for which prediction logging at least recognises one, so that a repetition never counts twice."""

REMEMBERED_BYTES = 32 << 20
"""What a process remembers itself, the newest first: some ten thousand predictions, more than are lost and repeated at once."""


class Made(NamedTuple):
    """A prediction to log (`value`: its record, encoded) and to answer. `repeated`: it is that of an earlier request with the same id."""

    instance: Instance
    record: PredictionRecord
    value: bytes
    output_name: str
    features: dict[str, FeatureShown] | None
    repeated: bool = False

    @property
    def prediction(self) -> Prediction:
        """What is answered."""
        record = self.record
        return Prediction(record.id, record.model, record.version, record.time, self.output_name, record.output, self.features)


class _FirstAnswer(msgspec.Struct, array_like=True):
    """What Redis holds for an id: the record as it is logged, and what the answer shows beside it (features: if they were asked for)."""

    record: msgspec.Raw
    output_name: str
    features: dict[str, FeatureShown] | None


class _Remembered(NamedTuple):
    """What this process kept for an id, and until when (monotonic seconds) the id is known."""

    kept: bytes
    until: float


_encode = msgspec.json.Encoder().encode
_decode_first_answer = msgspec.json.Decoder(_FirstAnswer).decode
_decode_record = decoder(PredictionRecord).decode


class FirstAnswers:
    """The predictions kept for a project, by id."""

    def __init__(self, link: RedisClient, project: str) -> None:
        self._link = link
        self._prefix = f"{project}.answer:".encode()
        self._remembered: TLRUCache[str, _Remembered] = TLRUCache(
            REMEMBERED_BYTES, lambda _id, item, _now: item.until, timer=monotonic, getsizeof=lambda item: len(item.kept)
        )

    async def settle(self, made: Sequence[Made]) -> list[Made | IdReused]:
        """What is to be logged and answered in the place of each prediction. All are asked for in one round trip; generated ids cost nothing.

        Raises StoreUnavailable, StoreError and CorruptState, after which none may be logged.
        """
        own = [item for item in made if item.instance.own_id]
        known = [self._remembered.get(item.instance.id) for item in own]
        stored = await asyncio.gather(*map(self._keep, own, known)) if own else []
        for item, first, mine in zip(own, stored, known, strict=True):
            if first is not None and (mine is None or first != mine.kept):
                self._remembered.pop(item.instance.id, None)  # another process kept it, and knows for how long
        found = (first or (mine and mine.kept) for first, mine in zip(stored, known, strict=True))
        return [_first(item, next(found)) if item.instance.own_id else item for item in made]

    def _keep(self, item: Made, known: _Remembered | None) -> Awaitable[bytes | None]:
        """Keeps what this process knows of the id, else this prediction; gives what was there before, if there was anything."""
        if known is None:
            kept = _encode(_FirstAnswer(msgspec.Raw(item.value), item.output_name, item.features))
            known = _Remembered(kept, monotonic() + KEEP_SECONDS)
            with suppress(ValueError):  # larger than all that may be remembered
                self._remembered[item.instance.id] = known
        left_ms = int(1000 * (known.until - monotonic())) + 1
        return self._link.call(b"SET", self._prefix + item.instance.id.encode(), known.kept, b"NX", b"GET", b"PX", left_ms)


def _first(item: Made, found: bytes | None) -> Made | IdReused:
    """The prediction that was kept before this one, if there was one and it answers the same question."""
    if found is None:
        return item
    try:
        kept = _decode_first_answer(found)
        first = _decode_record(kept.record)
    except DECODE_ERRORS as error:
        raise CorruptState(f"what is kept for id {item.instance.id!r} cannot be read: {error}", mend="choose another id") from None
    other = _differing(first, item.record, item.instance)
    if other:
        return IdReused(item.instance.id, other)
    return Made(item.instance, first, bytes(kept.record), kept.output_name, kept.features, repeated=True)


def _differing(first: PredictionRecord, now: PredictionRecord, asked: Instance) -> list[str]:
    """In what a request is not the one that was answered first. The time counts only when it is given: else it is that of the first request."""
    given = sorted(name for name in first.entities.keys() & now.entities.keys() if first.entities[name] != now.entities[name])
    same = {
        "model": first.model == now.model,
        "subject": first.subject == now.subject,
        "time": not asked.own_time or first.time == now.time,
    }
    return [*(name for name, holds in same.items() if not holds), *given]
