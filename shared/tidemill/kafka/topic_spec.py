"""How a topic is created."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TopicSpec:
    """How a topic is created. `ours`: only tidemill writes to it, so its partitions decide where an entity lies.

    The topic of an application may have other partitions and another configuration: it is another team's.
    """

    partitions: int
    config: dict[str, str]
    ours: bool = True
