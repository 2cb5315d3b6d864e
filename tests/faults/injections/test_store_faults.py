"""Each fault of the online store against a real Valkey and a writer with a fence: it does what it says, and leaves the store whole."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.injections import failover, links, valkey
from tests.faults.injections.disks import cannot_mount
from tests.faults.injections.ground import Ground, ground
from tests.faults.injections.injection import Injection, Missed, until
from tests.faults.injections.ledger import Ledger, numbers

pytestmark = pytest.mark.integration
FAULTS = (
    valkey.KILLED, valkey.PAUSED, valkey.EMPTIED, valkey.CUT, valkey.OUT_OF_MEMORY, valkey.BUSY, failover.FAILED_OVER,
    valkey.full_disk("everysec"), valkey.full_disk("always"),
    links.cut("valkey"), links.half_open("valkey", (1.5, 2.5)), links.replies_lost("valkey"),
    links.slow("valkey", "200 ms late", latency_seconds=0.2, seconds=1.5), links.slow("valkey", "1 kB/s", bytes_per_second=1000, seconds=1.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A Valkey behind a proxy, on a small disk where one can be had."""
    home = tmp_path_factory.mktemp("store")
    disks = {} if cannot_mount(home / "probe") else {"valkey": 64}
    with ground(home, Path(), services=(), servers=("valkey",), megabytes=disks) as made:
        yield made


@pytest.fixture
def fresh(rig: Ground) -> Ground:
    """The same with nothing in it."""
    with rig.store() as store:
        store.flushall()
    return rig


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_writers_go_on_from_the_fence(fresh: Ground, fault: Injection) -> None:
    """Writing goes on by itself after every fault; the store goes back only by those that say so, and is never torn."""
    if "valkey disk" in fault.needs and (reason := cannot_mount(fresh.home / "probe")):
        pytest.skip(reason)
    with Ledger(fresh.redis_url) as ledger:
        said = fault.strike(fresh, random.Random(fault.name))
        ledger.wait_for(20)
    with fresh.store() as store:
        assert numbers(store) == {ledger.acknowledged}, said
    assert (ledger.rewinds > 0) is fault.rewinds, said


@pytest.mark.parametrize("fault", [valkey.CUT, failover.FAILED_OVER], ids=lambda fault: fault.name)
def test_acknowledged_writes_are_really_lost(fresh: Ground, fault: Injection) -> None:
    """The store comes back whole and older than what it had acknowledged: by at least one batch, and not empty."""
    with Ledger(fresh.redis_url) as ledger:
        ledger.wait_for(300)
        if fault is valkey.CUT:  # the writer is gone: nothing is written over what is lost
            ledger.__exit__(None, None, None)
        fault.strike(fresh, random.Random(5))
        if fault is failover.FAILED_OVER:
            until(lambda: ledger.rewinds > 0, "the writer is told")
    with fresh.store() as store:
        (found,) = numbers(store)
    assert found > 0
    if fault is valkey.CUT:
        assert found < ledger.acknowledged


@pytest.mark.parametrize("cut", [1, 30, 200, 1000])
def test_cut_inside_the_last_batches(fresh: Ground, cut: int) -> None:
    """However many bytes of the last batch are missing, the whole batch is gone and the one before is whole."""
    with Ledger(fresh.redis_url) as ledger:
        pass
    fresh.stack.halt("valkey")
    path = valkey.newest_log(fresh)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - cut)
    fresh.stack.resume("valkey")
    with fresh.store() as store:
        (found,) = numbers(store)
    assert 0 < found < ledger.acknowledged


def test_the_fail_over_hands_back(fresh: Ground) -> None:
    """Afterwards the stack's own server is the primary again, and the address of the services leads to it."""
    with Ledger(fresh.redis_url):
        failover.FAILED_OVER.strike(fresh, random.Random(1))
    with fresh.store() as store:
        assert store.info("replication")["role"] == "master"
        assert store.info("server")["tcp_port"] == int(fresh.stack.redis_url.rpartition(":")[2].partition("/")[0])


def test_nothing_to_strike(fresh: Ground) -> None:
    """Without writes there are no replies to lose and nothing for a replica to lack."""
    with pytest.raises(Missed, match="nothing was written"):
        links.replies_lost("valkey", patience_seconds=0.2).strike(fresh, random.Random(1))
    fresh.stack.halt("valkey")
    empty = valkey.newest_log(fresh)
    empty.write_bytes(b"")
    with pytest.raises(Missed, match="is empty"):
        valkey.cut_tail(empty, 0.5)
    fresh.stack.resume("valkey")
