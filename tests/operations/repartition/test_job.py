"""The copy on a real Kafka and a real offline store: what it refuses, and that it goes on wherever it was left."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from tests.operations.repartition.test_old_log import Logs, Writers, folded
from tests.streams.test_view_logs import declared

from tidemill.errors import TidemillError
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.waves import Record, send_wave
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import view_table
from tidemill.operations.repartition import job as module
from tidemill.operations.repartition.job import Repartition, Repartitioned
from tidemill.records import LogRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.marks import read_marks
from tidemill.streams.topics import ingestion_group, view_topic
from tidemill.streams.view_logs import ensure_logs

pytestmark = pytest.mark.integration


class System:
    """A project's old log in Kafka and, in part, offline; ingestion's group; and the job."""

    def __init__(self, kafka: str, name: str, root: Path) -> None:
        self.settings, self.name, self.store = KafkaSettings(bootstrap_servers=kafka), name, OfflineStore(root)
        self.told: list[tuple[str, int, int]] = []

    async def write(self, logs: Logs, routed: Iterable[int] = (999, 999, 999)) -> None:
        """Brings logs into Kafka, and commits up to where each source partition is routed."""
        project = declared(self.name, len(logs))
        await ensure_logs(self.settings, project)
        topic = view_topic(self.name, project.views["cards"].log)
        wave: dict[tuple[str, int], list[Record]] = {(topic, p): [(key, value, []) for key, value in log] for p, log in enumerate(logs)}
        made = producer(self.settings)
        await made.start()
        await send_wave(made, wave)
        await close_producer(made)
        await self.commit(routed)

    async def commit(self, routed: Iterable[int]) -> None:
        """Ingestion's positions, as it leaves them."""
        topic = declared(self.name, 1).events["paid"].topic
        member = consumer(self.settings, group=ingestion_group(self.name))
        await member.start()
        member.assign([TopicPartition(topic, p) for p in range(3)])
        await member.commit({TopicPartition(topic, p): offset for p, offset in enumerate(routed)})
        await member.stop()

    def mirror(self, logs: Logs, share: float) -> None:
        """Writes a part of every partition to the offline store."""
        from tests.offline.lake import numbered

        project = declared(self.name, len(logs))
        table = view_table(project, project.views["cards"])
        log = self.store.topic_table(table)
        log.open()
        for p, records in enumerate(logs):
            end = int(share * len(records))
            if end:
                log.append(table.rows(p, numbered(records[:end])), {(table.topic, p): (0, end)})

    async def repartition(self, partitions: int) -> Repartitioned | None:
        """Run the job."""
        project = declared(self.name, partitions)
        job = Repartition(project, project.views["cards"], self.store, self.settings, lambda *told: self.told.append(told))
        return await job.run()

    async def marks(self) -> list[LogRecord]:
        """What was told."""
        return await read_marks(self.settings, self.name)

    async def log(self, partitions: int) -> Logs:
        """What the topic of a count holds."""
        topic = view_topic(self.name, declared(self.name, partitions).views["cards"].log)
        places = [TopicPartition(topic, p) for p in range(partitions)]
        reader, found = (
            DenseReader(self.settings, dict.fromkeys(places, 0), {}),
            [list[tuple[bytes | None, bytes | None]]() for _ in places],
        )
        ends = await reader.start()
        while any(reader.next[place] < end for place, end in ends.items()):
            for place, records in (await reader.fetch(1, 1000)).items():
                found[place.partition] += [(record.key, record.value) for record in records]
        await reader.stop()
        return found


@pytest.fixture
def system(kafka: str, topic_prefix: str, tmp_path: Path) -> System:
    """A project of its own."""
    return System(kafka, topic_prefix, tmp_path)


def some_logs(seed: int = 1, partitions: int = 3) -> Logs:
    """A log with everything in it."""
    from tests.operations.repartition.test_old_log import VIEW

    return Writers(replace(VIEW, partitions=partitions), random.Random(seed)).write(40)


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
async def test_the_whole_log_from_offline_and_kafka(system: System, share: float) -> None:
    """Wherever the offline store ends, the new log folds to the old values; the mark says what was copied; a second run has nothing to do."""
    logs = some_logs()
    system.mirror(logs, share)
    await system.write(logs)
    done = await system.repartition(5)
    assert done is not None
    views = {partitions: declared(system.name, partitions).views["cards"] for partitions in (3, 5)}
    expected, folds = folded(views[3], logs)
    assert folded(views[5], await system.log(5))[0] == expected
    assert done.entities == len(expected)
    mark = done.mark
    assert (mark.log, mark.source, mark.filled) == ("cards.p5", "cards.p3", True)
    assert (mark.undecodable, mark.sent_twice) == (sum(f.fence.poison for f in folds), sum(f.fence.resent for f in folds))
    assert mark.records == sum(map(len, logs)) - mark.undecodable - mark.sent_twice
    assert [told.filled for told in await system.marks()] == [False, True]
    assert {phase: (done, total) for phase, done, total in system.told} == {
        "read": (sum(map(len, logs)),) * 2, "copy": (mark.records,) * 2, "check": (mark.records,) * 2,
    }  # fmt: skip
    assert await system.repartition(5) is None


class Killed(BaseException):
    """Stands for the end of the process."""


async def test_left_anywhere_and_begun_again(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended before or after every single write, the copy goes on: nothing is doubled, nothing is missing, and the mark comes once."""
    logs = some_logs()
    await system.write(logs)
    monkeypatch.setattr(module, "WAVE_RECORDS", 17)
    ended, calls = 0, 0

    async def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1 + ended // 2 and ended % 2 == 0:
            raise Killed
        answer = await send_wave(*arguments)  # type: ignore[arg-type]
        if calls == 1 + ended // 2:
            raise Killed
        return answer

    monkeypatch.setattr(module, "send_wave", dying)
    while True:
        calls = 0
        try:
            done = await system.repartition(4)
            break
        except Killed:
            ended += 1
    assert ended > 6
    view = declared(system.name, 4).views["cards"]
    expected, _ = folded(declared(system.name, 3).views["cards"], logs)
    values, folds = folded(view, await system.log(4))
    assert values == expected
    assert sum(fold.fence.resent for fold in folds) == 0
    filled = [told for told in await system.marks() if told.filled]
    assert len(filled) == 1
    assert done is None or filled == [done.mark]


async def test_there_and_further_but_not_back(system: System) -> None:
    """From 3 to 5 and from 5 to 2 the values stay; a count that was used before is refused, and the log in use stays the same."""
    logs = some_logs(2)
    await system.write(logs)
    for partitions in (5, 2):
        assert await system.repartition(partitions)
    expected, _ = folded(declared(system.name, 3).views["cards"], logs)
    assert folded(declared(system.name, 2).views["cards"], await system.log(2))[0] == expected
    with pytest.raises(TidemillError, match=r"another record than the copy would have; .*a partition count the view never had"):
        await system.repartition(5)
    assert [mark.log for mark in await system.marks() if mark.filled] == ["cards.p5", "cards.p2"]
    assert await system.log(3) == logs


async def test_ingestion_that_runs_or_stopped_within_a_wave(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of the group, and a committed position below what the old log has, are refused before anything is written."""
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.5)
    logs = some_logs(3)
    await system.write(logs, routed=(999, 2, 999))
    with pytest.raises(TidemillError, match=r"had committed paid\[1\] up to \d+ \(it is at 2\).*partitions=3 once more"):
        await system.repartition(5)
    await system.commit((999, 999, 999))
    member = consumer(system.settings, declared(system.name, 1).events["paid"].topic, group=ingestion_group(system.name))
    await member.start()
    with pytest.raises(TidemillError, match=r"ingestion runs: .* has 1 members; stop ingestion"):
        await system.repartition(5)
    await member.stop()
    assert await system.marks() == []
    assert await system.repartition(5)


async def test_a_log_that_goes_on_meanwhile(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that comes to the old log while it is copied is noticed: the new log is not in use."""
    logs = some_logs(4)
    await system.write(logs)

    async def compare(self: Repartition, old: object) -> int:
        await system.write([[(b"card-1", b"late")], [], []])
        return 0

    monkeypatch.setattr(Repartition, "_compare", compare)
    with pytest.raises(TidemillError, match=r"cards\.p3\[0\] went on from \d+ to \d+ meanwhile"):
        await system.repartition(5)
    assert [mark.filled for mark in await system.marks()] == [False]


async def test_a_copy_that_folds_to_something_else(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison at the end can fail: records in an order that does not fit are found, with an entity."""
    logs = some_logs(5)
    await system.write(logs)
    monkeypatch.setattr("tidemill.operations.repartition.old_log.is_moved", lambda _: False)
    monkeypatch.setattr(
        "tidemill.operations.repartition.old_log.merge",
        lambda queues: ((i, False) for i, queue in reversed(list(enumerate(queues))) for _ in queue),
    )
    with pytest.raises(TidemillError, match=r"cards\.p2\[\d\] does not fold to what cards\.p3 does: \d+ entities differ, one is 'card-\d'"):
        await system.repartition(2)


async def test_nothing_to_copy(system: System) -> None:
    """A view without records may change its count freely."""
    assert await system.repartition(5) is None
