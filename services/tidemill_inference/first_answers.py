"""One answer per id: a client that repeats a request with the same id gets the first answer again, even if the features have changed.

The steps of a prediction whose id the client gave:

1. Compute the prediction and encode its record.
2. `SET NX GET` in Redis under the id, one command: it stores this record if the id is new, else it returns the first record.
3. With a first record: if it answers the same question, take its bytes in the place of ours; else refuse the request (IdReused).
4. Append the record to the prediction log and wait for the acknowledgement.
5. Answer.

So all records of an id are the same bytes, from every process and after every crash:

    killed before 2      no trace is left; the repetition is a new request
    killed before 4      the repetition finds the first record at 2, logs it and answers it
    killed before 5      the repetition logs the same bytes again; readers count an id once

Redis may lose its newest writes (an older copy, or a replica that lags), and these are the ids that clients repeat. So each process also
remembers the records that it stored itself, and at step 2 stores the remembered one again.
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
from tidemill_inference.messages import FeatureShown, Instance, PredictionAnswer

KEEP_SECONDS = 1800
"""How long an id is known: less than the hour for which prediction logging recognises it, so a repetition never counts twice."""

REMEMBERED_BYTES = 32 << 20
"""How much a process remembers itself: the newest ten thousand predictions or so, more than are lost and repeated at once."""


class Made(NamedTuple):
    """A prediction to log (`value`: its encoded record) and to answer. `repeated`: an earlier request with the same id made it."""

    instance: Instance
    record: PredictionRecord
    value: bytes
    output_name: str
    features: dict[str, FeatureShown] | None
    degraded: dict[str, str] = {}
    ignored: list[str] = []
    repeated: bool = False

    @property
    def prediction(self) -> PredictionAnswer:
        """The prediction for the answer."""
        record = self.record
        return PredictionAnswer(
            record.id,
            record.model,
            record.version,
            record.time,
            self.output_name,
            record.output,
            self.features,
            self.degraded,
            self.ignored,
            record.probabilities,
        )


class _FirstAnswer(msgspec.Struct, array_like=True):
    """The value in Redis for an id: the record as it is logged, the name of the output, the features if the request asked for them, and what
    the answer says of its inputs."""

    record: msgspec.Raw
    output_name: str
    features: dict[str, FeatureShown] | None
    degraded: dict[str, str] = {}
    ignored: list[str] = []


class _Remembered(NamedTuple):
    """The value that this process stored for an id, and until when (monotonic seconds) the id is known."""

    kept: bytes
    until: float


_encode = msgspec.json.Encoder().encode
_decode_first_answer = msgspec.json.Decoder(_FirstAnswer).decode
_decode_record = decoder(PredictionRecord).decode


class FirstAnswers:
    """The first predictions of a project, by id."""

    def __init__(self, link: RedisClient, project: str) -> None:
        self._link = link
        self._prefix = f"{project}.answer:".encode()
        self._remembered: TLRUCache[str, _Remembered] = TLRUCache(
            REMEMBERED_BYTES, lambda _id, item, _now: item.until, timer=monotonic, getsizeof=lambda item: len(item.kept)
        )

    async def settle(self, made: Sequence[Made]) -> list[Made | IdReused]:
        """Steps 2 and 3 for several predictions: the ones to log and answer, in one round trip. Those with generated ids stay unchanged.

        Raises StoreUnavailable, StoreError and CorruptState; then none of them may be logged.
        """
        own = [item for item in made if item.instance.own_id]
        known = [self._remembered.get(item.instance.id) for item in own]
        stored = await asyncio.gather(*map(self._keep, own, known)) if own else []
        for item, first, mine in zip(own, stored, known, strict=True):
            if first is not None and (mine is None or first != mine.kept):
                self._remembered.pop(item.instance.id, None)  # another process stored it, and knows until when
        found = (first or (mine and mine.kept) for first, mine in zip(stored, known, strict=True))
        return [_first(item, next(found)) if item.instance.own_id else item for item in made]

    def _keep(self, item: Made, known: _Remembered | None) -> Awaitable[bytes | None]:
        """Step 2: stores the remembered value of the id, else this prediction, unless Redis has one. Gives what Redis had, or None."""
        if known is None:
            kept = _encode(_FirstAnswer(msgspec.Raw(item.value), item.output_name, item.features, item.degraded, item.ignored))
            known = _Remembered(kept, monotonic() + KEEP_SECONDS)
            with suppress(ValueError):  # larger than REMEMBERED_BYTES
                self._remembered[item.instance.id] = known
        left_ms = max(1, int(1000 * (known.until - monotonic())) + 1)  # the id's time may end right now, and Redis takes no time before now
        return self._link.call(b"SET", self._prefix + item.instance.id.encode(), known.kept, b"NX", b"GET", b"PX", left_ms)


def _first(item: Made, found: bytes | None) -> Made | IdReused:
    """Step 3: the first prediction of this id instead of this one, if there is one and it answers the same question."""
    if found is None:
        return item
    try:
        kept = _decode_first_answer(found)
        first = _decode_record(kept.record)
    except DECODE_ERRORS as error:
        raise CorruptState(f"the first answer for id {item.instance.id!r} cannot be read: {error}", mend="choose another id") from None
    other = _differing(first, item.record, item.instance)
    if other:
        return IdReused(item.instance.id, other)
    return Made(item.instance, first, bytes(kept.record), kept.output_name, kept.features, kept.degraded, kept.ignored, repeated=True)


def _differing(first: PredictionRecord, now: PredictionRecord, asked: Instance) -> list[str]:
    """The fields in which a request differs from the first one. The time counts only if the client gave it."""
    given = sorted(name for name in first.entities.keys() & now.entities.keys() if first.entities[name] != now.entities[name])
    given += sorted(name for name in first.contents.keys() | now.contents.keys() if first.contents.get(name) != now.contents.get(name))
    same = {
        "model": first.model == now.model,
        "subject": first.subject == now.subject,
        "time": not asked.own_time or first.time == now.time,
    }
    return [*(name for name, holds in same.items() if not holds), *given]
