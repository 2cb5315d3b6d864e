"""Safeguards of filling, handing over and loading, taken out one at a time: see `tests.simulation.mutations`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError
from faust.types import TP
from tests.simulation.filling import kafka

from tidemill.archive.load import Load
from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion
from tidemill.catalogue.plan import _Planner
from tidemill.declarations.written import WrittenView
from tidemill.kafka.waves import Record
from tidemill.operations import applying
from tidemill.operations.fill.around import archive_of
from tidemill.operations.fill.job import Fill, Filled
from tidemill.operations.fill.private_log import PrivateLog
from tidemill.records import encode
from tidemill.routing.router import Router
from tidemill.streams import catalogue_log
from tidemill.streams.topics import catalogue_topic
from tidemill_ingestion import consumer
from tidemill_ingestion.consumer import EventConsumer

Changes = Sequence[tuple[Any, str, Any]]


class Taken(NamedTuple):
    """A safeguard that is taken out: what it is without it, how, and why nothing goes wrong ("": it does)."""

    what: str
    changes: Changes
    safe: str = ""


# Ingestion

_place, _routed_up_to = EventConsumer._place, EventConsumer._routed_up_to


def _committed_only(self: EventConsumer, partition: TP, committed: int, metadata: str, end: int) -> int:
    return committed


def _back_at_the_start(self: EventConsumer, partition: TP, committed: int, metadata: str, end: int) -> int:
    return committed if self.positions else _routed_up_to(self, partition, committed, metadata, end)


def _has_the_same_partitions(self: EventConsumer) -> bool:
    return bool(self.kafka.assignment() == self._placed)


async def _place_or_not(self: EventConsumer) -> None:
    """If Kafka does not answer, aiokafka places by itself."""
    await _place(self)
    self._placed = self.kafka.assignment()


async def _number_first(self: EventConsumer) -> None:
    """Commits by which catalogue it will route, before it has routed."""
    await _place(self)
    with contextlib.suppress(KafkaError):
        found = await kafka.committed_with_metadata(self.kafka, self.kafka.assignment())
        await self.kafka.commit({tp: (offset, str(self._definitions.number)) for tp, (offset, _) in found.items()})


def _number_of_nothing(self: EventConsumer, partition: TP, committed: int, metadata: str, end: int) -> int:
    return _routed_up_to(self, partition, committed, "", end)


def _from_the_beginning(project: Any, begins: Any, frames: Any) -> Router:
    return Router(project, begins and {log: {} for log in begins}, frames)


# The filler

_run, _live, _send, _new = Fill.run, Fill._live, PrivateLog.send, _Planner._new


def _shifted(by: int) -> Callable[[Fill], Any]:
    async def run(self: Fill) -> Filled:
        done = await _run(self)
        done.handover = {partition: max(offset + by, 0) for partition, offset in done.handover.items()}
        return done

    return run


async def _send_soon(self: PrivateLog, records: Mapping[int, Sequence[Record]]) -> None:
    """In order, but nobody waits for it."""
    before = self.__dict__.get("sent")

    async def send() -> None:
        if before is not None:
            await before
        await _send(self, records)

    self.__dict__["sent"] = asyncio.ensure_future(send())


async def _check_nothing(self: PrivateLog, settings: Any) -> None:
    self.ends = {target.partition: held.end for target, held in (await kafka.offset_ranges(settings, self.topic)).items()}


def _same_number(self: _Planner, written: WrittenView) -> ViewVersion:
    given_up = [found.version for found in self._before.views if found.handover is None and found.view.name == written.name]
    if not given_up:
        return _new(self, written)
    self.in_force[written.name] = self.numbers[written.name] = given_up[0]
    self.views.append(ViewVersion(written, given_up[0]))
    return self.views[-1]


async def _live_of_another_snapshot(self: Fill, log: PrivateLog, snapshot: Any) -> None:
    await _live(self, log, archive_of(self._store, self._view.source.name))


async def _send_unlooked(self: PrivateLog, records: Mapping[int, Sequence[Record]]) -> None:
    wave = {(self.topic, partition): part for partition, part in records.items() if part}
    for (_, partition), (_, last) in (await kafka.send_wave(self._producer, wave)).items():
        self.ends[partition] = last + 1


# The catalogue


async def _append_unlooked(settings: Any, project: str, record: Definitions) -> None:
    async with kafka.started_producer(settings) as made:
        await kafka.send_wave(made, {(catalogue_topic(project), 0): [(project.encode(), encode(record), [])]})


def _last_of(records: Iterable[Definitions], after: Definitions = NOTHING) -> Definitions:
    return [after, *records][-1]


async def _not_waited(*args: Any) -> None:
    pass


# Load

_commit = Load._commit


def _rows_then_counter(self: Load, report: Any, table: Any, waiting: list[Any], moves: Any) -> None:
    _commit(self, report, table, waiting, {})
    table.append(table.schema.empty_table(), moves)


SAME_PARTITIONS = Taken(
    "ingestion goes on when it is assigned the same partitions again", [(EventConsumer, "_is_placed", property(_has_the_same_partitions))]
)
"""Needs too many coincidences to be found by chance: two members stand still one after the other, while the second cannot hear of the catalogue."""

FILLING: dict[str, Taken] = {
    "no-going-back": Taken("ingestion goes on from its committed offset", [(EventConsumer, "_routed_up_to", _committed_only)]),
    "going-back-once": Taken(
        "ingestion goes back when it begins, and not when it is given a partition later",
        [(EventConsumer, "_routed_up_to", _back_at_the_start)],
    ),
    "not-placed": Taken("ingestion goes on when it could not ask for its positions", [(EventConsumer, "_place", _place_or_not)]),
    "number-first": Taken(
        "ingestion commits the number of a catalogue before it has routed by it", [(EventConsumer, "_place", _number_first)]
    ),
    "number-unread": Taken(
        "ingestion does not read the number beside its offset, and always goes back to the lowest hand-over",
        [(EventConsumer, "_routed_up_to", _number_of_nothing)],
        safe="it routes again what logs have, which is skipped by its source",
    ),
    "no-begin": Taken("ingestion routes to a log what lies before its hand-over", [(consumer, "Router", _from_the_beginning)]),
    "hand-over-late": Taken("the hand-over names the offset after", [(Fill, "run", _shifted(1))]),
    "hand-over-early": Taken("the hand-over names the offset before", [(Fill, "run", _shifted(-1))]),
    "unacknowledged": Taken("the filler hands over before its records are acknowledged", [(PrivateLog, "send", _send_soon)]),
    "log-again": Taken(
        "the log of a fill that was broken off is filled again",
        [(_Planner, "_new", _same_number), (PrivateLog, "check_empty", _check_nothing), (PrivateLog, "send", _send_unlooked)],
    ),
    "another-snapshot": Taken(
        "the topic is read from where a later version of the archive ends", [(Fill, "_live", _live_of_another_snapshot)]
    ),
    "not-folded": Taken("a version is in force before the stores have it", [(applying, "wait_folded", _not_waited)]),
    "catalogue-unlooked": Taken(
        "who appends to the catalogue does not look whether the record counts", [(applying, "append_definitions", _append_unlooked)]
    ),
    "no-numbers": Taken("every record of the catalogue counts", [(catalogue_log, "newest_of", _last_of)]),
    "rows-then-counter": Taken("a load commits its rows, and then how many are done", [(Load, "_commit", _rows_then_counter)]),
    "unlooked-log": Taken(
        "the filler does not look at what it is acknowledged",
        [(PrivateLog, "check_empty", _check_nothing), (PrivateLog, "send", _send_unlooked)],
        safe="no two fills have the same log",
    ),
}
