"""Workers that die, sleep, double and come back: after each the store equals the offline fold of the log, byte for byte."""

import random
import signal
import time

import pytest
from tests.faults.injections.hooked import points
from tests.faults.injections.orders import Order, give
from tests.features.rig import Rig

pytestmark = pytest.mark.integration
NEAREST = ("before_apply", "after_apply")  # to what is stored; the fault matrix strikes at every point


def test_one_worker_folds_everything(rig: Rig) -> None:
    """A worker folds a backlog and what comes later, and counts duplicates, repetitions, late events and poison."""
    rig.produce(10_000)
    worker = rig.worker()
    rig.wait_folded()
    rig.produce(200)
    rig.wait_folded()
    rig.check()
    for skipped in ("duplicate", "resent", "late", "poison"):
        assert worker.metric(f"tidemill_features_events_{skipped}_total") > 0
    worker.wait_ready()
    worker.send(signal.SIGTERM)
    assert worker.wait_ended() == 0


@pytest.mark.parametrize("point", [pytest.param(point, marks=() if point in NEAREST else pytest.mark.soak) for point in points("features")])
def test_killed_at_a_point(rig: Rig, point: str) -> None:
    """Killed around each call to the store and in between, the next worker goes on without a loss or a double."""
    rig.produce(6_000)
    orders = rig.folder / "orders"
    give(orders, "features", Order(point, "kill", count=1 if "fences" in point else 3))
    crashing = rig.worker("tests.faults.injections.hooked", HOOKED_PROCESS="features", HOOKED_ORDERS=str(orders))
    assert crashing.wait_ended() == -signal.SIGKILL
    rig.worker()
    rig.wait_folded()
    rig.check()


def test_committed_offsets_are_not_believed(rig: Rig) -> None:
    """What the consumer group committed to Kafka has no influence on where a worker begins."""
    rig.produce(2_000)
    first = rig.worker()
    rig.wait_folded()
    first.send(signal.SIGTERM)
    assert first.wait_ended() == 0
    forgotten = rig.stored()
    assert len(forgotten) > 6  # six fences, and entities
    rig.store.delete(*forgotten)
    rig.produce(1_000)
    rig.worker()
    rig.wait_folded()
    rig.check()


@pytest.mark.soak
def test_zombie(rig: Rig) -> None:
    """A worker that is stopped until another has taken its partitions, and then goes on, changes nothing it should not."""
    rig.produce(3_000)
    first, second = rig.worker(), rig.worker()
    first.wait_ready()
    second.wait_ready()
    for round_ in range(2):
        sleeper = (first, second)[round_]
        rig.produce(3_000)
        sleeper.send(signal.SIGSTOP)
        rig.produce(3_000)
        rig.wait_folded()
        sleeper.send(signal.SIGCONT)
        rig.produce(1_000)
        rig.wait_folded()
        sleeper.wait_ready()
    rig.check()
    assert first.process.poll() is None
    assert second.process.poll() is None


@pytest.mark.soak
def test_random_kills(rig: Rig) -> None:
    """Two workers, killed, stopped and started at random while events flow."""
    draw = random.Random(7)
    rig.produce(2_000)
    workers = [rig.worker(), rig.worker()]
    for _ in range(8):
        i = draw.randrange(2)
        rig.produce(2_000)
        time.sleep(draw.random())
        workers[i].send(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        rig.produce(500)
        workers[i].wait_ended()
        workers[i] = rig.worker()
    rig.wait_folded()
    rig.check()
