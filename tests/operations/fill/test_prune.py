"""The end of `tidemill apply`, and `tidemill prune`: what nobody reads goes, wholly; everything else stays."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
import redis
from tests.faults.injections.orders import Order
from tests.frozen import freeze
from tests.operations.fill.shop import Raw, archive, commit, declare, ends, expected, folded, publish
from tests.operations.fill.test_killed import Command, shop_events

from tidemill.catalogue.definitions import project_of
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.kafka.client import started_producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.names import LogName, log_name
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import predictions_table, view_table
from tidemill.online.keys import fence_key, state_key
from tidemill.operations.pruning import Pruning
from tidemill.redis.link import RedisLink
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.topics import predictions_topic, topic_specs, view_topic
from tidemill.streams.view_logs import logs_with_topics

pytestmark = pytest.mark.integration
FIRST, SECOND, THIRD = (log_name("cards", 2, version) for version in (1, 2, 3))


async def test_a_version_comes_in_force_and_the_old_one_is_deleted(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """In force once both stores have the log's records; then the old version's topic, table and keys go, and the log of a fill that was
    broken off. The version in force keeps all."""
    command, store = Command(kafka, topic_prefix, tmp_path), OfflineStore(tmp_path / "offline")
    command.environment["REDIS_URL"] = redis_url
    first = declare(tmp_path / "shop", topic_prefix)
    await ensure_topics(command.settings, topic_specs(first))
    await command.run("apply", "--yes")
    assert "nothing to delete" in await command.run("prune")
    events = [event for event in shop_events(first) if event.offset < 1_000]
    await publish(command.settings, events)
    archive(store, first, events)
    await commit(command.settings, first, dict.fromkeys(range(3), 1_000))
    declare(tmp_path / "shop", topic_prefix, later=True)
    await command.output(command.start("apply", "--yes", order=Order("before_archive", "kill")))
    applying = command.start("apply", "--yes")
    while (await command.definitions()).views[-1].handover is None or (await command.definitions()).views[-1].version < 3:
        assert applying.poll() is None, await command.output(applying)
        await asyncio.sleep(0.05)
    now = project_of(await command.definitions(), topic_prefix)
    old, new = now.views["cards"], now.views["cards@v3"]
    with redis.Redis.from_url(redis_url) as online:
        await asyncio.sleep(1)
        assert (await command.definitions()).in_force == {"cards": 1}
        for view in (old, new):
            held = await ends(command.settings, view_topic(topic_prefix, view.log))
            table = view_table(now, view)
            writer = store.topic_table(table)
            writer.open()
            writer.append(table.schema.empty_table(), {(table.topic, p): (0, end) for p, end in held.items() if end})
            for partition, end in held.items():
                online.set(fence_key(topic_prefix, view.log, partition), b'{"next":%d,"definition":"","partitions":2}' % end)
                online.set(state_key(topic_prefix, view.log, partition, b"a"), b"x")
        assert "in force, as number" in await command.output(applying)
        assert (await command.definitions()).in_force == {"cards": 3}
        said = await command.run("prune")
        assert f"topic {view_topic(topic_prefix, old.log)}" in said
        assert "nothing is deleted yet" in said
        without = (await command.definitions()).without({("cards", 1)}, 9)
        await append_definitions(command.settings, topic_prefix, without)  # one that was killed after this goes on
        assert "2 deleted" in await command.run("prune", "--yes")
        stored = {*online.keys("*")}
    assert stored == {key for p in range(2) for key in (fence_key(topic_prefix, new.log, p), state_key(topic_prefix, new.log, p, b"a"))}
    assert await logs(command) == {new.log}
    assert [(tmp_path / "offline" / view_folder(view.log)).exists() for view in (old, new)] == [False, True]
    assert [found.version for found in (await command.definitions()).views] == [3]
    assert (await folded(command.settings, topic_prefix, new))[0] == expected(new, events)


@pytest.fixture
async def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Command:
    """A shop with version 1 in force. Nothing is published yet."""
    made = Command(kafka, topic_prefix, tmp_path)
    made.environment["REDIS_URL"] = redis_url
    await ensure_topics(made.settings, topic_specs(declare(tmp_path / "shop", topic_prefix)))
    await made.run("apply", "--yes")
    return made


async def logs(command: Command) -> set[LogName]:
    """The logs that have a topic."""
    return {*await logs_with_topics(command.settings, command.name)}


async def route(command: Command, project: Project) -> list[Raw]:
    """Events that are archived and routed."""
    events = [event for event in shop_events(project) if event.offset < 300]
    await publish(command.settings, events)
    archive(OfflineStore(command.folder / "offline"), project, events)
    await commit(command.settings, project, dict.fromkeys(range(3), 300))
    return events


async def test_a_log_that_no_record_names(shop: Command) -> None:
    """An `apply` was killed between its topics and its record. Its log stays while the next one may take it, and goes when that took another."""
    declare(shop.folder / "shop", shop.name, later=True)
    await shop.output(shop.start("apply", "--yes", order=Order("before_record", "kill")))
    assert await logs(shop) == {FIRST, SECOND}
    assert "nothing to delete" in await shop.run("prune", "--yes")
    declare(shop.folder / "shop", shop.name, later=True, partitions=4)
    await shop.run("apply", "--yes")
    taken = log_name("cards", 4, 2)
    assert await logs(shop) == {FIRST, SECOND, taken}
    assert "2 deleted" in await shop.run("prune", "--yes")
    assert await logs(shop) == {taken}


async def test_a_log_that_is_filled_is_named_before_it_is_there(shop: Command) -> None:
    """An `apply` that is killed before its record leaves no log that it would have filled."""
    await route(shop, declare(shop.folder / "shop", shop.name, later=True))
    await shop.output(shop.start("apply", "--yes", order=Order("before_record", "kill")))
    assert await logs(shop) == {FIRST}


@pytest.mark.parametrize(("point", "routed"), [("before_record", False), ("after_begin", True), ("before_live", True)])
async def test_an_apply_that_is_under_way_keeps_its_log(shop: Command, redis_url: str, point: str, routed: bool) -> None:
    """While it stands before its record, or fills, a prune deletes what others left, and nothing of it; so does one that looked then and
    deletes afterwards."""
    project = declare(shop.folder / "shop", shop.name, later=True)
    await shop.run("apply", "--yes")
    assert "1 deleted" in await shop.run("prune", "--yes")
    beside = log_name("cards", 8, 2)
    await ensure_topics(shop.settings, {view_topic(shop.name, beside): TopicSpec(8, {})})
    events = await route(shop, project) if routed else []
    declare(shop.folder / "shop", shop.name, later=True, ahead="1h")
    process = shop.start("apply", "--yes", "--no-wait", order=Order(point, "sleep", seconds=3))
    await shop.reached(process)
    freeze(process.pid)
    there = await logs(shop) - {SECOND, beside}
    assert there == ({THIRD} if point != "after_begin" else set())
    job = Pruning(shop.name, OfflineStore(shop.folder / "offline"), shop.settings, {}, all_known=True)
    unread = await job.unread()
    assert unread.logs == [beside]
    async with RedisLink(redis_url, timeout_seconds=10) as link:
        await job.delete(unread, link)
        assert await logs(shop) == {SECOND, *there}
        process.send_signal(signal.SIGCONT)
        said = await shop.output(process)
        assert process.returncode == 0, said
        await job.delete(unread, link)
    assert await logs(shop) == {SECOND, THIRD}
    view = next(view for view in project_of(await shop.definitions(), shop.name).views.values() if view.log == THIRD)
    assert (await folded(shop.settings, shop.name, view))[0] == expected(view, events)


async def test_a_log_of_one_that_slept(shop: Command) -> None:
    """An `apply` slept after its record until another had handed its own over, which a prune keeps. The log that it makes then goes with the next prune."""
    await route(shop, declare(shop.folder / "shop", shop.name, later=True))
    process = shop.start("apply", "--yes", order=Order("after_begin", "sleep", seconds=3))
    await shop.reached(process)
    freeze(process.pid)
    await shop.run("apply", "--yes", "--no-wait")
    said = await shop.run("prune", "--yes")
    assert "cards@v3 stays: it was handed over" in said
    assert "nothing to delete" in said
    assert await logs(shop) == {FIRST, THIRD}
    process.send_signal(signal.SIGCONT)
    assert "was changed by somebody else meanwhile" in await shop.output(process)
    assert await logs(shop) == {FIRST, SECOND, THIRD}
    assert "1 deleted" in await shop.run("prune", "--yes")
    assert await logs(shop) == {FIRST, THIRD}


async def test_predictions_that_are_not_in_their_table_yet(shop: Command) -> None:
    """They may have read any version: prune waits until the table has them, and says so when that takes too long."""
    project, store = declare(shop.folder / "shop", shop.name), OfflineStore(shop.folder / "offline")
    async with started_producer(shop.settings) as made:
        await send_wave(made, {(predictions_topic(shop.name), 1): [(b"k", b"{}", [])]})
    job = Pruning(shop.name, store, shop.settings, {}, all_known=True)
    with pytest.raises(TidemillError, match="not all predictions are in their table"):
        await job.unread(0.3)
    waiting = asyncio.create_task(job.unread())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    table = predictions_table(project)
    writer = store.topic_table(table)
    writer.open()
    writer.append(table.schema.empty_table(), {(table.topic, 1): (0, 1)})
    assert (await waiting).logs == []
