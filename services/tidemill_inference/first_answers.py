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
import math
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from tidemill.errors import CorruptState, IdReused
from tidemill.redis.client import RedisClient
from tidemill_inference.messages import FeatureShown, Instance, Prediction

KEEP_SECONDS = 1800
"""How long an id is known: well below the hour for which prediction logging at least recognises one, so that a repetition never counts twice."""

REMEMBERED_BYTES = 32 << 20
"""What a process remembers itself, the newest first: some ten thousand predictions, more than are lost and repeated at once."""


class Made(NamedTuple):
    """A prediction to log (`value`: its encoded record) and to answer. `repeated`: it is that of an earlier request with the same id."""

    instance: Instance
    prediction: Prediction
    value: bytes
    repeated: bool = False


class _Kept(msgspec.Struct, array_like=True):
    """What Redis holds for an id: the record as it is logged, and what the answer shows beside it (features: if they were asked for)."""

    record: msgspec.Raw
    output_name: str
    features: dict[str, FeatureShown] | None


class _Record(msgspec.Struct):
    """What is needed of a PredictionRecord, with the given values as they are written."""

    model: str
    version: str
    time: int
    output: float
    subject: str | None = None
    entities: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
_decode_kept = msgspec.json.Decoder(_Kept).decode
_decode_record = msgspec.json.Decoder(_Record).decode


class FirstAnswers:
    """The predictions kept for a project, by id."""

    def __init__(self, link: RedisClient, project: str) -> None:
        self._link = link
        self._prefix = f"{project}.answer:".encode()
        self._remembered: dict[str, tuple[bytes, float]] = {}
        self._bytes = 0

    async def settle(self, made: Sequence[Made]) -> list[Made | IdReused]:
        """What is to be logged and answered in the place of each prediction. All are asked for in one round trip; generated ids cost nothing.

        Raises StoreUnavailable, StoreError and CorruptState, after which none may be logged.
        """
        own = [item for item in made if item.instance.own_id]
        known = [self._known(item.instance.id) for item in own]
        stored = await asyncio.gather(*map(self._keep, own, known)) if own else []
        for item, first, mine in zip(own, stored, known, strict=True):
            if first is not None and first != mine:
                self._forget(item.instance.id)  # another process kept it, whose it is to remember for how long
        found = (first or mine for first, mine in zip(stored, known, strict=True))
        return [_first(item, next(found)) if item.instance.own_id else item for item in made]

    def _keep(self, item: Made, known: bytes | None) -> Awaitable[bytes | None]:
        """Keeps what this process knows of the id, else this prediction; gives what was there before, if there was anything."""
        kept = known or _encode(_Kept(msgspec.Raw(item.value), item.prediction.output_name, item.prediction.features))
        until = self._remember(item.instance.id, kept)
        left_ms = int(1000 * (until - monotonic())) + 1
        return self._link.call(b"SET", self._prefix + item.instance.id.encode(), kept, b"NX", b"GET", b"PX", left_ms)

    def _known(self, name: str) -> bytes | None:
        """What this process kept for an id; an old one is forgotten."""
        kept, until = self._remembered.get(name, (b"", math.inf))
        if monotonic() >= until:
            self._forget(name)
            return None
        return kept or None

    def _forget(self, name: str) -> None:
        self._bytes -= len(self._remembered.pop(name, (b"", 0.0))[0])

    def _remember(self, name: str, kept: bytes) -> float:
        """Remembers it until KEEP_SECONDS after the id was first seen, which it returns; the oldest make way."""
        before, until = self._remembered.pop(name, (b"", monotonic() + KEEP_SECONDS))
        self._bytes += len(kept) - len(before)
        self._remembered[name] = kept, until
        while self._bytes > REMEMBERED_BYTES:
            self._forget(next(iter(self._remembered)))
        return until


def _first(item: Made, found: bytes | None) -> Made | IdReused:
    """The prediction that was kept before this one, if there was one and it answers the same question."""
    if found is None:
        return item
    try:
        kept = _decode_kept(found)
        first = _decode_record(kept.record)
    except msgspec.DecodeError as error:
        raise CorruptState(f"what is kept for id {item.instance.id!r} cannot be read: {error}", mend="choose another id") from None
    other = _differing(first, _decode_record(item.value), item.instance)
    if other:
        return IdReused(item.instance.id, other)
    prediction = Prediction(item.instance.id, first.model, first.version, first.time, kept.output_name, first.output, kept.features)
    return Made(item.instance, prediction, bytes(kept.record), repeated=True)


def _differing(first: _Record, now: _Record, asked: Instance) -> list[str]:
    """In what a request is not the one that was answered first. The time counts only when it is given: else it is that of the first request."""
    given = sorted(name for name in first.entities.keys() & now.entities.keys() if first.entities[name] != now.entities[name])
    same = {
        "model": first.model == now.model,
        "subject": first.subject == now.subject,
        "time": not asked.own_time or first.time == now.time,
    }
    return [*(name for name, holds in same.items() if not holds), *given]
