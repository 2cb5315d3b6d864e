"""What is compared when a run is over, besides what the checker compares all the time: the ends of every other way."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import TopicPartition
from tests.faults.asking import CLOSED, MODEL, OPENED, Clients
from tests.faults.oracle import joined
from tests.faults.tally import Tally
from tests.faults.traffic import SHOWN_BYTES, TOPIC, Traffic

from tidemill.archive.reading import read_events
from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.kafka.client import consumer
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.store import OfflineStore
from tidemill.proof.audit import audit
from tidemill.records import DeadLetterRecord, OutcomeRecord, ResultRecord, decoder
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import dead_letters_topic, outcomes_topic, predictions_topic, results_topic
from tidemill.verify.checks import check_served, view_archive
from tidemill.verify.served import over_http

_VERIFIED = 200
"""Entities of a view."""


class Closing:
    """The last comparisons of a run."""

    def __init__(self, project: Project, kafka: KafkaSettings, store: OfflineStore, tally: Tally) -> None:
        self._project, self._kafka, self._store, self._tally = project, kafka, store, tally

    async def dead_letters(self, traffic: Traffic) -> int:
        """Exactly the spoiled events became dead letters, each with its reason. Returns how many there are."""
        letters = [decoder(DeadLetterRecord).decode(record.value) for record in await self._whole(dead_letters_topic(self._project.name))]
        of_events = {letter.source: letter for letter in letters if letter.source[0] in (TOPIC, OPENED, CLOSED)}
        found = {base64.b64decode(letter.value)[:SHOWN_BYTES]: letter.reason for letter in of_events.values()}
        spoiled = traffic.spoiled
        self._tally.add("lost", "dead letters", spoiled.keys() - found.keys())
        self._tally.add("different", "dead letters of good events", found.keys() - spoiled.keys())
        wrong = [(value, reason, spoiled[value]) for value, reason in found.items() if spoiled.get(value, reason) != reason]
        self._tally.add("different", "reasons of dead letters", wrong)
        return len(of_events)

    async def mirrors(self) -> None:
        """The offline table of predictions has every record once."""
        held = await offset_ranges(self._kafka, predictions_topic(self._project.name))
        rows = self._store.scan("predictions", ["partition", "offset"])
        offsets: dict[int, list[int]] = defaultdict(list)
        for partition, offset in zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True):
            offsets[partition].append(offset)
        wrong = [(tp, span.end, len(offsets[tp.partition])) for tp, span in held.items() if offsets[tp.partition] != list(range(span.end))]
        self._tally.add("different", "offsets of the table predictions", wrong)

    def predictions(self, clients: Clients) -> None:
        """Every prediction that was answered is in the log, as it was answered each time; none is there that nobody asked for."""
        rows = self._store.scan("predictions", ["id", "version", "output"]).to_pylist()
        told: dict[str, tuple[str, float]] = {}
        for row in rows:
            told.setdefault(row["id"], (row["version"], row["output"]))
        asked = {f"p-{name}": case for name, case in clients.cases.items()}
        self._tally.add(
            "predictions_missing", "answered and not in the log", [id for id, c in asked.items() if c.answers and id not in told]
        )
        self._tally.add("predictions_missing", "never answered", [id for id, case in asked.items() if not case.answers])
        answers = [
            (id, answer, told.get(id)) for id, case in asked.items() for answer in case.answers if tuple(answer) != told.get(id, answer)
        ]
        self._tally.add("different", "answers and the log's first record", answers)
        self._tally.add("different", "logged and never asked for", told.keys() - asked.keys())
        self._tally.add("different", "requests that were refused", clients.refused)

    async def results(self, clients: Clients) -> dict[str, int]:
        """Every prediction has the one result that the rule gives it, in the table and in the topic. Returns how many of which status.

        An outcome that reached its topic when the deadline had passed may have come too late.
        """
        published = [decoder(ResultRecord).decode(record.value) for record in await self._whole(results_topic(self._project.name))]
        rows = self._store.scan("results").to_pylist()
        self._tally.add(
            "different", "results of the table and the topic", [(len(rows), len(published))] if len(rows) != len(published) else []
        )
        self._tally.add("different", "results", [r for row, r in zip(rows, published, strict=False) if row["prediction"] != r.prediction])
        counts = Counter(result.prediction for result in published)
        asked = {f"p-{name}": case for name, case in clients.cases.items()}
        self._tally.add("predictions_missing", "without a result", asked.keys() - counts.keys())
        self._tally.add("predictions_doubled", "with two results", [id for id, count in counts.items() if count > 1])
        outcomes = await self._outcomes()
        within_ms = self._project.models[MODEL].outcome.wait.within_ms
        for result in published:
            of_subject = outcomes.get(result.subject, [])
            expected = joined(result.time, within_ms, [(known, value) for known, value, _ in of_subject])
            too_late = result.status == "never" and all(at > result.time + within_ms for *_, at in of_subject)
            if (result.status, result.known, result.outcome) != expected and not too_late:
                self._tally.add("different", "a result", [(result, expected)])
        return dict(Counter(result.status for result in published))

    async def outcomes(self, clients: Clients) -> None:
        """Every case that was closed came through."""
        self._tally.add("lost", "outcomes", clients.closed - (await self._outcomes()).keys())

    async def _outcomes(self) -> dict[str, list[tuple[int, float, int]]]:
        """Subject -> (known, value, when it reached the topic), in the order of the log."""
        found: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
        for record in await self._whole(outcomes_topic(self._project.name)):
            outcome = decoder(OutcomeRecord).decode(record.value)
            assert not isinstance(outcome.value, str)
            found[outcome.subject].append((outcome.known, outcome.value, record.timestamp))
        return found

    async def audit(self, redis_url: str) -> int:
        """Tidemill's own audit, whole. Returns how many values it compared."""
        async with RedisLink(redis_url, timeout_seconds=10) as link:
            report = await audit(self._project, self._store, link, wait_seconds=60)
        self._tally.add("different", "audit", report.examples)
        return report.checked

    async def archive(self, loaded: Sequence[pa.Table]) -> int:
        """Every accepted measurement is archived once, as it was published, and so is every one from a file. Returns how many are."""
        letters = [decoder(DeadLetterRecord).decode(record.value) for record in await self._whole(dead_letters_topic(self._project.name))]
        refused = {letter.source[1:] for letter in letters if letter.source[0] == TOPIC}
        event = self._project.events[TOPIC]
        records = [record for record in await self._whole(TOPIC) if (record.partition, record.offset) not in refused]
        published = [msgspec.json.decode(record.value) for record in records]
        places = {"_partition": [record.partition for record in records], "_offset": [record.offset for record in records]}
        names = ["id", "at", *(name for name in event.fields if name not in ("id", "at"))]
        expected = pa.table({**places, **{name: [data.get(name) for data in published] for name in names}})
        rows = await asyncio.to_thread(read_events, self._store, event, names)
        of_files = pc.starts_with(rows["_topic"], "load:")
        self._same("archived events", expected, rows.filter(pc.invert(of_files)), [*places, *names])
        files = pa.concat_tables(loaded, promote_options="default") if loaded else expected.slice(0, 0)
        known = [name for name in names if name in files.column_names]
        self._same("loaded events", files, rows.filter(of_files), known)
        return len(rows)

    def _same(self, what: str, expected: pa.Table, found: pa.Table, names: Sequence[str]) -> None:
        """Both tables have the same rows, in whichever order."""
        order = [(name, "ascending") for name in names if name in ("_partition", "_offset", "id")]
        mine, theirs = (
            table.select(names).cast(pa.schema([found.schema.field(name) for name in names])).sort_by(order) for table in (expected, found)
        )
        if len(mine) != len(theirs):
            self._tally.add("lost" if len(mine) > len(theirs) else "doubled", f"{what}: rows", [(len(theirs), len(mine))])
        elif not mine.equals(theirs):
            wrong = [name for name in names if not mine[name].equals(theirs[name])]
            self._tally.add("different", f"{what}: columns", wrong)

    async def verify(self, serving: str, seed: int) -> int:
        """`tidemill verify` finds nothing in what is served of the versions in force. Returns how many values it compared."""
        views = [view for view in self._project.views.values() if view.name == view.plain_name]
        found = await asyncio.to_thread(
            check_served, views, partial(view_archive, self._store), over_http(serving), now_ms, lambda: None, _VERIFIED, seed
        )
        for compared in found:
            self._tally.add("different", f"verify: {compared.what}", [compared.examples] * compared.differ)
        return sum(compared.values for compared in found)

    async def _whole(self, topic: str) -> list[Any]:
        """The records of a topic; those of a partition in order."""
        ends = {tp: span.end for tp, span in (await offset_ranges(self._kafka, topic)).items() if span.end}
        reader, found, deadline = consumer(self._kafka), list[Any](), time.monotonic() + 120
        left = dict(ends)
        await reader.start()
        try:
            reader.assign(list(ends))
            for tp in ends:
                reader.seek(tp, 0)
            while left:
                assert time.monotonic() < deadline, f"{topic} could not be read: {left} is left"
                for tp, records in (await reader.getmany(timeout_ms=500)).items():
                    found += records
                    if records[-1].offset + 1 >= ends[TopicPartition(*tp)]:
                        left.pop(tp, None)
        finally:
            await reader.stop()
        return found
