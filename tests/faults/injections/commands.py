"""Faults of what an operator runs while all goes on: `tidemill apply`, `load` and `prune`, and of whoever follows the change.

A strike asks for a command (`orders.want`), and the operator of the run begins it: edits the project, runs the command, and runs it again until it
ends well, however often it was killed. Strikes at once share one change.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

from tests.faults.injections import kafka, links, orders, valkey
from tests.faults.injections.ground import HOOKED
from tests.faults.injections.hooked import following, points
from tests.faults.injections.injection import Injection, Missed, Rig, until
from tests.faults.injections.orders import Order
from tests.faults.injections.workers import STEP_INVARIANTS, kill_now, obeyed, pid_of

from tidemill.local.processes import HOST
from tidemill.local.supervisor import child_command

COMMAND_SECONDS = 300.0
"""For a command to come by a point, at most: it is over earlier when the commands that were asked for ended well without it."""
TWIN_SECONDS = 100.0
_SECONDS = 10.0
_FILLING = ("before_begin", "after_begin", "before_archive", "after_wave", "before_live", "after_live")
_HANDING_OVER = ("after_fill", "within record", "before_wait")
_IN_FORCE = ("after_wait", "before_finish", "after_finish")
_DELETING = tuple(point for point in points("prune") if not point.endswith("record"))
"""Only versions that are in the catalogue need a record; logs of broken fills do not."""
_LONGEST_SECONDS = {"apply": 12.0, "load": 6.0, "prune": 16.0}
_NEEDS = frozenset({"hooks", "operator"})


def argv(process: str, *arguments: str) -> list[str]:
    """What runs a command under our orders; it ends with us."""
    return child_command(process, str(os.getpid()), [sys.executable, "-m", HOOKED, *arguments])


def environment(rig: Rig, process: str) -> Mapping[str, str]:
    """In which a command finds the running system."""
    stack = rig.stack
    addresses = {"KAFKA_BOOTSTRAP_SERVERS": stack.kafka, "REDIS_URL": stack.redis_url, "TIDEMILL_OFFLINE": stack.offline}
    ours = {"TIDEMILL_HOME": str(rig.home), "TIDEMILL_HOST": HOST, "TIDEMILL_PROJECT": stack.project or "", "COLUMNS": "300"}
    return {**os.environ, **ours, **addresses, **stack.environment, "HOOKED_PROCESS": process}


def _order(command: str, place: str, rng: random.Random) -> Order:
    """To die at a point; `start`: some seconds after the start; `within record`: while a record of the catalogue is under way."""
    if place == "start":
        return Order("start", "kill", seconds=rng.uniform(0.5, _LONGEST_SECONDS[command]))
    if place == "within record":
        return Order("before_record", "kill", seconds=rng.uniform(0.001, 0.3), count=2)
    return Order(place, "kill", count=rng.randint(1, 3) if place.endswith(("wave", "portion")) else 1)


def _obeyed(rig: Rig, command: str, order: Order, process: str | None = None) -> None:
    """`obeyed` while a command that was asked for is under way. `process`: who gets the order, if not the command itself. Raises Missed."""
    obeyed(rig, process or command, order, COMMAND_SECONDS, lambda: orders.to_come(rig.orders, command))


def killed(command: str, name: str, *turns: tuple[str, ...]) -> Injection:
    """Kill -9 at one of the first points, by chance; run again, at one of the next ones; and so on. A run that was killed at its very end leaves
    nothing for the next one to do."""

    def strike(rig: Rig, rng: random.Random) -> str:
        orders.want(rig.orders, command)
        said = list[str]()
        for places in turns:
            place = rng.choice(places)
            try:
                _obeyed(rig, command, _order(command, place, rng))
            except Missed:
                if not said:
                    raise
                break
            said.append(place)
        return f"{command} killed at {', then at '.join(said)}"

    return Injection(f"{command}: {name}", strike, (command,), ("40",), ("I2",), _NEEDS, _SECONDS)


def killed_at(command: str, place: str) -> Injection:
    """Kill -9 exactly there."""
    return killed(command, "kill -9" if place == "start" else f"killed {place}", (place,))


def _twice(rig: Rig, rng: random.Random) -> str:
    """While one stands still, another is run to its end; then the first one goes on with what is not its own any more."""
    place = rng.choice(("before_begin", "after_begin", "after_wave", "before_live", "after_fill", "before_wait"))
    orders.want(rig.orders, "apply")
    _obeyed(rig, "apply", Order(place, "sleep", seconds=rng.uniform(2, 8)))
    with (rig.home / "logs" / "apply2.log").open("ab") as log:
        other = subprocess.Popen(argv("apply2", "apply", "--yes"), env=environment(rig, "apply2"), stdout=log, stderr=log)
    try:
        how = f"ended with {other.wait(TWIN_SECONDS)}"
    except subprocess.TimeoutExpired:
        how = "was killed in the end"
    finally:
        other.kill()
        other.wait()
    return f"apply stood still at {place} while another one ran, which {how}"


TWICE = Injection("apply: two at once", _twice, ("apply",), ("41",), ("I2",), _NEEDS, _SECONDS)


def followed(service: str) -> Injection:
    """Kill -9 of a service when it takes over a record of the catalogue, or while it begins anew by it."""

    def strike(rig: Rig, rng: random.Random) -> str:
        pid, point = pid_of(rig, service), rng.choice(("before_follow", "after_follow", "after_follow"))
        order = Order(point, "kill", seconds=rng.choice((0.0, rng.uniform(0, 2))), count=rng.randint(1, 2))
        orders.want(rig.orders, "apply")
        _obeyed(rig, "apply", order, following(service))
        until(lambda: rig.stack.pid(service) != pid, f"{service} is dead")
        return f"{service} killed {1000 * order.seconds:.0f} ms {point}, the {order.count}. time"

    return Injection(f"{service}: killed while it follows", strike, (service,), ("42",), STEP_INVARIANTS[service], _NEEDS, _SECONDS)


def _servers_killed(rig: Rig, rng: random.Random) -> str:
    orders.want(rig.orders, "apply")
    place = rng.choice(("before_archive", "after_wave", "before_live"))
    _obeyed(rig, "apply", Order(place, "sleep", seconds=0.2))
    kill_now(rig, kafka.NAME)
    _obeyed(rig, "apply", Order("before_wait", "sleep", seconds=0.2))
    kill_now(rig, valkey.NAME)
    return f"kafka killed at {place}, valkey before the stores were waited for"


SERVERS_KILLED = Injection(
    "apply: kafka killed while it fills, valkey while it waits", _servers_killed, ("apply", "kafka", "valkey"), ("43",), ("I1", "I2"), _NEEDS, _SECONDS
)  # fmt: skip


def while_it_is_at(places: tuple[str, ...], fault: Injection) -> Injection:
    """A fault of a server while a version is filled or waited for."""

    def strike(rig: Rig, rng: random.Random) -> str:
        place = rng.choice(places)
        orders.want(rig.orders, "apply")
        _obeyed(rig, "apply", Order(place, "sleep", seconds=0.2))
        return f"at {place} of apply: {fault.strike(rig, rng)}"

    targets, needs = (*fault.targets, "apply"), fault.needs | _NEEDS
    return Injection(f"apply: {fault.name}", strike, targets, ("43",), fault.invariants, needs, _SECONDS + fault.seconds, fault.rewinds)


_PHASES = (
    killed("apply", "killed while it fills, hands over, puts in force", ("start", *_FILLING), _HANDING_OVER, _IN_FORCE),
    killed("load", "killed", ("start", *points("load"))),
    killed("prune", "killed", ("start", *_DELETING)),
    TWICE,
    SERVERS_KILLED,
    *(followed(service) for service in ("ingestion", "features", "offline", "serving", "inference")),
)
_POINTS = (
    *(killed_at("apply", place) for place in ("start", *points("apply"), "within record")),
    *(killed_at(command, place) for command in ("load", "prune") for place in ("start", *points(command))),
    *(
        while_it_is_at((*_FILLING, "after_fill", "before_wait"), fault)
        for fault in (kafka.away(10), kafka.PAUSED, links.cut("kafka"), links.half_open("kafka"), links.replies_lost("kafka"))
    ),
    *(while_it_is_at(("before_wait",), fault) for fault in (valkey.PAUSED, links.cut("valkey"), valkey.CUT)),
)
COMMANDS: tuple[Injection, ...] = (*_PHASES, *(replace(kind, soak=True) for kind in _POINTS))
"""The named points one by one are for the soak: each strike costs a change, and all that a change costs."""
