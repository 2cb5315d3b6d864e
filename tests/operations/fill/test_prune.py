"""The end of `tidemill apply`, and `tidemill prune`: what nobody reads goes, wholly; everything else stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from tests.operations.fill.shop import archive, commit, declare, ends, expected, folded, publish
from tests.operations.fill.test_killed import Command, shop_events

from tidemill.catalogue.definitions import project_of
from tidemill.kafka.admin import admin
from tidemill.kafka.topics import ensure_topics
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import view_table
from tidemill.online.keys import fence_key, state_key
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.topics import topic_specs, view_topic

pytestmark = pytest.mark.integration


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
    process = await command.begun()
    process.kill()
    await command.output(process)
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
    async with admin(command.settings) as client:
        topics = [topic for topic in await client.list_topics() if topic.startswith(f"{topic_prefix}.view.")]
    assert topics == [view_topic(topic_prefix, new.log)]
    assert [(tmp_path / "offline" / view_folder(view.log)).exists() for view in (old, new)] == [False, True]
    assert [found.version for found in (await command.definitions()).views] == [3]
    assert (await folded(command.settings, topic_prefix, new))[0] == expected(new, events)
