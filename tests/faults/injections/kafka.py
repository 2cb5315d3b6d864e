"""Faults of the log's server after which it is back with all it acknowledged."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.faults.injections.disks import filled
from tests.faults.injections.injection import Injection, Rig
from tests.faults.injections.workers import kill_now, pid_of

NAME = "kafka"
_ROWS, _INVARIANTS = ("19",), ("I1", "I2", "I4")


def _restarted(rig: Rig, _rng: random.Random) -> str:
    rig.stack.restart(NAME)
    return "kafka restarted"


def _killed(rig: Rig, _rng: random.Random) -> str:
    kill_now(rig, NAME)
    return "kafka killed"


def _paused(rig: Rig, rng: random.Random) -> str:
    seconds, pid = rng.uniform(2, 8), pid_of(rig, NAME)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    return f"kafka stopped for {seconds:.1f} s"


def away(seconds: float) -> Injection:
    """Down for so long: longer than any session, request or delivery time-out of its clients."""

    def strike(rig: Rig, _rng: random.Random) -> str:
        rig.stack.halt(NAME)
        try:
            time.sleep(seconds)
        finally:
            rig.stack.resume(NAME)
        return f"kafka down for {seconds:g} s"

    return Injection(f"kafka: down for {seconds:g} s", strike, (NAME,), _ROWS, _INVARIANTS, seconds=seconds + 4, soak=seconds > 15)


def away_at_start(name: str) -> Injection:
    """A service starts while Kafka is down: it waits, says so, and goes on when it comes."""

    def strike(rig: Rig, rng: random.Random) -> str:
        seconds = rng.uniform(3, 6)
        rig.stack.halt(name)
        rig.stack.halt(NAME)
        try:
            rig.stack.supervisor.start(name)
            time.sleep(seconds)
        finally:
            rig.stack.resume(NAME)
        return f"{name} started {seconds:.1f} s before kafka"

    return Injection(f"{name}: starts before kafka", strike, (name, NAME), ("20",), ("I2", "I6"), seconds=9)


def _disk_full(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(2, 5)
    with filled(rig.home / NAME):
        time.sleep(seconds)
    rig.stack.wait_ready(NAME)
    return f"kafka's disk full for {seconds:.1f} s"


RESTARTED = Injection("kafka: clean restart", _restarted, (NAME,), _ROWS, _INVARIANTS, seconds=5)
KILLED = Injection("kafka: kill -9", _killed, (NAME,), _ROWS, _INVARIANTS, seconds=0.5)
PAUSED = Injection("kafka: paused", _paused, (NAME,), _ROWS, _INVARIANTS, seconds=5)
DISK_FULL = Injection("kafka: disk full", _disk_full, (NAME,), ("23",), ("I1", "I2", "I4"), frozenset({"kafka disk"}), seconds=8)
