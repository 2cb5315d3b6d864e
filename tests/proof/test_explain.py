"""What the values of an entity are made of, online and offline side by side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from rich.console import Console
from tests.demo_state import NOW_MS
from tests.proof.conftest import ZONES, Online

from tidemill.cli import explain as command
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.online.writer import OnlineWriter
from tidemill.proof.explain import Explanation, explain
from tidemill.proof.partition_audit import PartitionAudit
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
PARTITION = partition_of(b"zone7", ZONES.partitions)
AT_MS = NOW_MS + 60_000 * 400


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """Return a link to the store."""
    async with RedisLink(redis_url, timeout_seconds=10) as made:
        yield made


async def found(online: Online, link: RedisLink, entity: str = "zone7") -> Explanation:
    """What is said of an entity."""
    name = online.world.project.name
    partition = partition_of(entity.encode(), ZONES.partitions)
    audit = PartitionAudit(name, ZONES, partition, online.world.store, link, wait_seconds=2)
    return await explain(ZONES, entity, audit, OnlineWriter(link, name), AT_MS)


def printed(found: Explanation, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a person sees."""
    console = Console(record=True, width=300)
    monkeypatch.setattr(command, "console", console)
    command.show(found)
    return console.export_text()


async def test_both_sides_agree(online: Online, link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, statuses, tiles and ids are the same; each feature names the tiles it comes from, the newest row is the entity's last."""
    shown = await found(online, link)
    fold, states = online.world.fold(ZONES, PARTITION)
    reading = fold.kernel.read_state(states[b"zone7"], AT_MS)
    assert shown.differences == []
    assert shown.online == shown.offline
    assert shown.online is not None
    assert shown.online.newest_ms == states[b"zone7"].newest
    assert [item.online for item in shown.features] == [item.offline for item in shown.features]
    for item, value in zip(shown.features, reading.values, strict=True):
        assert item.online_status in ("PRESENT", "NULL_VALUE")
        assert item.online == (value if item.online_status == "PRESENT" else None)
    assert shown.newest is not None
    assert shown.newest.offset < shown.offline_end == fold.fence.next
    text = printed(shown, monkeypatch)
    for part in ("zone7 of view zones", "fence: next", "count_1h", "PRESENT", "tiles from 2023-", "recent ids"):
        assert part in text
    assert "differences" not in text
    assert "only events where tip > 0\n" in printed(shown._replace(where="tip > 0"), monkeypatch)
    erased = shown._replace(erase="tip > 9", online=shown.online._replace(newest_ms=None))
    for part in ("erased by events where tip > 9\n", "online: no event since it was erased, recent ids", "offline: newest event 2023-"):
        assert part in printed(erased, monkeypatch)


async def test_an_altered_tile_is_marked(online: Online, link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both numbers stand side by side, and what differs is counted."""
    online.alter(ZONES, PARTITION, b"zone7")
    shown = await found(online, link)
    (difference,) = shown.differences
    text = printed(shown, monkeypatch)
    assert f"{difference.stored!r} | {difference.expected!r}" in text
    assert "1 differences; for the events one by one: tidemill audit zones" in text
    plain = json.loads(command.as_json(shown))
    assert plain["differences"][0]["slot"] == difference.slot
    assert plain["features"][0]["online_status"] == "PRESENT"


async def test_damage_absence_and_rebuilding(online: Online, link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged value, an unknown entity, a partition that is being rebuilt, and one that has not begun are told in words."""
    key, fence_key = online.key(ZONES, PARTITION, b"zone7"), online.fence(ZONES, PARTITION)
    value = bytearray(online.client.get(key))  # type: ignore[arg-type]
    value[-1] ^= 1
    online.client.set(key, bytes(value))
    assert "fails its checksum" in printed(await found(online, link), monkeypatch)
    online.apply()
    nobody = await found(online, link, "nobody")
    assert (nobody.online, nobody.offline, nobody.rows, nobody.differences) == (None, None, 0, [])
    assert {item.online_status for item in nobody.features} == {"NOT_FOUND"}
    assert "no rows below offset" in printed(nobody, monkeypatch)
    fence = Fence.decode(online.client.get(fence_key))  # type: ignore[arg-type]
    for changed in (msgspec.structs.replace(fence, until=fence.next + 1), msgspec.structs.replace(fence, next=0, until=9, builder="b")):
        online.client.set(fence_key, changed.encode())
        shown = await found(online, link)
        assert shown.rebuilding
        assert {item.online_status for item in shown.features} == {"INVALID"}
        assert shown.offline is not None
        assert "rebuilding: its values are not served" in printed(shown, monkeypatch)
    online.client.delete(fence_key)
    assert "no fence: feature computation has not begun" in printed(await found(online, link), monkeypatch)
