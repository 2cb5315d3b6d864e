"""Comparing a partition by a sample: it finds what differs as soon as the entity has its turn, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.demo_state import demo
from tests.proof.conftest import ZONES, Online

from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.proof.audit import audit, counterexample
from tidemill.proof.partition_audit import AuditReport, PartitionAudit
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
PARTITION = partition_of(b"zone7", ZONES.partitions)
MOST_ROWS = 40


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """Return a link to the store."""
    async with RedisLink(redis_url, timeout_seconds=10) as made:
        yield made


@pytest.fixture
def auditor(online: Online, link: RedisLink) -> PartitionAudit:
    """Return the audit of one partition."""
    return PartitionAudit(online.world.project.name, ZONES, PARTITION, online.world.store, link, wait_seconds=5)


async def rounds(auditor: PartitionAudit, count: int) -> list[AuditReport]:
    """The reports of some rounds, one after the other."""
    reports = []
    for _ in range(count):
        report = AuditReport()
        await auditor.sample(report, MOST_ROWS)
        reports.append(report)
    return reports


async def test_a_healthy_store(auditor: PartitionAudit, online: Online) -> None:
    """In every partition, with records sent twice, duplicates and late ones in it, round after round: nothing differs, every entity has its turn."""
    reports = await rounds(auditor, 12)
    assert sum(report.mismatched for report in reports) == 0
    entities = len(online.world.fold(ZONES, PARTITION)[1])
    assert sum(report.checked - 1 for report in reports) > entities
    assert all(report.checked < entities for report in reports)


@pytest.mark.parametrize("fate", ["altered", "deleted"])
async def test_what_was_done_by_hand(auditor: PartitionAudit, online: Online, fate: str) -> None:
    """A tile with another number and a valid checksum, or no value at all, is found by the time everybody had a turn."""
    if fate == "altered":
        online.alter(ZONES, PARTITION, b"zone7")
    else:
        online.client.delete(online.key(ZONES, PARTITION, b"zone7"))
    found = [item for report in await rounds(auditor, 12) for item in report.examples]
    assert {item.entity for item in found} == {"zone7"}
    example = auditor.counterexample(found[0], last=3)
    assert len(example.steps) == 3
    assert not any(step.stored for step in example.steps)
    if fate == "altered":
        (difference,) = example.differences
        assert difference.stored == difference.expected + 1.0
        assert difference.tile_ms is not None
    else:
        assert example.differences[0].stored is None


async def test_those_that_differed_before_are_looked_at_each_time(auditor: PartitionAudit, online: Online) -> None:
    """An entity that is asked for is compared besides the drawn ones, until it is right again."""
    online.alter(ZONES, PARTITION, b"zone7")
    for mended in (False, True):
        if mended:
            online.apply()
        report = AuditReport()
        rows = await auditor.sample(report, 1, ["zone7"])
        assert [item.entity for item in report.examples] == ([] if mended else ["zone7"])
        assert rows


async def test_fences(auditor: PartitionAudit, online: Online) -> None:
    """A fence that says otherwise is found at once, one of a partition that is being rebuilt or has not begun is left out."""
    key = online.fence(ZONES, PARTITION)
    fence = Fence.decode(online.client.get(key))  # type: ignore[arg-type]
    for changed, mismatched, left_out in (
        (msgspec.structs.replace(fence, resent=99).encode(), True, 0),
        (msgspec.structs.replace(fence, definition="other").encode(), True, 0),
        (b"nonsense", True, 0),
        (msgspec.structs.replace(fence, until=fence.next + 1).encode(), False, 0),
        (msgspec.structs.replace(fence, builder="b").encode(), False, 1),
    ):
        online.client.set(key, changed)
        (report,) = await rounds(auditor, 1)
        assert (bool(report.mismatched), report.left_out) == (mismatched, left_out)
    online.client.delete(key)
    assert (await rounds(auditor, 1))[0] == AuditReport(left_out=1)
    assert auditor.rows() == fence.next


async def test_on_demand_it_is_whole(online: Online, link: RedisLink) -> None:
    """The audit of everything agrees, and gives the counter-example with all its rows."""
    online.alter(ZONES, PARTITION, b"zone7")
    report = await audit(online.world.project, online.world.store, link)
    (found,) = report.examples
    example = counterexample(online.world.project, online.world.store, link, found, None)
    assert (example.view, example.entity, len(example.steps)) == ("zones", "zone7", example.rows)
    assert {step.fate for step in example.steps} >= {"folded"}
    assert demo().views["zones"].log == ZONES.log
