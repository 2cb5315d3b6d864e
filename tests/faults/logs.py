"""A small log of the project under faults, without servers: what the tests of the checks tamper with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.logcheck import PartitionCheck
from tests.faults.tally import Tally
from tests.offline.lake import Sent, numbered
from tests.proof.world import World

from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.kernel.view import ViewKernel
from tidemill.streams.topics import view_topic

PROJECT = Path(__file__).parent / "fault_project"
NOW_MS = 1_790_000_000_000
EVENT = "fault.measured"
EVENTS = 300


def events(seed: int, count: int = EVENTS) -> list[tuple[int, str, dict[str, Any]]]:
    """Measurements of one producer, in the order of its numbers: some late, some too late, some that erase their place."""
    pick = random.Random(seed)
    made = []
    for number in range(count):
        known = NOW_MS + 4_000 * number
        late_ms = pick.choice([0, 0, 0, 0, 50_000, 500_000, 3_000_000])
        data = {
            "id": f"0-{number}", "at": known - late_ms, "entity": pick.randrange(6), "place": f"p{pick.randrange(12)}",
            "value": pick.random() * 100 if number % 29 else 99.95, "units": pick.choice([None, pick.randrange(400) / 4]),
        }  # fmt: skip
        made.append((known, EVENT, data))
    return made


def world(root: Path, happened: Sequence[tuple[int, str, dict[str, Any]]]) -> World:
    """These events, routed."""
    made = World(load_project(PROJECT), root)
    made.publish(happened)
    return made


def records(made: World, view: FeatureView, partition: int) -> list[Sent]:
    """The records of a partition as a consumer gets them."""
    return numbered(made.logs[view_topic(made.project.name, view.log), partition])


def checks(made: World, view: str, tally: Tally) -> list[PartitionCheck]:
    """Every partition of a view, folded to its end."""
    declared = made.project.views[view]
    found = [PartitionCheck(declared, ViewKernel(declared), partition, tally) for partition in range(declared.partitions)]
    for check in found:
        check.advance(records(made, declared, check.partition))
    return found
