"""A fail-over to a replica that lags: what the primary acknowledged last is lost."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from redis import Redis, RedisError
from tests.faults.injections.injection import Injection, Missed, Rig, until
from tests.faults.injections.proxy import HOST, Proxy
from tests.faults.injections.valkey import NAME, client, wait_written
from tests.faults.injections.workers import kill_now

from tidemill.local import valkey
from tidemill.local.processes import is_free
from tidemill.local.supervisor import child_command

_PORTS = range(32_001, 32_700)


@dataclass(frozen=True)
class _Replica:
    port: int
    store: Redis


@contextmanager
def _replica(rig: Rig) -> Iterator[_Replica]:
    """Another server, in a folder of its own, that nobody replicates to yet."""
    port = next(port for port in _PORTS if is_free(port))
    with tempfile.TemporaryDirectory(prefix="replica") as folder, (rig.home / "logs" / "replica.log").open("ab") as log:
        command = child_command("replica", str(os.getpid()), valkey.command(port))
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "TIDEMILL_HOME": str(rig.home)}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            with Redis(HOST, port, socket_timeout=10) as store:
                until(lambda: _answers(store), "the replica answers")
                store.config_set("repl-diskless-sync-delay", 0)
                yield _Replica(port, store)
        finally:
            process.kill()
            process.wait()


def _answers(store: Redis) -> bool:
    with suppress(RedisError):
        return bool(store.ping())
    return False


def _follow(store: Redis, host: str, port: int) -> None:
    """Make it a replica, and return when it has everything."""
    store.replicaof(host, port)
    until(lambda: store.info("replication").get("master_link_status") == "up", "the replica is linked")


def _port_of(rig: Rig) -> int:
    return int(rig.stack.redis_url.rpartition(":")[2].partition("/")[0])


def _strike(rig: Rig, rng: random.Random) -> str:
    lag_bytes = rng.choice([1_000, 10_000, 100_000])
    with _replica(rig) as replica, Proxy() as link, client(rig) as primary:
        primary.config_set("repl-diskless-sync-delay", 0)
        link.lead_to(HOST, _port_of(rig))
        _follow(replica.store, HOST, link.port)
        link.silence()  # the primary believes that it replicates
        if not wait_written(rig, lag_bytes, limit_seconds=5):  # else it is missed
            raise Missed(f"fewer than {lag_bytes} bytes were written meanwhile")
        rig.redis.refuse()
        kill_now(rig, NAME)
        lost = _promote(replica, link)
        rig.redis.lead_to(HOST, replica.port)
        rig.redis.refuse(False)
        _hand_back(rig, replica)
    return f"fail-over to a replica that lacked {lag_bytes} bytes or more; its state lacks nothing below offset {lost}"


def _promote(replica: _Replica, link: Proxy) -> int:
    link.refuse()
    link.silence(False)
    replica.store.replicaof("NO", "ONE")
    return int(replica.store.info("replication")["master_repl_offset"])


def _hand_back(rig: Rig, replica: _Replica) -> None:
    """The old primary takes the new one's state, lost writes and all, and then its place; nothing is lost this time."""
    rig.stack.wait_ready(NAME)
    with Redis(HOST, _port_of(rig), socket_timeout=10) as old:
        _follow(old, HOST, replica.port)
        rig.redis.refuse()
        written = replica.store.info("replication")["master_repl_offset"]
        until(lambda: old.info("replication")["master_repl_offset"] >= written, "the old primary has all")
        old.replicaof("NO", "ONE")
    rig.redis.lead_to(HOST, _port_of(rig))
    rig.redis.refuse(False)


FAILED_OVER = Injection(
    "valkey: fail-over to a lagging replica", _strike, (NAME,), ("16",), ("I1", "I3"), frozenset({"redis proxy"}), seconds=6, rewinds=True
)  # fmt: skip
