"""What the checker's process and its starter say to each other."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Configuration(msgspec.Struct, frozen=True):
    """Where everything is."""

    kafka: str
    redis_url: str
    serving: str
    offline: str
    project: str
    seed: int
    samples_per_second: float = 20


class Rewind(NamedTuple):
    """A fence that went back, when it was seen (monotonic seconds). `place`: log and partition; `found` None: it was gone."""

    at: float
    place: str
    before: int
    found: int | None


class Finish(msgspec.Struct, frozen=True):
    """What must be there in the end: acknowledged numbers of each producer, and the spoiled ones among them. `loaded`: the same for each log
    that has to have events from files; `catalogue`: the number of its last record."""

    sent: dict[int, tuple[int, set[int]]]
    loaded: dict[str, dict[int, tuple[int, set[int]]]] = {}
    catalogue: int = 0


class Status(msgspec.Struct):
    """How things stand. `behind`: samples that could not be judged, since the store had gone back; `pruned`:
    predictions that could not be computed again, since a version of a view is gone."""

    counts: dict[str, int]
    findings: list[str]
    rewinds: list[Rewind]
    samples: int = 0
    values: int = 0
    behind: int = 0
    served: int = 0
    rows: int = 0
    predictions: int = 0
    recomputed: int = 0
    repeated: int = 0
    pruned: int = 0
    fold: dict[str, int] = {}
    finished: bool = False
