"""Faults of the online store: killed, held, emptied, robbed of its newest writes, full. After each the fence says how far it really is."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from redis import Redis, RedisError
from tests.faults.injections.disks import filled
from tests.faults.injections.injection import Injection, Missed, Rig, until
from tests.faults.injections.workers import another, kill_now, pid_of

NAME = "valkey"


def client(rig: Rig) -> Redis:
    """A client of the primary, as the services see it."""
    return Redis.from_url(f"redis://{rig.redis.address}/0", socket_timeout=10)


def newest_log(rig: Rig) -> Path:
    """The append-only file that is written now."""
    files = (rig.home / NAME / "appendonlydir").glob("*.incr.aof")
    return max(files, key=lambda path: int(path.name.split(".")[-3]))


def cut_tail(path: Path, share: float) -> int:
    """Cut this share off the end of a file, a byte at least. Returns how many bytes. Raises Missed when there is none."""
    size = path.stat().st_size
    if not size:
        raise Missed(f"{path.name} is empty")
    cut = max(1, int(size * share))
    os.truncate(path, size - cut)
    return cut


def _killed(rig: Rig, rng: random.Random) -> str:
    time.sleep(rng.uniform(0, 0.5))
    kill_now(rig, NAME)
    return "valkey killed"


def _paused(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(1, 6)
    hold(rig, seconds)
    return f"valkey stopped for {seconds:.1f} s"


def hold(rig: Rig, seconds: float) -> None:
    """SIGSTOP it for a while."""
    pid = pid_of(rig, NAME)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _emptied(rig: Rig, _rng: random.Random) -> str:
    with client(rig) as store:
        keys = store.dbsize()
        store.flushall()
    return f"{keys} keys flushed"


def _cut(rig: Rig, rng: random.Random) -> str:
    share = math.exp(rng.uniform(math.log(0.001), math.log(0.5)))
    rig.stack.halt(NAME)
    try:
        path = newest_log(rig)
        cut = cut_tail(path, share)
    finally:
        rig.stack.resume(NAME)
    return f"{cut} bytes ({100 * share:.1f} %) cut off the append-only file"


def _out_of_memory(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(1, 4)
    with client(rig) as store:
        store.config_set("maxmemory", 1)  # below what it has: every write is refused
        try:
            time.sleep(seconds)
        finally:
            store.config_set("maxmemory", 0)
    return f"no memory for {seconds:.1f} s"


def _busy(rig: Rig, rng: random.Random) -> str:
    seconds = rng.uniform(1, 4)
    with client(rig) as store:
        threshold = store.config_get("busy-reply-threshold")["busy-reply-threshold"]
        store.config_set("busy-reply-threshold", 200)
        looping = threading.Thread(target=_loop, args=(rig,))
        looping.start()
        try:
            time.sleep(seconds)
            store.script_kill()
        finally:
            looping.join()
            store.config_set("busy-reply-threshold", threshold)
    return f"a script kept it busy for {seconds:.1f} s"


def _loop(rig: Rig) -> None:
    with client(rig) as store, suppress(RedisError):
        store.eval("#!lua flags=no-writes\nwhile true do end", 0)


def full_disk(appendfsync: str) -> Injection:
    """No space for its log. With `everysec` it refuses writes until there is room, with `always` it ends, again and again.

    Then its log is written anew, as its operator has to: Valkey 9.1 takes a half-written entry back by truncating the file, but since its last
    rewrite the file is not open for appending, and the next entry leaves a hole of zeros with which it does not start again.
    """

    def strike(rig: Rig, rng: random.Random) -> str:
        seconds = rng.uniform(2, 4)
        with client(rig) as store:
            store.config_set("appendfsync", appendfsync)
        with filled(rig.home / NAME):
            time.sleep(seconds)
        rig.stack.wait_ready(NAME)
        with client(rig) as store:
            store.config_set("appendfsync", "everysec")
            rewrite_log(store)
        return f"disk full for {seconds:.1f} s under appendfsync {appendfsync}"

    return Injection(
        f"valkey: disk full, appendfsync {appendfsync}", strike, (NAME,), ("13",), ("I1", "I2"), frozenset({"redis proxy", "valkey disk"}), 6
    )  # fmt: skip


def rewrite_log(store: Redis) -> None:
    """Write the append-only file anew from what is in memory, and return when it is done."""
    until(lambda: not _rewriting(store), "no rewrite of the log is under way")
    store.bgrewriteaof()
    until(lambda: not _rewriting(store) and store.info("persistence")["aof_last_bgrewrite_status"] == "ok", "the log is written anew")


def _rewriting(store: Redis) -> bool:
    info = store.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def away_while_joining(seconds: float) -> Injection:
    """Held while a worker joins: the group must not wait for the store."""

    def strike(rig: Rig, _rng: random.Random) -> str:
        with another(rig, "features", "features-joining"):
            time.sleep(1)
            hold(rig, seconds)
            time.sleep(3)
        return f"valkey stopped for {seconds:g} s while a worker joined"

    return Injection(
        f"valkey: away for {seconds:g} s while a worker joins", strike, (NAME, "features"), ("24b",), ("I1", "I2"), seconds=seconds + 4,
        soak=seconds > 15,
    )  # fmt: skip


_PROXY = frozenset({"redis proxy"})
KILLED = Injection("valkey: kill -9", _killed, (NAME,), ("8",), ("I1", "I2", "I3"), seconds=0.5)
PAUSED = Injection("valkey: paused", _paused, (NAME,), ("15",), ("I1", "I2"), seconds=3.5)
EMPTIED = Injection("valkey: emptied", _emptied, (), ("11",), ("I1", "I2"), _PROXY, seconds=0.1, rewinds=True)  # alone: all is folded again
CUT = Injection("valkey: tail of its log cut off", _cut, (NAME,), ("9",), ("I1", "I3"), seconds=1, rewinds=True)
OUT_OF_MEMORY = Injection("valkey: out of memory", _out_of_memory, (NAME,), ("14",), ("I1",), _PROXY, seconds=2.5)
BUSY = Injection("valkey: busy with a script", _busy, (NAME,), ("15",), ("I1", "I2"), _PROXY, seconds=2.5)


def wait_written(rig: Rig, bytes_more: int, limit_seconds: float) -> bool:
    """Return once the primary has replicated so much more; False when it did not in time."""
    with client(rig) as store:
        start = store.info("replication")["master_repl_offset"]
        try:
            until(lambda: store.info("replication")["master_repl_offset"] - start >= bytes_more, "writes", limit_seconds)
        except TimeoutError:
            return False
    return True
