"""The fence: the next Kafka offset a store expects from one partition of a view topic, and what proves it.

It is stored beside the entities it vouches for, and compared whole, byte by byte, on every write.
"""

from __future__ import annotations

import msgspec

from tidemill.records import Natural


class Fence(msgspec.Struct, frozen=True):
    """All records below `next` are applied, nothing above.

    `definition`: fingerprint of the view's definition; `partitions`: of the view topic, since an entity's place depends on it.
    `proof`: CRC-32 of key and value of the record before `next`, so that a truncated or re-created topic is noticed.
    `sources`: last offset seen of each partition of the application's topic; a record not above it was sent twice.
    The counters say what was skipped, and why: a publisher's duplicate, a record sent twice, too late, not decodable.
    `until`: while `next` lies below it the partition is being rebuilt, and its values are older than what was served before (0: it is not).
    `builder`: who is writing the partition from the offline store, so that no worker touches it ("": nobody).
    `since`: the log lacks what was routed before this moment, in ms, since the view was declared then (unset: it has everything).
    `built`: which of them wrote it last ("": it was folded from its topic), so that no worker takes a rebuilt partition for the one it knew.
    """

    next: Natural
    definition: str
    partitions: Natural
    proof: Natural = 0
    sources: dict[Natural, Natural] = {}
    duplicates: Natural = 0
    resent: Natural = 0
    late: Natural = 0
    poison: Natural = 0
    until: Natural = 0
    builder: str = ""
    built: str = ""
    since: Natural | msgspec.UnsetType = msgspec.UNSET

    @property
    def since_ms(self) -> int:
        """`since`, 0 where it is unset."""
        return 0 if self.since is msgspec.UNSET else self.since

    def encode(self) -> bytes:
        """The bytes kept in the store; equal fences give equal bytes."""
        return _ENCODER.encode(msgspec.structs.replace(self, sources=dict(sorted(self.sources.items()))))

    @classmethod
    def decode(cls, data: bytes) -> Fence:
        """Raises msgspec.DecodeError for anything else than `encode` gave."""
        return _DECODER.decode(data)


class FencePosition(msgspec.Struct, frozen=True):
    """Just the position: what a reader stamps on its answer."""

    next: Natural


class FenceSources(msgspec.Struct, frozen=True):
    """Just the sources: what of the application's topic is applied."""

    sources: dict[Natural, Natural] = {}


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Fence)
_POSITION = msgspec.json.Decoder(FencePosition)
_SOURCES = msgspec.json.Decoder(FenceSources)


def position(data: bytes | None) -> int:
    """The next offset of an encoded fence; 0 where the store has none."""
    return 0 if data is None else _POSITION.decode(data).next


def sources(data: bytes | None) -> dict[int, int]:
    """The sources of an encoded fence; none where the store has no fence."""
    return {} if data is None else _SOURCES.decode(data).sources
