"""A log with every kind of trouble and many entities, in an offline store, and an online store that equals it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import redis
from tests.demo_state import HOUR_MS, NOW_MS, demo, trip
from tests.operations.conftest import rig  # noqa: F401 - a fixture of the tests here
from tests.proof.world import Happened, World

from tidemill.declarations import FeatureView
from tidemill.online.keys import fence_key, state_key
from tidemill.streams.topics import view_topic

ZONES = demo().views["zones"]
ENTITIES = 60


def events(count: int, seed: int = 1) -> list[Happened]:
    """Trips in many zones, some late, some published twice."""
    draw = random.Random(seed)
    made: list[Happened] = []
    for i in range(count):
        known = NOW_MS + 60_000 * i
        at = known - draw.choice([0, 0, HOUR_MS, 30 * HOUR_MS])
        zone, driver = f"zone{draw.randrange(ENTITIES)}", draw.randrange(5)
        made.append(
            (
                known,
                "trips",
                trip(at, zone, draw.random(), draw.choice([None, 3.5]), driver, f"{seed}-{max(0, i - draw.choice([0] * 9 + [1]))}"),
            )
        )
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log in which records are sent twice and some cannot be decoded."""
    made = World(demo(), tmp_path_factory.mktemp("offline"))
    made.publish(events(400))
    for place in [place for place in made.logs if place[0] == view_topic(made.project.name, ZONES.log)]:
        made.logs[place] += made.logs[place][3:9]
        made.logs[place].append((b"zone0", b"poison"))
    made.publish(events(400, seed=2))
    made.write()
    return made


class Online:
    """The online store as feature computation would have it."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url, self.client = world, url, redis.Redis.from_url(url)

    def key(self, view: FeatureView, partition: int, entity: bytes) -> bytes:
        """Where an entity lies."""
        return state_key(self.world.project.name, view.log, partition, entity)

    def fence(self, view: FeatureView, partition: int) -> bytes:
        """Where a fence lies."""
        return fence_key(self.world.project.name, view.log, partition)

    def apply(self) -> None:
        """Brings every partition to the end of its log."""
        for view in self.world.project.views.values():
            for partition in range(view.partitions):
                fold, states = self.world.fold(view, partition)
                for entity, state in states.items():
                    self.client.set(self.key(view, partition, entity), fold.kernel.encode(state))
                self.client.set(self.fence(view, partition), fold.fence.encode())

    def alter(self, view: FeatureView, partition: int, entity: bytes) -> None:
        """Adds one to a number of the newest tile, with a valid checksum."""
        kernel = self.world.fold(view, partition, 0)[0].kernel
        state = kernel.decode(self.client.get(self.key(view, partition, entity)))  # type: ignore[arg-type]
        state.head[kernel.packing.first(0)] += 1.0
        self.client.set(self.key(view, partition, entity), kernel.encode(state))


@pytest.fixture
def online(world: World, redis_url: str) -> Online:
    """An online store that equals the offline rows."""
    made = Online(world, redis_url)
    made.apply()
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("empty")
