"""Faults of the offline store: its writer doubled, its newest commit torn, its disk full, others at work in the same tables."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.injections.disks import filled
from tests.faults.injections.injection import Injection, Missed, Rig
from tests.faults.injections.workers import another

from tidemill.offline.torn import flaw_of, torn_commit

NAME = "offline"
_INVARIANTS = ("I2", "I4")
_NOT_ITS_OWN = ("predictions", "results")  # tables that prediction logging writes


def tables(rig: Rig) -> list[Path]:
    """The folders of the tables that the offline writer keeps."""
    root = Path(rig.stack.offline)
    found = sorted(path.parent for path in root.glob("**/_delta_log") if path.parent.name not in _NOT_ITS_OWN)
    if not found:
        raise Missed("there is no table yet")
    return found


def commits(table: Path) -> list[Path]:
    """The commits of a table that are still files of their own, the newest last."""
    return sorted(path for path in (table / "_delta_log").glob("*.json") if path.stem.isdigit())


def tear(commit: Path, rng: random.Random) -> str:
    """Leave a commit as a power cut does: cut short, empty, or with a blank end. Returns which. Raises Missed when a checkpoint covers it."""
    whole = commit.read_bytes()
    kept, how = rng.randrange(len(whole)), rng.choice(["cut short", "empty", "blank at its end"])
    torn = {"cut short": whole[:kept], "empty": b"", "blank at its end": whole[:kept] + bytes(len(whole) - kept)}[how]
    commit.write_bytes(torn)
    if flaw_of(torn) is None or torn_commit(str(commit.parent.parent)) is None:
        commit.write_bytes(whole)
        raise Missed("the newest commit cannot be torn so that it shows")
    return how


def _torn(rig: Rig, rng: random.Random) -> str:
    rig.stack.halt(NAME)
    try:
        table = rng.choice(tables(rig))
        how = tear(commits(table)[-1], rng)
    finally:
        rig.stack.resume(NAME)
    return f"the newest commit of {table.name} {how}"


def _doubled(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(5, 8)
    with another(rig, NAME, "offline-twin"):
        time.sleep(seconds)
    return f"two writers for {seconds:.1f} s"


def _disk_full(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(3, 6)
    with filled(Path(rig.stack.offline)):
        time.sleep(seconds)
    return f"the offline store's disk full for {seconds:.1f} s"


def _maintained(rig: Rig, rng: random.Random) -> str:
    """A stranger compacts and checkpoints the tables as fast as it can, and is killed in the middle of it, several times."""
    kills = rng.randint(3, 6)
    command = [sys.executable, "-m", "tests.faults.injections.maintenance", *map(str, tables(rig))]
    for _ in range(kills):
        worker = subprocess.Popen(command, env={**os.environ, **rig.stack.environment}, stdout=subprocess.PIPE)
        try:
            assert worker.stdout
            worker.stdout.readline()  # it has begun
            time.sleep(rng.uniform(0.05, 1.0))
        finally:
            worker.kill()
            worker.communicate()
    return f"compaction and checkpoints beside the writer, killed {kills} times"


TORN = Injection("offline: newest commit torn", _torn, (NAME,), ("34",), _INVARIANTS, seconds=3)
DOUBLED = Injection("offline: two writers", _doubled, (NAME,), ("33",), _INVARIANTS, seconds=7)
DISK_FULL = Injection("offline: disk full", _disk_full, (NAME, "predlog"), ("35",), _INVARIANTS, frozenset({"offline disk"}), seconds=5)
MAINTAINED = Injection("offline: compaction beside the writer, killed", _maintained, (NAME,), ("32", "36"), _INVARIANTS, seconds=5)
