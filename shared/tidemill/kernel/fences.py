"""The fence: the next Kafka offset that a store expects from one partition of a view topic, and the proof of the record before it.

It is stored beside the entities of the partition. Every write compares it whole, byte by byte.
"""

from __future__ import annotations

import msgspec

from tidemill.records import Natural


class Fence(msgspec.Struct, frozen=True):
    """All records below `next` are applied, nothing above.

    `definition`: fingerprint of the view's definition; `partitions`: partition count of the view topic; it decides where an entity lives.
    `proof`: CRC-32 of key and value of the record before `next`; it shows when a topic was truncated or created again.
    `sources`: last offset seen from each partition of the application's topic; a record not above it was sent twice.
    Counters of skipped records: `duplicates` by their publisher, `resent` by ingestion, `late` (too late), `poison` (not decodable).
    `until`: while `next` is below it, the partition is being rebuilt: its values are older than those served before (0: no rebuild).
    `builder`: the rebuild that writes the partition from the offline store now; no worker touches the partition ("": no rebuild does).
    `built`: the rebuild that wrote the partition last; so no worker takes it for the partition that it knew ("": folded from its topic).
    `since`: the log lacks all events routed before this moment, in ms, because the view was declared then (unset: it has everything).
    `turns`: the parts of the log's time in which ids are remembered (see kernel/recent.py; unset: by their number only).
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
    turns: list[tuple[Natural, Natural]] | msgspec.UnsetType = msgspec.UNSET

    @property
    def since_ms(self) -> int:
        """`since`, 0 where it is unset."""
        return 0 if self.since is msgspec.UNSET else self.since

    def encode(self) -> bytes:
        """The bytes for the store. Equal fences give equal bytes."""
        return _ENCODER.encode(msgspec.structs.replace(self, sources=dict(sorted(self.sources.items()))))

    @classmethod
    def decode(cls, data: bytes) -> Fence:
        """The fence of some bytes. Raises msgspec.DecodeError for bytes that are no fence."""
        return _DECODER.decode(data)


class FencePosition(msgspec.Struct, frozen=True):
    """Only the position, which a reader puts into the stamp of its answer."""

    next: Natural


class FenceSources(msgspec.Struct, frozen=True):
    """Only the sources: the last offset applied from each partition of the application's topic."""

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
