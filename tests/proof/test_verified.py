"""Partitions of an online store beside SQL: what is right is, whatever the log holds, and what no other proof sees is found."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from tests.demo_state import NOW_MS, demo, saved, trip
from tests.proof.conftest import ENTITIES, ZONES, Online, events
from tests.proof.test_replay import model_version, predicted
from tests.proof.world import Happened, World

from tidemill.archive.erasure import Wanted, erase
from tidemill.archive.reading import read_events
from tidemill.archive.retention import forget_before
from tidemill.archive.rows import event_table
from tidemill.archive.view_records import RecordMaker
from tidemill.proof.audit import audit
from tidemill.proof.verified import SampleSize, Verified, ViewVerify
from tidemill.redis.link import RedisLink
from tidemill.streams.topics import view_topic

pytestmark = pytest.mark.integration
NOT_FILLED: Mapping[int, int] = {}
ALL = SampleSize(entities=2 * ENTITIES, predictions=0)


async def verified(
    world: World, url: str, sample: SampleSize = ALL, kept_since_ms: int = 0, begins: Mapping[int, int] = NOT_FILLED
) -> list[Verified]:
    """Every partition of the view of zones."""
    async with RedisLink(url, timeout_seconds=10) as link:
        view = ViewVerify(world.project, ZONES, world.store, link, begins, wait_seconds=0.0)
        return [await view.look(partition, sample, random.Random(1), kept_since_ms=kept_since_ms) for partition in range(ZONES.partitions)]


def left_out(found: list[Verified]) -> dict[str, int]:
    """How many were left out, by reason."""
    reasons = {reason for one in found for reason, many in one.left_out.items() if many}
    return {reason: sum(one.left_out[reason] for one in found) for reason in reasons}


@pytest.fixture
def own(tmp_path: Path, redis_url: str) -> tuple[World, Online]:
    """A world that a test may spoil, not yet written, and its online store, still empty."""
    redis.Redis.from_url(redis_url).flushall()
    made = World(demo(), tmp_path)
    made.publish(events(300))
    return made, Online(made, redis_url)


async def test_a_right_store(world: World, online: Online) -> None:
    """Late, doubled and resent records, and those that cannot be decoded, differ in nothing."""
    found = await verified(world, online.url)
    assert [one.examples for one in found] == [[]] * ZONES.partitions
    assert sum(one.checked for one in found) > 2 * ENTITIES * len(ZONES.served) - 1
    assert (sum(one.compared.undecided for one in found), left_out(found)) == (0, {})


async def test_a_log_that_lies(own: tuple[World, Online]) -> None:
    """A record that says another fare than its event: store, rows and log agree, so the audit finds nothing; SQL from the event does."""
    world, online = own
    log = world.logs[view_topic(world.project.name, ZONES.log), 1]
    place, key, record = max(
        ((i, key or b"", json.loads(value or b"")) for i, (key, value) in enumerate(log)), key=lambda one: one[2]["time"]
    )
    record["values"]["fare"] += 7.0
    log[place] = key, json.dumps(record).encode()
    world.write()
    online.apply()
    async with RedisLink(online.url, timeout_seconds=10) as link:
        assert (await audit(world.project, world.store, link)).mismatched == 0
    found = await verified(world, online.url)
    assert [one.differing for one in found] == [[], [key.decode()], [], []]
    assert "mean_fare_" in found[1].examples[0]


def busy(zone: str, count: int) -> list[Happened]:
    """Trips in one zone, two a minute."""
    return [(NOW_MS + 30_000 * i, "trips", trip(NOW_MS + 30_000 * i, zone, i % 7, None, 1, f"busy-{i}")) for i in range(count)]


@pytest.mark.parametrize("lies", [False, True])
async def test_an_entity_with_too_many_rows(tmp_path: Path, redis_url: str, lies: bool) -> None:
    """It is compared by its newest rows, in the windows that these decide: what is right agrees, and a newest record that lies is found."""
    redis.Redis.from_url(redis_url).flushall()
    world = World(demo(), tmp_path)
    world.publish(busy("zone0", 500))
    ((topic, partition),) = [place for place in world.logs if place[0] == view_topic(world.project.name, ZONES.log)]
    key, value = world.logs[topic, partition][-1]
    if lies:
        record = json.loads(value or b"")
        record["values"]["fare"] += 7.0
        world.logs[topic, partition][-1] = key, json.dumps(record).encode()
    world.write()
    Online(world, redis_url).apply()
    whole, part, none = [await verified(world, redis_url, ALL._replace(rows=rows)) for rows in (500, 260, 8)]
    assert [left_out(found) for found in (whole, part, none)] == [{}, {"large": 1}, {"large": 1}]
    assert sum(one.checked for one in whole) > sum(one.checked for one in part) > sum(one.checked for one in none) == 0
    for found in (whole, part):
        assert [entity for one in found for entity in one.differing] == ["zone0"] * lies
        assert all("_1h is" in text or found is whole for one in found for text in one.examples)


async def test_a_version_that_was_filled(own: tuple[World, Online]) -> None:
    """Its log has the archive first, in another order than it came, then live events."""
    world, online = own
    trips, topic = world.project.events["trips"], view_topic(world.project.name, ZONES.log)
    world.logs.clear()
    store, begin = world.write(), len(world.events[trips.topic, 0])
    made = RecordMaker(ZONES).made(read_events(store, trips, ["zone", *ZONES.value_fields])).records
    for partition, records in made.items():
        world.logs[topic, partition] += [(key, value) for key, value, _ in records]
    world.publish(events(60, seed=4))
    world.write()
    online.apply()
    found = await verified(world, online.url, begins={0: begin})
    assert [one.examples for one in found] == [[]] * ZONES.partitions
    assert sum(one.checked for one in found) > 2 * ENTITIES * len(ZONES.served)


async def test_an_archive_that_lies(own: tuple[World, Online]) -> None:
    """A row that is changed, lost or doubled is found, with the event that has no record or the record that has no event."""
    world, online = own
    store = world.write()
    online.apply()
    table = event_table(world.project, world.project.events["trips"], store.snapshot("events/trips").schema)
    log = store.topic_table(table)
    rows = store.snapshot("events/trips").scan(order=("_offset",)).select(table.schema.names)
    newest: dict[str, dict[str, Any]] = {row["zone"]: row for row in rows.to_pylist() if row["_time"] == row["_known"]}
    changed, lost, doubled = list(newest.values())[-3:]
    log.delete(f"_offset IN ({changed['_offset']}, {lost['_offset']})")
    log.append(pa.Table.from_pylist([changed | {"fare": 99.0}, doubled | {"id": None, "_id": None}], table.schema), {})
    found = await verified(world, online.url)
    assert {entity for one in found for entity in one.differing} <= {changed["zone"], lost["zone"], doubled["zone"]}
    assert sum(one.mismatched for one in found) > 3
    assert any("no event of the record at" in text for one in found for text in one.examples)


async def test_what_cannot_be_compared_is_passed_over(own: tuple[World, Online]) -> None:
    """An archive or rows that lag, events that were erased or forgotten, a partition that is being rebuilt, too many rows: counted."""
    world, online = own
    world.write()
    world.publish(events(20, seed=5))
    online.apply()
    found = await verified(world, online.url)
    assert left_out(found).keys() == {"lags"}
    assert sum(one.checked for one in found) == 0
    world.write()
    assert left_out(await verified(world, online.url)) == {}
    kept_since_ms = NOW_MS + 10 * 60_000
    assert forget_before(world.store, world.project.events["trips"], kept_since_ms) > 0
    found = await verified(world, online.url, kept_since_ms=kept_since_ms)
    assert left_out(found).keys() == {"forgotten"}
    found = await verified(world, online.url, SampleSize(entities=1, predictions=0, rows=0))
    assert left_out(found) == {"large": ZONES.partitions}
    whole = await verified(world, online.url, kept_since_ms=kept_since_ms)
    zone = sorted(whole[0].entities)[0]
    assert erase(world.store, Wanted.parse(world.project.events["trips"], f"zone={zone}")) > 0
    found = await verified(world, online.url, kept_since_ms=kept_since_ms)
    assert (left_out(found)["erased"], [one.mismatched for one in found]) == (1, [0] * ZONES.partitions)
    online.client.delete(online.fence(ZONES, 3))
    assert (await verified(world, online.url))[3].left_out.keys() == {"rebuilding"}


async def test_an_altered_and_a_deleted_entity(own: tuple[World, Online]) -> None:
    """Found as the audit finds them."""
    world, online = own
    world.write()
    online.apply()
    first, second = list(world.fold(ZONES, 2)[1])[:2]
    online.alter(ZONES, 2, first)
    online.client.delete(online.key(ZONES, 2, second))
    found = await verified(world, online.url)
    assert {entity for one in found for entity in one.differing} == {first.decode(), second.decode()}


async def test_logged_inputs(own: tuple[World, Online]) -> None:
    """Inputs are those at the stamp of each prediction, while the log has grown since; one that was altered is found."""
    world, online = own
    world.publish((known, name, data | {"zone": "north"}) for known, name, data in events(60, seed=3))
    saved(str(world.root), model_version())
    predictions = [predicted(world, i, i / 20) for i in range(0, 20, 4)]
    world.predict(predictions)
    world.write()
    online.apply()
    few = SampleSize(entities=1, predictions=10)
    found = await verified(world, online.url, few)
    assert [one.examples for one in found] == [[]] * ZONES.partitions
    many = sum(one.checked for one in found)
    place = next(i for i, name in enumerate(model_version().manifest.inputs) if name.name == "zones__count_1d")
    inputs = [value + 1.0 if i == place and value is not None else value for i, value in enumerate(predictions[-1].inputs)]
    world.predict([type(predictions[0])(**{**{f: getattr(predictions[-1], f) for f in predictions[0].__struct_fields__}, "id": "px", "inputs": inputs})])  # fmt: skip
    world.write()
    found = await verified(world, online.url, few)
    assert sum(one.checked for one in found) > many
    (example,) = [example for one in found for example in one.compared.examples]
    assert (example.feature, example.what.endswith("logged by prediction px")) == ("count_1d", True)
