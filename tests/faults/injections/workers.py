"""Faults of service processes: killed anywhere, put to sleep, blocked, made to fail, doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.faults.injections import orders
from tests.faults.injections.hooked import SESSION_SECONDS, points
from tests.faults.injections.injection import Injection, Missed, Rig, until
from tests.faults.injections.orders import Order

from tidemill.local.processes import HOST
from tidemill.local.supervisor import child_command

POINT_SECONDS = 20.0  # for a process to come by a point; nearly always it takes a few
BEGINNING = {"before_load", "after_load"}
"""Points that a process may come by no more, once it has all that it needs."""
STEP_INVARIANTS = {
    "features": ("I1", "I2", "I3"),
    "offline": ("I2", "I4"),
    "predlog": ("I2", "I4", "I5"),
    "inference": ("I5",),
    "ingestion": ("I1", "I2"),
    "serving": ("I8",),
    "drift": ("I2",),
}


def pid_of(rig: Rig, name: str) -> int:
    """The pid of a process of the stack, once it has one: it may be about to be restarted."""
    until(lambda: rig.stack.pid(name) > 0, f"{name} runs")
    return rig.stack.pid(name)


def kill_now(rig: Rig, name: str) -> None:
    """Kill -9, and return when it is dead; the supervisor starts it again at once."""
    pid = pid_of(rig, name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: rig.stack.pid(name) != pid, f"{name} is dead")


def killed(name: str) -> Injection:
    """Kill -9 at any moment; back within a second or two, before its group has given it up."""

    def strike(rig: Rig, rng: random.Random) -> str:
        time.sleep(rng.uniform(0, 0.5))
        kill_now(rig, name)
        return f"{name} killed"

    rows = ("1", "6", "37") if name == "inference" else ("1", "6")
    return Injection(f"{name}: kill -9", strike, (name,), rows, STEP_INVARIANTS[name], seconds=0.5)


def away(name: str) -> Injection:
    """It dies without a word to its group, and comes back only after the session time-out."""

    def strike(rig: Rig, rng: random.Random) -> str:
        os.kill(pid_of(rig, name), signal.SIGSTOP)  # so that it cannot take leave when it is told to stop
        rig.stack.halt(name)  # killed after ten seconds
        seconds = rng.uniform(0, 2)
        time.sleep(seconds)
        rig.stack.resume(name)
        return f"{name} dead for {10 + seconds:.1f} s"

    return Injection(f"{name}: dead beyond the session time-out", strike, (name,), ("6",), STEP_INVARIANTS[name], seconds=13)


def restarted(name: str) -> Injection:
    """A restart in good order."""

    def strike(rig: Rig, _rng: random.Random) -> str:
        rig.stack.restart(name)
        return f"{name} restarted"

    return Injection(f"{name}: clean restart", strike, (name,), ("6",), STEP_INVARIANTS[name], seconds=4)


def paused(name: str, seconds: tuple[float, float] = (1.0, 2.0 * SESSION_SECONDS)) -> Injection:
    """SIGSTOP for a time around the session time-out, then SIGCONT: it goes on as a zombie whose partitions are somebody else's."""

    def strike(rig: Rig, rng: random.Random) -> str:
        held = rng.uniform(*seconds)
        pid = pid_of(rig, name)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(held)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return f"{name} stopped for {held:.1f} s"

    return Injection(f"{name}: paused", strike, (name,), ("3",), STEP_INVARIANTS[name], seconds=sum(seconds) / 2)


def obeyed(rig: Rig, name: str, order: Order, limit_seconds: float = POINT_SECONDS, may_come: Callable[[], bool] = lambda: True) -> None:
    """Give an order and return when it was carried out. Raises Missed when its point is not reached in time, or may not come any more."""
    orders.give(rig.orders, name, order)
    began = time.monotonic()
    with suppress(TimeoutError):
        until(lambda: not (orders.waiting(rig.orders, name) and may_come()), "the order is carried out", limit_seconds)
    if orders.withdraw(rig.orders, name):
        raise Missed(f"{name} did not reach {order.point} {order.count} times within {time.monotonic() - began:.0f} s")


def killed_at(service: str, point: str, *, name: str = "") -> Injection:
    """Kill -9 exactly there, at one of the next times it comes by. What it does only when it begins, it is made to do by another kill -9."""
    process = name or service

    def strike(rig: Rig, rng: random.Random) -> str:
        if point in BEGINNING:
            kill_now(rig, process)
        pid = pid_of(rig, process)
        order = Order(point, "kill", count=rng.randint(1, 3))
        obeyed(rig, process, order)
        until(lambda: rig.stack.pid(process) != pid, f"{process} is dead")
        return f"{process} killed at {point}, the {order.count}. time"

    return Injection(
        f"{process}: killed {point}", strike, (process,), ("2",), STEP_INVARIANTS[service], frozenset({"hooks"}), seconds=2.5
    )  # fmt: skip


def killed_within(service: str, step: str, *, longest_seconds: float = 0.05) -> Injection:
    """Kill -9 some milliseconds after a step began: in the middle of it."""

    def strike(rig: Rig, rng: random.Random) -> str:
        pid = pid_of(rig, service)
        order = Order(f"before_{step}", "kill", seconds=rng.uniform(0.0005, longest_seconds), count=rng.randint(1, 2))
        obeyed(rig, service, order)
        until(lambda: rig.stack.pid(service) != pid, f"{service} is dead")
        return f"{service} killed {1000 * order.seconds:.1f} ms after {step} began"

    return Injection(
        f"{service}: killed within {step}", strike, (service,), ("2", "32"), STEP_INVARIANTS[service], frozenset({"hooks"}),
        seconds=2.5,
    )  # fmt: skip


def all_points(service: str) -> list[Injection]:
    """One injection for each point of a service."""
    return [killed_at(service, point) for point in points(service)]


def raising(name: str = "features", point: str = "before_apply") -> Injection:
    """What nobody thought of goes wrong with the n-th batch: it must not count as done."""

    def strike(rig: Rig, rng: random.Random) -> str:
        order = Order(point, "raise", count=rng.randint(1, 5))
        obeyed(rig, name, order)
        return f"{name} failed at {point}, the {order.count}. time"

    return Injection(f"{name}: an unknown error {point}", strike, (name,), ("25",), STEP_INVARIANTS[name], frozenset({"hooks"}), seconds=2)


def blocked(name: str, point: str, seconds: float) -> Injection:
    """The event loop stands still, three times as long as the session time-out or so: its member is given up, and does not know."""

    def strike(rig: Rig, _rng: random.Random) -> str:
        obeyed(rig, name, Order(point, "sleep", seconds=seconds))
        time.sleep(seconds)
        return f"{name} blocked {point} for {seconds:g} s"

    invariants = (*STEP_INVARIANTS[name], "I6")
    return Injection(f"{name}: event loop blocked", strike, (name,), ("4",), invariants, frozenset({"hooks"}), seconds=seconds + 1)


def slowed(name: str, point: str, seconds: float = 0.05) -> Injection:
    """Every batch takes longer by so much, for a while: a backlog grows, memory must not, and it is worked off."""

    def strike(rig: Rig, rng: random.Random) -> str:
        batches = rng.randint(50, 150)
        orders.give(rig.orders, name, Order(point, "sleep", seconds=seconds, times=batches))
        time.sleep(batches * seconds)
        orders.withdraw(rig.orders, name)
        return f"{name} slowed by {1000 * seconds:g} ms at each {point} for {batches * seconds:.1f} s"

    invariants = (*STEP_INVARIANTS[name], "I7")
    return Injection(f"{name}: slow", strike, (name,), ("26",), invariants, frozenset({"hooks"}), seconds=100 * seconds)


@contextmanager
def another(rig: Rig, service: str, name: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """One more process of a service beside the stack's, ended with the context or with us. Its log lies with the others."""
    stack = rig.stack
    module = next(candidate.module for candidate in stack.services if candidate.name.startswith(service))
    addresses = {"KAFKA_BOOTSTRAP_SERVERS": stack.kafka, "REDIS_URL": stack.redis_url, "TIDEMILL_OFFLINE": stack.offline}
    ours = {"TIDEMILL_HOME": str(rig.home), "TIDEMILL_HOST": HOST, "TIDEMILL_PORT": "0", "TIDEMILL_PROJECT": stack.project or ""}
    with (rig.home / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            child_command(name, str(os.getpid()), [sys.executable, "-m", module]),
            env={**os.environ, **ours, **addresses, **stack.environment, "HOOKED_PROCESS": name, **environment},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _leave(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        process.wait(12)  # longer than a member has to leave


def join_storm(step_seconds: tuple[float, float] = (3.0, 5.0)) -> Injection:
    """Workers come and go, 1, 2, 3, 1: two join, one after the other, and leave, in good order or not."""

    def strike(rig: Rig, rng: random.Random) -> str:
        ways = [rng.choice([signal.SIGTERM, signal.SIGKILL]) for _ in range(2)]
        with ExitStack() as extras:
            workers = []
            for number in range(2):
                workers.append(extras.enter_context(another(rig, "features", f"features-extra{number}")))
                time.sleep(rng.uniform(*step_seconds))
            for worker, way in zip(workers, ways, strict=True):
                _leave(worker, way)
        return f"two workers joined, and left by {ways[0].name} and {ways[1].name}"

    return Injection("features: join and leave storm", strike, ("features",), ("5",), ("I1", "I2"), seconds=3 * sum(step_seconds) / 2)


def twins(seconds: tuple[float, float] = (4.0, 8.0)) -> Injection:
    """A second worker that owns every partition, whoever else does: only the fence stands between them."""

    def strike(rig: Rig, rng: random.Random) -> str:
        held = rng.uniform(*seconds)
        with another(rig, "features", "features-twin", HOOKED_GROUP=f"twin-{rng.randrange(10**9)}"):
            time.sleep(held)
        return f"a second worker on all partitions for {held:.1f} s"

    return Injection(
        "features: two workers on the same partitions", strike, ("features",), ("7",), ("I1", "I3"), frozenset({"hooks"}), sum(seconds) / 2
    )  # fmt: skip
