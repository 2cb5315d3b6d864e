"""How a topic is created."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TopicSpec:
    """How a topic is created."""

    partitions: int
    config: dict[str, str]
