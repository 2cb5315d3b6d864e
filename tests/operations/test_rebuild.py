"""The online store made anew from Parquet: the same bytes, whatever interrupts it, and never a wrong value served meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from tests.features.rig import until
from tests.operations.conftest import Mirrored
from tests.operations.hammer import hammering

from tidemill.errors import TidemillError, TornTable
from tidemill.kafka.admin import admin
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import empty_fence
from tidemill.kernel.packed import NEWEST
from tidemill.kernel.view import ViewKernel
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.claim import Claim, ClaimLost
from tidemill.online.keys import fence_key, state_key
from tidemill.operations import rebuild as module
from tidemill.operations.rebuild import Rebuild, Rebuilt
from tidemill.redis.link import RedisLink
from tidemill.streams.topics import view_topic

pytestmark = pytest.mark.integration


async def rebuilt(rig: Mirrored, view: str, *partitions: int) -> list[Rebuilt]:
    """What `tidemill rebuild VIEW` does."""
    declared = rig.project.views[view]
    async with RedisLink(rig.redis_url, timeout_seconds=10) as link:
        job = Rebuild(rig.project, declared, OfflineStore(rig.offline), link, rig.settings)
        return await job.run(partitions or range(declared.partitions))


def spoil(rig: Mirrored, view: str) -> None:
    """Leave nothing of a view's entities as it was: some deleted, some altered, and some that never were."""
    declared = rig.project.views[view]
    kernel = ViewKernel(declared)
    for partition in range(declared.partitions):
        prefix = state_key(rig.name, declared.log, partition, b"")
        for i, key in enumerate(rig.store.keys(prefix + b"*")):
            state = kernel.decode(rig.store.get(key))  # type: ignore[arg-type]
            state.head[NEWEST] += 1000
            rig.store.set(key, kernel.encode(state)) if i % 2 else rig.store.delete(key)
        rig.store.set(prefix + b"nobody", b"x")


def test_the_same_bytes(rig: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small slices and with few entities in memory: what was altered, lost or never there is as the log says, and work goes on."""
    monkeypatch.setattr(module, "SLICE_ROWS", 137)
    monkeypatch.setattr(module, "MOST_ENTITIES", 20)
    monkeypatch.setattr(module, "_CHUNK", 7)
    rig.settle(3_000)
    spoil(rig, "by_card")
    done = asyncio.run(rebuilt(rig, "by_card"))
    assert [item.partition for item in done] == [0, 1, 2, 3]
    assert sum(item.rows for item in done) == sum(end for (view, _), end in rig.ends().items() if view == "by_card")
    rig.wait_folded()
    rig.check()
    rig.produce(1_000)
    rig.wait_folded()
    rig.check()


def test_a_topic_that_no_longer_has_the_history(rig: Mirrored) -> None:
    """Records that retention took from the topic come from Parquet, those that Parquet does not have yet from the topic."""
    rig.settle(2_000)
    worker, writer = rig.workers
    writer.process.kill()
    written = rig.written()
    rig.produce(1_000)
    rig.wait_folded()
    log = rig.project.views["by_card"].log
    worker.process.kill()
    rig.store.flushall()
    asyncio.run(_expire(rig, view_topic(rig.name, log), {partition: written["by_card", partition] for partition in range(4)}))
    worker = rig.worker()
    worker.wait_saying("run: tidemill rebuild by_card --partition")
    process = rig.command("rebuild", "by_card")
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out.decode()
    assert "computation goes on with" in " ".join(out.decode().split())
    rig.wait_folded()
    worker.wait_ready()
    found = {p: Fence.decode(rig.store.get(fence_key(rig.name, log, p))) for p in range(4)}  # type: ignore[arg-type]
    assert [(fence.next, fence.until) for fence in found.values()] == [(rig.ends()["by_card", p], 0) for p in range(4)]
    rig.worker("tidemill_offline", TIDEMILL_OFFLINE=rig.offline)
    rig.wait_mirrored()
    rig.audited()


async def _expire(rig: Mirrored, topic: str, before: dict[int, int]) -> None:
    async with admin(rig.settings) as client:
        await client.delete_records({TopicPartition(topic, p): RecordsToDelete(before_offset=offset) for p, offset in before.items()})


async def test_killed_at_any_point_while_readers_hammer(rig: Mirrored) -> None:
    """Started again after each kill -9, while events flow: it ends with the right bytes, and nothing wrong was ever served."""
    await asyncio.to_thread(rig.settle, 4_000)
    async with hammering(rig) as hammer:
        for round_number in range(4):
            process = rig.command("rebuild", "by_card")
            await asyncio.to_thread(wait_claimed, rig, round_number, process)
            await asyncio.sleep(0.05 * round_number)
            process.kill()
            process.communicate()
            await asyncio.to_thread(rig.produce, 200)
        process = rig.command("rebuild", "by_card")
        out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, out.decode()
        await asyncio.to_thread(rig.wait_folded)
    assert hammer.withheld
    assert hammer.served
    await hammer.check(rig)
    await asyncio.to_thread(rig.check)


def wait_claimed(rig: Mirrored, partition: int, process: subprocess.Popen[bytes]) -> None:
    """Return once a process writes a partition of the cards, or has ended: it may last for less than a tenth of a second, and be missed."""
    until(
        lambda: claimed(rig, partition) or process.poll() is not None,
        lambda: f"partition {partition} was never claimed",
        poll_seconds=0.002,
    )


def claimed(rig: Mirrored, partition: int) -> bool:
    """Whether somebody writes a partition of the cards."""
    stored = rig.store.get(fence_key(rig.name, rig.project.views["by_card"].log, partition))
    return stored is not None and bool(Fence.decode(stored).builder)  # type: ignore[arg-type]


async def test_everything_is_flushed_while_readers_hammer(rig: Mirrored) -> None:
    """FLUSHALL while events flow: values are withheld until they have caught up with what was served before, and none was ever wrong."""
    rig.start()
    await asyncio.to_thread(rig.produce, 3_000)
    await asyncio.to_thread(rig.wait_folded)
    async with hammering(rig) as hammer:
        for _ in range(3):
            await asyncio.to_thread(rig.produce, 500)
            rig.store.flushall()
            await asyncio.to_thread(rig.wait_folded)
    assert hammer.withheld
    await hammer.check(rig)
    await asyncio.to_thread(rig.check)


async def test_two_at_once(rig: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that another builder holds is refused and stays as it is; once that one is dead it is rebuilt."""
    monkeypatch.setattr(module, "LEASE_MS", 1_000)
    await asyncio.to_thread(rig.settle, 500)
    view = rig.project.views["by_shop"]
    async with RedisLink(rig.redis_url) as link:
        assert await Claim(link, rig.name, view.log, 1, empty_fence(ViewKernel(view))).take()
        marker = rig.store.get(fence_key(rig.name, view.log, 1))
        before = rig.store.get(fence_key(rig.name, view.log, 0))
        with pytest.raises(TidemillError, match="'by_shop' partition 1 is being rebuilt by somebody else"):
            await rebuilt(rig, "by_shop", 1)
        assert rig.store.get(fence_key(rig.name, view.log, 1)) == marker
        assert rig.store.get(fence_key(rig.name, view.log, 0)) == before
        rig.store.pexpire(fence_key(rig.name, view.log, 1), 300)
        await rebuilt(rig, "by_shop", 1)
    await asyncio.to_thread(rig.wait_folded)
    await asyncio.to_thread(rig.check)


async def test_a_claim_that_is_gone(rig: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store loses the claim in the middle it ends with an error, whatever it wrote is not served, and feature computation takes over."""
    await asyncio.to_thread(rig.settle, 500)
    write = Claim.write

    async def losing(self: Claim, *arguments: object) -> None:
        rig.store.flushall()
        await write(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Claim, "write", losing)
    with pytest.raises(ClaimLost, match="run it again"):
        await rebuilt(rig, "by_card", 2)
    await asyncio.to_thread(rig.wait_folded)
    await asyncio.to_thread(rig.check)


async def test_what_fails_gives_the_partition_up(rig: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the middle leaves no claim, so that feature computation begins the partition at once."""
    await asyncio.to_thread(rig.settle, 500)

    async def failing(*_: object) -> None:
        raise OSError("no more")

    monkeypatch.setattr(Claim, "write", failing)
    with pytest.raises(OSError, match="no more"):
        await rebuilt(rig, "by_card", 2)
    assert not claimed(rig, 2)
    await asyncio.to_thread(rig.wait_folded)
    await asyncio.to_thread(rig.check)


def test_a_changed_definition(rig: Mirrored) -> None:
    """A view that was stored under another definition is refused by the worker until it is rebuilt, as the worker says."""
    rig.settle(1_000)
    rig.workers[0].process.kill()
    rig.declare(dedupe=3)
    other = Mirrored(rig.name, rig.folder, rig.kafka, rig.redis_url, dedupe=3, seed=5, workers=rig.workers)
    worker = other.worker()
    worker.wait_saying("run: tidemill rebuild by_card --partition")
    asyncio.run(rebuilt(other, "by_card"))
    other.wait_folded()
    other.check()
    worker.wait_ready()


async def test_history_that_is_nowhere(rig: Mirrored) -> None:
    """When neither Parquet nor the topic has a record, or the topic is not the one in Parquet, nothing is touched."""
    await asyncio.to_thread(rig.produce, 500)
    view = rig.project.views["by_shop"]
    await _expire(rig, view_topic(rig.name, view.log), {0: 5})
    with pytest.raises(TidemillError, match=r"the offline store ends at 0 and the topic begins at 5: neither has the records between"):
        await rebuilt(rig, "by_shop", 0)
    with pytest.raises(TidemillError, match="has no partition 2; its partitions are 0 to 1"):
        await rebuilt(rig, "by_shop", 2)
    assert [rig.store.get(fence_key(rig.name, view.log, p)) for p in range(2)] == [None, None]
    (done,) = await rebuilt(rig, "by_shop", 1)  # nothing in Parquet yet: all will come from the topic
    assert (done.rows, done.values) == (0, 0)
    rig.start()
    await asyncio.to_thread(rig.workers[0].wait_saying, "tidemill rebuild by_shop --partition 0")


async def test_rows_that_are_missing(rig: Mirrored, tmp_path: Path) -> None:
    """A table that lacks rows in the middle is named, and the partition is not served from it."""
    await asyncio.to_thread(rig.settle, 300)
    log = rig.project.views["by_card"].log
    name = view_folder(log)
    import deltalake

    rig.workers[1].process.kill()
    deltalake.DeltaTable(OfflineStore(rig.offline).uri(name)).delete("partition = 1 AND offset = 7")
    with pytest.raises(TornTable, match="rows of partition 1 from offset 0"):
        await rebuilt(rig, "by_card", 1)
    await asyncio.to_thread(rig.wait_folded)
    await asyncio.to_thread(rig.check)


def test_what_was_not_folded_yet_stays_feature_computations(rig: Mirrored) -> None:
    """Parquet may be further than feature computation was: a rebuild ends where that was, since only feature computation writes dead letters."""
    rig.settle(800)
    rig.workers[0].process.kill()
    rig.workers[0].process.wait()
    folded = rig.ends()
    rig.produce(400)
    rig.wait_mirrored()
    spoil(rig, "by_card")
    done = asyncio.run(rebuilt(rig, "by_card"))
    assert {item.partition: item.rows for item in done} == {partition: folded["by_card", partition] for partition in range(4)}
    log = rig.project.views["by_card"].log
    fences = {p: Fence.decode(rig.store.get(fence_key(rig.name, log, p))) for p in range(4)}  # type: ignore[arg-type]
    assert {p: fence.until for p, fence in fences.items()} == {p: rig.ends()["by_card", p] for p in range(4)}
    rig.worker()
    rig.wait_folded()
    rig.check()
