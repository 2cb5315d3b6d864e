"""The servers and the project of feature computation's tests, with an offline store beside them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.rig import ROOT, Rig, until

from tidemill.errors import UnknownTable
from tidemill.kernel.keys import partition_of
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.proof.audit import audit
from tidemill.proof.partition_audit import AuditReport
from tidemill.redis.link import RedisLink


class Mirrored(Rig):
    """A rig whose topics an offline writer mirrors."""

    @property
    def offline(self) -> str:
        """Where the offline store lies."""
        return str(self.folder.parent / "offline")

    def start(self) -> None:
        """One worker of feature computation, and the offline writer."""
        self.worker()
        self.worker("tidemill_offline", TIDEMILL_OFFLINE=self.offline, TIDEMILL_FLUSH_SECONDS="0.2")

    def settle(self, events: int) -> None:
        """Start both, produce, and return once everything is folded and mirrored."""
        self.start()
        self.produce(events)
        self.wait_folded()
        self.wait_mirrored()

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `tidemill` as a process; its output, errors included, is a pipe."""
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis_url,
            "TIDEMILL_OFFLINE": self.offline,
            "TIDEMILL_PROJECT": str(self.folder),
            "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}",
            "COLUMNS": "250",
        }
        return subprocess.Popen(
            [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait_mirrored(self) -> None:
        """Return once everything produced is in the offline store."""
        ends = self.ends()
        until(lambda: self.written() == ends, lambda: f"{self.written()} of {ends}\n{self.workers[-1].tail()}")

    def ends(self) -> dict[tuple[str, int], int]:
        """The next offset of each (view, partition) on Kafka."""
        return {(tp.topic.split(".")[2], tp.partition): end for tp, end in asyncio.run(self._ends()).items()}

    def partition(self, view: str, entity: bytes) -> int:
        """Where an entity lives."""
        return partition_of(entity, self.project.views[view].partitions)

    def audited(self) -> None:
        """Assert that the store is what the offline rows give, where the topic no longer has them all."""
        assert asyncio.run(self._audit()).mismatched == 0

    async def _audit(self) -> AuditReport:
        async with RedisLink(self.redis_url, timeout_seconds=10) as link:
            return await audit(self.project, OfflineStore(self.offline), link)

    def written(self) -> dict[tuple[str, int], int]:
        """The next offset of each (view, partition) in the offline store."""
        found = dict[tuple[str, int], int]()
        for view in self.project.views.values():
            try:
                positions = OfflineStore(self.offline).snapshot(view_folder(view.log)).positions
            except UnknownTable:
                positions = {}
            found |= {(view.name, partition): positions.get(partition, 0) for partition in range(view.partitions)}
        return found


@pytest.fixture
def rig(addresses: tuple[str, str], topic_prefix: str, tmp_path: Path) -> Iterator[Mirrored]:
    """Return a project of two views with its own topics, keys and tables; its processes end with the test."""
    made = Mirrored(topic_prefix, tmp_path / "project", *addresses)
    yield made
    made.stop()
