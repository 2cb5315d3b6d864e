"""What is compared when the storm is over. Each check adds to the tally and says what it found."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx
import msgspec
import pyarrow.compute as pc
from aiokafka import TopicPartition
from tests.faults import oracle
from tests.faults.driver import Driver
from tests.faults.recording import Sent

from tidemill.kafka import consumer
from tidemill.kafka_topics import offset_ranges
from tidemill.offline_store import OfflineStore
from tidemill.project import Project
from tidemill.proof.audit import audit
from tidemill.proof.replay import logged, replay
from tidemill.records import DeadLetterRecord, ResultRecord, decoder
from tidemill.redis_link import RedisLink
from tidemill.settings import KafkaSettings
from tidemill.topics import dead_letters_topic, entity_key, partition_of, results_topic, view_folder, view_topic

Position = tuple[int, int]


class Tally:
    """Counts of what is wrong, all 0 when nothing is, and a line about each."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(("lost", "doubled", "different", "predictions_missing", "predictions_doubled"), 0))
        self.findings: list[str] = []

    def add(self, count: str, what: str, found: Iterable[object]) -> None:
        """Adds one for each thing found, and shows the first few."""
        items = list(found)
        if items:
            self.counts[count] += len(items)
            self.findings.append(f"{count}: {what}: {len(items)}, such as {items[:3]}")


class Checks:
    """Everything that is compared, with what was published and answered on one side and what the system holds on the other.

    `written_again`: records of views that ingestion, and of predictions that a client's repetition, wrote once more: faults that hit.
    `answered_by_repetition`: predictions whose client repeated an unanswered request and got another answer than the first record holds,
    because events were applied in between. The log has both records; its readers take the first.
    """

    def __init__(self, project: Project, driver: Driver, store: OfflineStore, kafka: KafkaSettings, tally: Tally) -> None:
        self._project, self._driver, self._store, self._kafka, self._tally = project, driver, store, kafka, tally
        self.written_again: Counter[str] = Counter()
        self.answered_by_repetition: list[str] = []
        self._good = {position: sent for position, sent in driver.published.items() if sent.reason is None}

    async def application_topics(self) -> None:
        """The topics hold what was acknowledged, each event once: everything else is compared with these positions."""
        topics = [event.topic for event in self._project.events.values()]
        sent = Counter((topic, partition) for topic, partition, _ in self._driver.published)
        held = await offset_ranges(self._kafka, *topics)
        wrong = [(place, sent[place], span) for place, span in held.items() if (span.begin, span.end) != (0, sent[place])]
        self._tally.add("doubled", "application topics (place, acknowledged, held)", wrong)

    async def views(self) -> None:
        """Offline rows of every view: dense, and after leaving out what ingestion sent again exactly the good events, with their values."""
        for view in self._project.views.values():
            held = await offset_ranges(self._kafka, view_topic(self._project.name, view.log))
            expected: dict[int, dict[Position, Sent]] = {partition: {} for partition in range(view.partitions)}
            for (topic, source, offset), sent in self._good.items():
                if topic == view.source.topic:
                    key = entity_key(sent.data[view.key.field])
                    expected[partition_of(key, view.partitions)][source, offset] = sent
            for partition in range(view.partitions):
                table = self._store.scan(view_folder(view.log), filters=pc.field("partition") == partition)
                end = held[TopicPartition(view_topic(self._project.name, view.log), partition)].end
                self._view_partition(f"{view.name}[{partition}]", view.key.field, table.to_pylist(), expected[partition], end)

    def _view_partition(self, name: str, key: str, rows: list[dict[str, Any]], expected: dict[Position, Sent], end: int) -> None:
        if [row["offset"] for row in rows] != list(range(end)):
            self._tally.add("different", f"{name}: offsets of its rows are not 0 to {end}", [len(rows)])
        last: dict[int, int] = {}
        taken: list[Position] = []
        for row in rows:
            source, offset = row["source_partition"], row["source_offset"]
            if offset > last.get(source, -1):
                last[source] = offset
                taken.append((source, offset))
                sent = expected.get((source, offset))
                if sent is not None and not _same(row, sent, key):
                    self._tally.add("different", f"{name}: a row", [(row, sent)])
        counts = Counter(taken)
        self.written_again["views"] += len(rows) - len(taken)
        self._tally.add("lost", name, expected.keys() - counts.keys())
        self._tally.add("doubled", name, [position for position, count in counts.items() if count > 1])
        self._tally.add("different", f"{name}: rows of no good event", counts.keys() - expected.keys())

    def requests_and_outcomes(self) -> None:
        """Every order was announced and every return is an outcome; what ingestion sent again has the same source."""
        for table, event in (("requests", "shop.ordered"), ("outcomes", "shop.returned")):
            rows = self._store.scan(table, ["source_topic", "source_partition", "source_offset"]).to_pylist()
            found = {tuple(row.values()) for row in rows}
            expected = {position for position, sent in self._good.items() if sent.event == event}
            self._tally.add("lost", table, expected - found)
            self._tally.add("different", f"{table} of no good event", found - expected)

    async def dead_letters(self) -> int:
        """Exactly the bad events became dead letters, each with its reason. Returns how many there are."""
        expected = {position: sent.reason for position, sent in self._driver.published.items() if sent.reason is not None}
        letters = [decoder(DeadLetterRecord).decode(value) for value in await self._whole_topic(dead_letters_topic(self._project.name))]
        found = {letter.source: letter.reason for letter in letters}
        self._tally.add("lost", "dead letters", expected.keys() - found.keys())
        self._tally.add("different", "dead letters of good events", found.keys() - expected.keys())
        reasons = [(place, reason, expected[place]) for place, reason in found.items() if expected.get(place, reason) != reason]
        self._tally.add("different", "reasons of dead letters", reasons)
        return len(found)

    async def features(self, url: str, now_ms: int) -> int:
        """What serving answers for every entity is what plain loops over the publications give. Returns how many values were compared."""
        compared = 0
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
            for view in self._project.views.values():
                used = oracle.used(view.name, self._driver.in_order)
                names = [feature.name for feature in view.served]
                body = {"entities": {view.key.name: list(used)}, "features": [f"{view.name}:{name}" for name in names], "as_of": now_ms}
                response = await http.post("/get-online-features", json=body)
                assert response.status_code == httpx.codes.OK, response.text
                columns = response.json()["results"][1:]
                for row, (entity, events) in enumerate(used.items()):
                    expected = oracle.features(view.name, events, now_ms)
                    served = {name: column["values"][row] for name, column in zip(names, columns, strict=True)}
                    assert served.keys() == expected.keys()
                    wrong = [(entity, name, served[name], expected[name]) for name in names if not _equal(served[name], expected[name])]
                    self._tally.add("different", f"features of {view.name} (entity, name, served, expected)", wrong)
                    compared += len(names)
        return compared

    async def online_store(self, redis_url: str) -> int:
        """The audit: every entity and fence in Redis is what the offline rows give, byte for byte. Returns how many were compared."""
        async with RedisLink(redis_url, timeout_seconds=10) as link:
            report = await audit(self._project, self._store, link, wait_seconds=30)
        self._tally.add("different", "audit", report.examples)
        entities = sum(len(oracle.used(view, self._driver.in_order)) for view in self._project.views)
        if report.checked < entities:
            self._tally.add("lost", "entities that the audit did not see", [entities - report.checked])
        return report.checked

    def predictions(self) -> None:
        """Every prediction that was answered is in the log, once for its readers, as it was answered, and can be recomputed to the bit."""
        predictions = logged(self._store)
        outputs = {prediction.id: prediction.output for prediction in predictions}
        answered = self._driver.answered
        self._tally.add("predictions_missing", "answered and not in the log", answered.keys() - outputs.keys())
        self._tally.add("predictions_doubled", "ids", [id for id, n in Counter(p.id for p in predictions).items() if n > 1])
        self._tally.add("different", "logged and never asked for", outputs.keys() - self._driver.asked.keys())
        raw = self._store.scan("predictions", ["id", "output"]).to_pylist()
        self.written_again["predictions"] = len(raw) - len(predictions)
        records = {(row["id"], row["output"]) for row in raw}
        given = {id: answer["probability"] for id, answer in answered.items()}
        self._tally.add("different", "answered and in no record", given.items() - records)
        self.answered_by_repetition = [id for id, output in given.items() if output != outputs.get(id)]
        self._tally.add("different", "replayed", [item for item in replay(self._project, self._store, predictions) if not item.equal])

    async def results(self) -> Counter[str]:
        """Every prediction about an order has the one result that the rule gives it; the topic says what the table says. Returns the statuses."""
        rows = [msgspec.convert(row, ResultRecord) for row in self._store.scan("results").to_pylist()]
        published = [decoder(ResultRecord).decode(value) for value in await self._whole_topic(results_topic(self._project.name))]
        self._tally.add("different", "results topic and table", [pair for pair in zip(rows, published, strict=False) if pair[0] != pair[1]])
        if [row.seq for row in rows] != list(range(len(published))):
            self._tally.add("different", f"{len(rows)} rows of results, {len(published)} in the topic, not numbered alike", [0])
        counts = Counter(row.prediction for row in rows)
        about = {id: asked for id, asked in self._driver.asked.items() if asked[0] is not None}
        self._tally.add("predictions_missing", "without a result", about.keys() - counts.keys())
        self._tally.add("predictions_doubled", "with two results", [id for id, count in counts.items() if count > 1])
        outcomes = oracle.by_subject(self._driver.in_order)
        for row in rows:
            expected = oracle.joined(row.subject, row.time, outcomes)
            if (row.status, row.known, row.outcome) != expected or about.get(row.prediction) != (row.subject, row.time):
                self._tally.add("different", "a result", [(row, expected)])
        return Counter(row.status for row in rows)

    async def _whole_topic(self, topic: str) -> list[bytes]:
        """The values of a topic with one partition."""
        target = TopicPartition(topic, 0)
        end = (await offset_ranges(self._kafka, topic))[target].end
        reader, values, deadline = consumer(self._kafka), list[bytes](), time.monotonic() + 60
        await reader.start()
        try:
            reader.assign([target])
            reader.seek(target, 0)
            while len(values) < end:
                assert time.monotonic() < deadline, f"{topic} holds {end} records, {len(values)} could be read"
                fetched = await reader.getmany(target, timeout_ms=500)
                values += [record.value for record in fetched.get(target, ())]
        finally:
            await reader.stop()
        return values


def _same(row: dict[str, Any], sent: Sent, key: str) -> bool:
    values = {name.removeprefix("v_"): value for name, value in row.items() if name.startswith("v_")}
    named = (row["key"], row["id"], row["time"], row["known"])
    expected = (str(sent.data[key]), sent.data["event_id"], sent.time_ms, sent.known_ms)
    return named == expected and all(sent.data[name] == value for name, value in values.items())


def _equal(served: float | None, expected: float) -> bool:
    return served is None if math.isnan(expected) else served == expected
