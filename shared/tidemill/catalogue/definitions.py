"""What the catalogue holds at one moment, and the project that it means.

Each change of the catalogue is one record with everything in it, so the newest record is the whole truth. `number` makes a change a
compare-and-swap: a record counts only if its number follows that of the record before it that counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.declarations.written import WrittenEvent, WrittenModel, WrittenPart, WrittenView, read_event, read_model, read_view
from tidemill.names import LogName, log_name
from tidemill.records import Milliseconds, Natural, Record


class ViewVersion(WrittenPart, frozen=True):
    """One version of a view.

    `handover`: None while the log is being filled from the archive; then, for each partition of the event's topic, the offset from which
    ingestion routes to the log (a partition that is not named: from its beginning). `handed`: the number of the record that said so first;
    0 for a log that ingestion fed before there was a catalogue, so that nothing is routed to it again. `loaded`: how many of the files in
    `Definitions.loads` its fill had.
    """

    view: WrittenView
    version: Natural
    handover: dict[Natural, Natural] | None = None
    handed: Natural = 0
    loaded: Natural = 0

    @property
    def log(self) -> LogName:
        """The name of its log."""
        return log_name(self.view.name, self.view.partitions, self.version)


class Definitions(Record, frozen=True):
    """The catalogue (topic `<project>.catalogue`). `in_force`: for each declared view, the version that its plain name means; `numbers`: the
    highest version number that each view has had, so that no number, and no log, is ever used twice.

    Versions that are not in force are there as long as somebody may read them: see `without`. `since`: for each event, the fields that no
    event that became known before a moment has, though there are such events. `loads`: for each event, the files from which history was
    loaded, in the order in which plans found them, by the first 16 digits of their digest.
    """

    number: Natural
    time: Milliseconds
    events: tuple[WrittenEvent, ...] = ()
    views: tuple[ViewVersion, ...] = ()
    in_force: dict[str, Natural] = {}
    models: tuple[WrittenModel, ...] = ()
    numbers: dict[str, Natural] = {}
    since: dict[str, dict[str, Milliseconds]] = {}
    loads: dict[str, tuple[str, ...]] = {}

    def version(self, view: str, version: int) -> ViewVersion:
        """A version of a view. Raises KeyError."""
        for found in self.views:
            if (found.view.name, found.version) == (view, version):
                return found
        raise KeyError(f"{view}@v{version}")

    def loads_of(self, view: str, version: int) -> tuple[str, ...]:
        """The files of history that a version has. Raises KeyError."""
        found = self.version(view, version)
        return self.loads.get(found.view.source, ())[: found.loaded]

    def newest(self, view: str) -> int:
        """The highest version number that a view has had; 0 when there was none."""
        return max([self.numbers.get(view, 0), *(found.version for found in self.views if found.view.name == view)])

    def handed_over(self, view: str, version: int, handover: dict[int, int], time_ms: int, loads: Iterable[str] = ()) -> Definitions:
        """The record that says from where ingestion routes to a version's log. `loads`: the files that its fill had. Raises KeyError."""
        found = self.version(view, version)
        known = with_loads(self.loads, {found.view.source: loads})
        loaded = len(known.get(found.view.source, ()))
        filled = msgspec.structs.replace(found, handover=handover, handed=self.number + 1, loaded=loaded)
        views = tuple(filled if item is found else item for item in self.views)
        return msgspec.structs.replace(self, number=self.number + 1, time=time_ms, views=views, loads=known)

    def without(self, gone: Collection[tuple[str, int]], time_ms: int) -> Definitions:
        """The record without these versions, which are not in force."""
        views = tuple(found for found in self.views if (found.view.name, found.version) not in gone)
        return msgspec.structs.replace(self, number=self.number + 1, time=time_ms, views=views)

    @property
    def begins(self) -> dict[LogName, dict[int, int]]:
        """The logs to which ingestion routes -> the offsets from which on, by partition of the event's topic. Not one event earlier: a log
        that was filled from the archive has it, under a place that is not its own."""
        return {found.log: found.handover for found in self.views if found.handover is not None}

    def routed_from(self, event: str, partition: int, committed: int, seen: int) -> int:
        """Where ingestion goes on in a partition of an event's topic: at its committed position, or further back where a log was handed
        over since. `seen`: the number of the catalogue by which everything below `committed` was routed.

        Events are routed again then to logs that have them already, as after a crash, down to where each log `begins`. Whoever folds such a
        log skips them.
        """
        since = [found for found in self.views if found.handover is not None and found.handed > seen and found.view.source == event]
        return min([committed, *((found.handover or {}).get(partition, 0) for found in since)])


def with_loads(known: Mapping[str, tuple[str, ...]], loads: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """The files of each event, those found now after those that are known."""
    found = {event: tuple(dict.fromkeys((*known.get(event, ()), *sorted(files)))) for event, files in loads.items()}
    return {**known, **{event: files for event, files in found.items() if files}}


NOTHING = Definitions(0, 0)
"""The catalogue before its first record."""


def counted(records: Iterable[Definitions], after: Definitions = NOTHING) -> Iterator[Definitions]:
    """The records that count, in the order of the topic. One whose number does not follow lost a race, and does not count."""
    for record in records:
        if record.number == after.number + 1:
            after = record
            yield record


def newest_of(records: Iterable[Definitions], after: Definitions = NOTHING) -> Definitions:
    """The catalogue after these records: the last one that counts."""
    return [after, *counted(records, after)][-1]


def project_of(definitions: Definitions, name: str) -> Project:
    """The project that a service runs. A view in force has its plain name; another version the name `<view>@v<version>`.

    Raises DeclarationError when the records of the catalogue are damaged.
    """
    events = {written.name: read_event(written) for written in definitions.events}
    views: dict[str, FeatureView] = {}
    for found in definitions.views:
        in_force, since = definitions.in_force.get(found.view.name) == found.version, definitions.since.get(found.view.source, {})
        view = read_view(found.view, events[found.view.source]).as_version(found.version, in_force=in_force, since=since)
        views[view.name] = view
    models = {written.name: read_model(written, events, views) for written in definitions.models}
    return Project(name, events, views, models, catalogue=definitions.number)
