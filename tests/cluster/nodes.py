"""A real Redis Cluster on loopback: three Valkey primaries and a replica of each, told what to do by plain commands."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.frozen import freeze
from tests.patience import PATIENCE_SECONDS

from tidemill.local import valkey
from tidemill.local.processes import HOST, free_port
from tidemill.redis.cluster import SLOTS, layout_of

# Fail-over happens when a test says so. A node that is away takes nothing with it but its own slots.
_OPTIONS = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "5000",
            "--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes", "--repl-diskless-sync-delay", "0",
            "--loglevel", "notice"]  # fmt: skip


class Node:
    """One server of a cluster and a client of it alone."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir()
        self.folder, self.options = folder, options
        taken: set[int] = set()
        self.port = free_port(taken)
        self.bus_port = free_port(taken)
        self.client = redis.Redis(HOST, self.port, socket_timeout=10, protocol=2, retry=Retry(NoBackoff(), 0))
        self.client.response_callbacks.clear()
        self.process: subprocess.Popen[bytes]
        self.start()
        self.id = self.ask("CLUSTER", "MYID").decode()

    def start(self) -> None:
        """Start it, with the data it has, and wait until it answers."""
        command = [*valkey.command(self.port), "--cluster-port", str(self.bus_port), *_OPTIONS, *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log)
        wait_until(lambda: valkey.not_ready(f"redis://{HOST}:{self.port}") is None, f"{self.port} answers")

    def ask(self, *command: str | int | bytes) -> Any:
        """The raw reply to a command; nothing of it is followed or retried."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut of its process would; a stopped one too."""
        self.process.kill()
        self.process.wait()

    def is_primary(self) -> bool:
        """Whether it says so of itself."""
        return bool(self.ask("ROLE")[0] == b"master")

    def in_slot(self, slot: int) -> list[bytes]:
        """The keys of a slot that it holds."""
        return list(self.ask("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000))


class Cluster:
    """Three primaries with a third of the slots each, `primaries[i]` having `replicas[i]`. Made by `running_cluster`."""

    def __init__(self, primaries: list[Node], replicas: list[Node]) -> None:
        self.primaries, self.replicas = primaries, replicas
        self.url = "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in primaries)

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return [*self.primaries, *self.replicas]

    def client(self) -> redis.RedisCluster:
        """Another client of the cluster, to look at it with."""
        return redis.RedisCluster(startup_nodes=[redis.cluster.ClusterNode(HOST, node.port) for node in self.nodes])  # type: ignore[no-untyped-call]

    def form(self) -> None:
        """Make a cluster of nodes that know nothing of each other."""
        first = self.primaries[0]
        for node in self.nodes[1:]:
            first.ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        bounds = [SLOTS * i // len(self.primaries) for i in range(len(self.primaries) + 1)]
        for node, begin, end in zip(self.primaries, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            wait_until(lambda: primary.id.encode() in replica.ask("CLUSTER", "NODES"), "nodes know each other")  # noqa: B023 - called here
            replica.ask("CLUSTER", "REPLICATE", primary.id)
        wait_until(self._whole, "the cluster is well")

    def _whole(self) -> bool:
        maps = {str(layout_of(node.ask("CLUSTER", "SLOTS"), HOST)) for node in self.nodes}
        return len(maps) == 1 and all(self._well(node) for node in self.nodes)

    def _well(self, node: Node) -> bool:
        served = node.ask("CLUSTER", "SLOTS")
        covered = sum(last - first + 1 for first, last, *_ in served) == SLOTS and all(
            len(shard) == 3 + bool(self.replicas) for shard in served
        )
        synced = node.is_primary() or b"connected" in node.ask("ROLE")
        return b"cluster_state:ok" in node.ask("CLUSTER", "INFO") and covered and synced

    def owner(self, slot: int) -> Node:
        """The primary that has a slot, once all nodes that run agree on it."""
        wait_until(lambda: len(self._owners(slot)) == 1, f"all say the same of slot {slot}")
        port = self._owners(slot).pop()
        return next(node for node in self.nodes if node.port == port)

    def _owners(self, slot: int) -> set[int]:
        running = [node for node in self.nodes if node.process.poll() is None]
        return {node[1] for each in running for first, last, node, *_ in each.ask("CLUSTER", "SLOTS") if first <= slot <= last}

    def replica_of(self, primary: Node) -> Node:
        """The node that copies a primary."""
        return next(
            node for node in self.nodes if node.process.poll() is None and not node.is_primary() and node.ask("ROLE")[2] == primary.port
        )

    @contextmanager
    def migrating(self, slot: int, target: Node) -> Iterator[Callable[[Sequence[bytes]], None]]:
        """Open the classic migration of a slot; gives what moves keys, and closes it with all keys moved."""
        source = self.owner(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

        def move(keys: Sequence[bytes]) -> None:
            source.ask("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)

        yield move
        while keys := source.in_slot(slot):
            move(keys)
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        wait_until(lambda: self._owners(slot) == {target.port}, f"all know of the new owner of slot {slot}")

    def fail_over_lagging(self, primary: Node, meanwhile: Callable[[], object]) -> Node:
        """Stop a primary's replica, do something, kill the primary, promote the replica, which knows nothing of it; returns the replica."""
        replica = self.replica_of(primary)
        freeze(replica.process.pid)  # before its link is cut, or it would connect again
        try:
            primary.ask("CLIENT", "KILL", "TYPE", "replica")  # or the replica would read from its socket what it missed
            meanwhile()
            primary.kill()
        finally:
            replica.send(signal.SIGCONT)
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(replica.is_primary, "the replica is promoted")
        return replica

    def restore(self) -> None:
        """Start what was killed, wait until all is well, and delete all keys."""
        for node in self.nodes:
            if node.process.poll() is not None:
                node.start()
        wait_until(self._whole, "the cluster is well again")
        for node in self.nodes:
            if node.is_primary():
                node.ask("FLUSHALL")
                node.ask("SCRIPT", "FLUSH")


@contextmanager
def running_cluster(folder: Path, *options: str, replicas: bool = True) -> Iterator[Cluster]:
    """A cluster with its data in a folder, ended with all its processes."""
    made: list[Node] = []
    with ExitStack() as stack:
        for i in range(6 if replicas else 3):
            node = Node(folder / f"node-{i}", *options)
            stack.callback(_end, node)
            made.append(node)
        cluster = Cluster(made[:3], made[3:])
        cluster.form()
        yield cluster


def _end(node: Node) -> None:
    node.kill()
    node.client.close()


def wait_until(holds: Callable[[], bool], what: str, limit_seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for something to hold; a node that cannot say counts as no."""
    end = time.monotonic() + limit_seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if holds():
                return
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
