"""One stack whose catalogue changes while events arrive: its processes, what is checked of the catalogue at each record, and of the logs at the end."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
from faust.types import TP
from tests.simulation.broker import Row
from tests.simulation.filling.kafka import Cluster
from tests.simulation.filling.lake import rows_of
from tests.simulation.filling.processes import (
    ARCHIVE,
    DECLARED,
    Apply,
    Archiver,
    File,
    Folded,
    Folder,
    Ingestion,
    LoadFile,
    Site,
    StackProcess,
)
from tests.simulation.filling.project import NAME, PAID, PLAIN, STAGES, T0, Paid, folding, paid
from tests.simulation.workers import Group
from tests.simulation.world import AnyWorld, Step

from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion, newest_of, project_of
from tidemill.declarations.project import Project
from tidemill.kernel.fences import position
from tidemill.kernel.keys import entity_key, partition_of
from tidemill.names import LogName
from tidemill.offline.names import view_folder
from tidemill.offline.store import counter_name
from tidemill.online.keys import fence_key
from tidemill.records import ViewRecord, decoder
from tidemill.streams.topics import catalogue_topic, view_topic
from tidemill.testing.lake import MemoryTable

_record, _definitions = decoder(ViewRecord).decode, decoder(Definitions).decode
P = TypeVar("P", bound=StackProcess)


class FillingWorld(AnyWorld):
    """Everything there is. `published`: the events of each partition of the topic; `files`: of history; `catalogue`: the truth; `ends`: of each
    log that was filled, when it was handed over; `begun`: the files that were loaded when a fill began; `wanted`: what the
    project's file declares; `last`: the job that puts it in force for good, with the files that were `seen` before it."""

    def __init__(self, seed: int, story: list[Step] | None = None) -> None:
        super().__init__(seed, story)
        self.broker = Cluster(self.draw, self.now_ms)
        self.broker.written = self._written
        self.group = Group(self.loop, self.draw, self.broker.of_topic(PAID.topic), self.fail)
        self.site = Site(self.loop, self.draw, self.broker, self.group, dict[str, MemoryTable](), Folded(), self.note)
        self.processes: list[StackProcess] = []
        self.published: dict[TP, list[Paid]] = {tp: [] for tp in self.broker.of_topic(PAID.topic)}
        self.files: list[File] = []
        self.catalogue = NOTHING
        self.wanted: Project = DECLARED
        self.last: Apply | None = None
        self.seen: list[File] = []
        self.ends: dict[LogName, dict[int, int]] = {}
        self.begun: dict[LogName, set[str]] = {}
        self._numbers = itertools.count()

    def now_ms(self) -> int:
        """The time of all clocks, epoch ms."""
        return T0 + int(1000 * self.loop.now)

    # What happens

    def starts(self, process: P) -> P:
        """A process begins."""
        process.died = self.died
        self.processes.append(process)
        self.note(process.name, "starts")
        process.start()
        return process

    def living(self, kind: type[P]) -> list[P]:
        """The processes of a kind that live."""
        return [process for process in self.processes if isinstance(process, kind) and process.alive]

    def new_ingestion(self) -> Ingestion:
        """Ingestion starts."""
        return self.starts(Ingestion(self.site, self.name("ingestion")))

    def new_archiver(self) -> Archiver:
        """An offline writer starts."""
        return self.starts(Archiver(self.site, self.name("archiver")))

    def new_folder(self) -> Folder:
        """Feature computation and mirrors start."""
        return self.starts(Folder(self.site, self.name("folder")))

    def new_apply(self) -> Apply:
        """Somebody applies what is wanted now."""
        process = Apply(self.site, self.name("apply"), self.wanted)
        process.fills = self._fills
        return self.starts(process)

    def apply_for_good(self) -> None:
        """Somebody applies what is wanted, until nothing is left to do."""
        loaded = [file for file in self.files if self.is_loaded(file)]
        if not self.living(Apply) and (self.last is None or not self.last.done or loaded != self.seen):
            self.last, self.seen = self.new_apply(), loaded

    def new_load(self, file: File) -> LoadFile:
        """Somebody loads a file."""
        return self.starts(LoadFile(self.site, self.name("load"), file))

    def want(self) -> None:
        """Somebody changes the project's file, once what it said at first is in the catalogue."""
        if self.catalogue.number:
            self.wanted = self.draw.choice(STAGES)
        self.note("project", f"declares stage {STAGES.index(self.wanted)}")

    def new_file(self) -> File:
        """A file of history."""
        rows = [paid(self.draw, next(self._numbers), T0 - 3_600_000) for _ in range(self.draw.randint(1, 9))]
        self.files.append(File(f"file{len(self.files)}", rows))
        return self.files[-1]

    def publish(self, tp: TP) -> None:
        """An application publishes an event."""
        event = paid(self.draw, next(self._numbers), self.now_ms())
        self.published[tp].append(event)
        row = self.broker.append(tp, None, event.value)
        self.note("producer", "publishes", tp.partition, str(row.offset))

    # What is checked

    def _fills(self, versions: Sequence[ViewVersion]) -> None:
        for version in versions:
            self.begun[version.log] = {file.digest for file in self.files if self.is_loaded(file)}

    def _written(self, tp: TP, row: Row) -> None:
        if tp.topic != catalogue_topic(NAME):
            return
        before, record = self.catalogue, _definitions(row.value)
        self.catalogue = newest_of([record], before)
        lost = self.catalogue is before
        self.note("catalogue", f"record {record.number}" + (" comes too late" if lost else ""), None, self._shown(record))
        if lost:
            return
        old = {found.log: found for found in before.views if found.handover is not None}
        new = {found.log: found for found in record.views if found.handover is not None}
        for log in old.keys() - new.keys():
            self.fail(f"I9: {log} was handed over, and record {record.number} does not know it")
        for log in new.keys() - old.keys():
            if log in self.begun:
                self.ends[log] = {tp.partition: self.broker.logs[tp].end for tp in self._log(log)}
        for view, number in record.in_force.items():
            self._check_in_force(record.version(view, number))

    def _check_in_force(self, version: ViewVersion) -> None:
        """I10: who reads a view in force never reads a log that is not folded up to its hand-over."""
        if version.handover is None:
            self.fail(f"I10: {version.log} is in force before it was handed over")
        mirrored = self.site.tables.get(view_folder(version.log))
        for partition, end in self.ends.get(version.log, {}).items():
            online = position(self.site.folded.fences.get(fence_key(NAME, version.log, partition)))
            name = counter_name(view_topic(NAME, version.log), partition)
            offline = mirrored.commits[-1].counters.get(name, 0) if mirrored else 0
            if min(online, offline) < end:
                self.fail(f"I10: {version.log} is in force, and its stores have {online} and {offline} of {end} records")

    def _log(self, log: LogName) -> list[TP]:
        return self.broker.of_topic(view_topic(NAME, log))

    @staticmethod
    def _shown(record: Definitions) -> str:
        parts = []
        for found in record.views:
            mark = "*" if record.in_force.get(found.view.name) == found.version else ""
            parts.append(f"{found.view.name}@v{found.version}{mark}" + (" filling" if found.handover is None else ""))
        return ", ".join(parts)

    def waits(self) -> str | None:
        """I2: what has not come to its end; None: nothing."""
        if self.last is None or not self.last.done:
            return "what is declared is not in force"
        filled = msgspec.structs.replace(self.catalogue, views=tuple(found for found in self.catalogue.views if found.log in self.begun))
        for tp in self.published:
            end, (offset, number) = self.broker.logs[tp].end, self.broker.committed.get(tp, (0, ""))
            if filled.routed_from(PAID.name, tp.partition, offset, int(number or 0)) != end:
                return f"partition {tp.partition} is routed up to {offset} of {end} by record {number}, of {self.catalogue.number}"
            table = self.site.tables.get(ARCHIVE)
            archived = table.commits[-1].counters.get(counter_name(*tp), 0) if table else 0
            if archived != end:
                return f"partition {tp.partition} is archived up to {archived} of {end}"
        for file in self.files:
            if not self.is_loaded(file):
                return f"{file.path} is not loaded"
        if self.seen != self.files:
            return "history was loaded, and no plan has looked since"
        for found in self.catalogue.views:
            if found.handover is not None:
                for tp in self._log(found.log):
                    if position(self.site.folded.fences.get(fence_key(NAME, found.log, tp.partition))) != self.broker.logs[tp].end:
                        return f"{found.log} is not folded"
        return None

    def is_loaded(self, file: File) -> bool:
        """Whether some job says so."""
        return any(process.done for process in self.processes if isinstance(process, LoadFile) and process.file is file)

    def look(self) -> None:
        """What must hold at the end: archive, logs and folded values have each event once, and what is declared is in force."""
        self._look_at_archive()
        project = project_of(self.catalogue, NAME)
        views = {view.log: view for view in project.views.values()}
        if any(name not in project.views or folding(project.views[name]) != folding(view) for name, view in self.wanted.views.items()):
            self.fail("I2: another definition is in force than the one that was applied last")
        for found in self.catalogue.views:
            if found.handover is None:
                continue
            wanted, kernel = self._events_of(found), folding(views[found.log]).kernel
            for tp in self._log(found.log):
                at = [
                    event for event in wanted if event.card and partition_of(entity_key(event.card), found.view.partitions) == tp.partition
                ]
                self._look_at_log(found, tp, at)
                for card in {event.card for event in at}:
                    state = self.site.folded.partitions[tp][1].get((card or "").encode())
                    reading = kernel.read_state(state or kernel.new_state(), self.now_ms())
                    of_card = [event for event in at if event.card == card]
                    plain = [PLAIN[feature.word, feature.column](of_card) for feature in found.view.features]
                    if reading.values != plain:
                        self.fail(f"I1: {found.log} has {reading.values} for {card}, and the events give {plain}")

    def _look_at_archive(self) -> None:
        places = sorted((row.topic, row.partition, row.offset) for row in rows_of(self.site.tables[ARCHIVE]))
        live = [(tp.topic, tp.partition, offset) for tp, events in self.published.items() for offset in range(len(events))]
        loaded = [(f"load:{file.digest[:16]}", 0, number) for file in self.files for number in range(len(file.rows))]
        if places != sorted(live + loaded):
            self.fail("I4: the archive does not have each event once")

    def _events_of(self, version: ViewVersion) -> list[Paid]:
        """What a log must have: all published events, in the order of each partition; and the files that were loaded when the log was filled,
        each whole: those that were loaded before the fill began, and those of which it has a row; of a version in force all of them."""
        found = [event for events in self.published.values() for event in events]
        numbers = {number for tp in self._log(version.log) for number in self._counting(tp)}
        in_force = self.catalogue.in_force.get(version.view.name) == version.version
        loaded = self.begun.get(version.log, set())
        for file in self.files:
            if in_force or file.digest in loaded or any(event.number in numbers for event in file.rows):
                found += file.rows
        return found

    def _look_at_log(self, version: ViewVersion, tp: TP, wanted: Sequence[Paid]) -> None:
        order = {event.number: i for i, event in enumerate(wanted)}
        numbers = list(self._counting(tp))
        if sorted(numbers) != sorted(order):
            count = len(numbers) - len(set(numbers))
            missing = sorted(order.keys() - set(numbers))
            self.fail(f"I7: partition {tp.partition} of {version.log} has {count} events twice, and lacks {len(missing)}: {missing[:5]}")
            return
        for events in self.published.values():
            own = {event.number for event in events}
            told = [number for number in numbers if number in own]
            if told != sorted(told):
                self.fail(f"I7: partition {tp.partition} of {version.log} has events of one source in another order")

    def _counting(self, tp: TP) -> Iterator[int]:
        """The events in a partition of a log, in its order. A record that is not above what came before from its source was sent again."""
        seen: dict[int, int] = defaultdict(lambda: -1)
        for row in self.broker.logs[tp].records:
            record = _record(row.value)
            partition, offset = record.source
            if offset > seen[partition]:
                seen[partition] = offset
                yield int(record.values["number"])  # type: ignore[arg-type]
