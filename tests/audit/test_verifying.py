"""Verifying as a part of the running audit: what store, rows and log agree on and no event says is found; under traffic and kills nothing is."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.audit.test_service import logged
from tests.features.rig import Worker, until
from tests.operations.conftest import Mirrored

from tidemill.archive.columns import event_folder
from tidemill.archive.rows import event_table
from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion
from tidemill.declarations.project import load_project
from tidemill.declarations.written import write_event, write_view
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.offline.tables import view_table
from tidemill.online.keys import state_key
from tidemill.records import AlertRecord
from tidemill.streams.alerts import read_alerts
from tidemill.streams.following import in_force
from tidemill.streams.topics import topic_specs
from tidemill_audit.verifying import verified_views

pytestmark = pytest.mark.integration
START_MS = 1_790_000_000_000
PROJECT = """
from tidemill import Event, FeatureView, age, count, last, mean, std, sum

PROJECT = {name!r}
paid = Event("paid", {{"at": int, "card": int, "shop": str, "amount": float | None, "no": str}}, "at", topic={name!r} + ".paid", id="no", partitions=3)
by_card = FeatureView("by_card", paid, "card", [count(), sum("amount"), std("amount")], windows=["1h", "24h"], dedupe={dedupe}, partitions=2)
by_shop = FeatureView("by_shop", paid, "shop", [mean("amount"), last("amount"), age()], windows=["1h"], partitions=1)
"""


class Whole(Mirrored):
    """A rig whose events take the whole way: through ingestion into the logs, and into the archive."""

    def declare(self, dedupe: int) -> None:
        """Few entities, so that each is soon drawn."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "project.py").write_text(PROJECT.format(name=self.name, dedupe=dedupe))

    def start(self) -> None:
        """All that carries events."""
        super().start()
        self.worker("tidemill_ingestion")

    def publish(self, events: int) -> None:
        """So many events, some late, some published twice."""
        asyncio.run(self._publish(events))

    async def _publish(self, events: int) -> None:
        topic = self.project.events["paid"].topic
        await ensure_topics(self.settings, {topic: topic_specs(self.project)[topic]})
        wave: dict[tuple[str, int], list[Record]] = {(topic, partition): [] for partition in range(3)}
        draw = self.draw = getattr(self, "draw", random.Random(1))
        self.published = getattr(self, "published", 0)
        for _ in range(events):
            self.published += draw.random() > 0.02
            known = START_MS + 1000 * self.published
            data = {
                "at": known - draw.choice([0, 0, 0, 60_000, 3_600_000, 90_000_000]), "card": draw.randrange(9), "shop": f"shop-{draw.randrange(5)}",
                "amount": draw.choice([None, draw.gauss(50, 20), 12.5]), "no": f"e{self.published}",
            }  # fmt: skip
            headers = [("ce_type", b"paid"), ("ce_recordedtime", b"%d" % known)]
            wave[topic, draw.randrange(3)].append((b"", json.dumps(data).encode(), headers))
        async with started_producer(self.settings) as writer:
            await send_wave(writer, wave)

    def archived(self) -> int:
        """How many events the archive has."""
        found = OfflineStore(self.offline).find(event_folder("paid"))
        topic = self.project.events["paid"].topic
        return 0 if found is None else sum(found.counter(counter_name(topic, partition)) for partition in range(3))

    def settled(self, events: int) -> None:
        """Returns once all of `events` events are archived, routed, folded and mirrored."""
        until(lambda: self.archived() == events, lambda: f"{self.archived()} of {events}\n" + self.tails())
        until(lambda: sum(self.ends().values()) >= 2 * events, lambda: f"{self.ends()}\n" + self.tails())
        self.wait_folded()
        self.wait_mirrored()

    def tails(self) -> str:
        """What the processes said last."""
        return "\n".join(worker.tail() for worker in self.workers)

    def alerts(self) -> list[AlertRecord]:
        """All alerts so far."""
        return asyncio.run(read_alerts(self.settings, self.name))

    def verified(self) -> list[AlertRecord]:
        """Those of verifying: rows and store are altered one after the other, and what compares these may look in between."""
        return [alert for alert in self.alerts() if alert.test == "verify"]


@pytest.fixture
def whole(addresses: tuple[str, str], topic_prefix: str, tmp_path: Path) -> Iterator[Whole]:
    """A project with its own topics, keys and tables; its processes end with the test."""
    made = Whole(topic_prefix, tmp_path / "project", *addresses)
    yield made
    made.stop()


def test_versions_that_are_filled_are_verified() -> None:
    """One that is younger than the version in force may still be filled; older ones go on."""
    made = load_project(Path(__file__).parents[1] / "demo_project")
    written = tuple(ViewVersion(write_view(made.views["zones"]), version, {}) for version in (1, 2))
    catalogue = Definitions(2, 0, (write_event(made.events["trips"]),), written, {"zones": 1})
    assert [view.name for view in verified_views(in_force(catalogue, made))] == ["zones"]
    later = in_force(msgspec.structs.replace(catalogue, in_force={"zones": 2}), made)
    assert [(view.name, view.version) for view in verified_views(later)] == [("zones@v1", 1), ("zones", 2)]
    assert len(verified_views(in_force(NOTHING, made))) == len(made.views)


def auditing(rig: Whole) -> Worker:
    """The audit, which verifies every two seconds."""
    return rig.worker("tidemill_audit", TIDEMILL_OFFLINE=rig.offline, TIDEMILL_AUDIT_PERIOD="2s", TIDEMILL_AUDIT_CPU="0.5")


def alter(rig: Whole, card: int, amount: float | None) -> float | None:
    """Change the amount of a card's newest row, and write the value that the rows give then: as if the log had said so. Returns the old one."""
    view, store, entity = rig.project.views["by_card"], OfflineStore(rig.offline), str(card)
    kernel, partition = ViewKernel(view), rig.partition("by_card", entity.encode())
    mine = pc.field("partition") == partition
    rows = store.snapshot(view_folder(view.log)).scan(filters=mine, among=("key", [entity]))
    times = rows["time"].to_pylist()
    newest = rows.slice(times.index(max(times)), 1).to_pylist()[0]
    changed = newest | {"v_amount": amount}
    log = store.topic_table(view_table(rig.project, view))
    log.delete(f'partition = {partition} AND "offset" = {newest["offset"]}')
    log.append(pa.Table.from_pylist([changed], rows.schema).select(log.spec.schema.names), {})
    fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
    snapshot = store.snapshot(view_folder(view.log))
    fold.advance(list(PartitionLog(view, snapshot.scan(filters=mine)).entries()), states)
    rig.store.set(state_key(rig.name, view.log, partition, entity.encode()), kernel.encode(states[entity.encode()]))
    found: float | None = newest["v_amount"]
    return found


def test_what_the_audit_cannot_see_is_found(whole: Whole) -> None:
    """A value and its row that were altered alike, and an archived row that was changed: told with values and events, closed when mended."""
    whole.start()
    whole.publish(600)
    whole.settled(600)
    audit = auditing(whole)
    until(lambda: audit.metric("tidemill_audit_verified_values_total") > 200, audit.tail)
    assert audit.metric("tidemill_audit_differing_verified_values") == 0
    amount = alter(whole, 4, 1000.0)
    until(lambda: audit.metric("tidemill_audit_differing_verified_values") > 0, audit.tail)
    until(lambda: [(alert.view, alert.state) for alert in whole.verified()] == [("by_card", "opened")], audit.tail)
    (opened,) = whole.verified()
    assert "by_card of 4 at" in opened.message
    (line,) = logged(audit, "values are not what SQL makes of the archived events")
    assert {"known", "time", "id", "counts", "amount"} == line["events"][0].keys()
    rounds = audit.metric("tidemill_audit_rounds_total")
    until(lambda: audit.metric("tidemill_audit_rounds_total") > rounds + 1, audit.tail)
    assert audit.metric("tidemill_audit_differing_values") == 0
    alter(whole, 4, amount)
    until(lambda: [alert.state for alert in whole.verified()] == ["opened", "closed"], audit.tail)
    store, paid = OfflineStore(whole.offline), whole.project.events["paid"]
    rows = store.snapshot(event_folder("paid")).scan(order=("_offset",))
    row = max(rows.to_pylist(), key=lambda row: row["at"])
    archive = store.topic_table(event_table(whole.project, paid, store.snapshot(event_folder("paid")).schema))
    archive.delete(f"_partition = {row['_partition']} AND _offset = {row['_offset']}")
    archive.append(pa.Table.from_pylist([row | {"amount": 5e6}], rows.schema).select(archive.spec.schema.names), {})
    until(lambda: "opened" in [alert.state for alert in whole.verified()[2:]], audit.tail)
    assert audit.metric("tidemill_audit_verify_cpu_seconds_total") > 0


def test_under_traffic_and_kills_nothing_differs(whole: Whole) -> None:
    """Workers and the audit are killed while events flow; stores lag, and no value is said to differ."""
    whole.start()
    features, offline, ingestion = whole.workers
    audit = auditing(whole)
    for step in range(9):
        whole.publish(150)
        victim, module = [(features, "tidemill_features"), (offline, "tidemill_offline"), (ingestion, "tidemill_ingestion")][step % 3]
        if step % 2:
            victim.send(signal.SIGKILL)
            victim.wait_ended()
            begun = whole.worker(module, TIDEMILL_OFFLINE=whole.offline, TIDEMILL_FLUSH_SECONDS="0.2")
            features, offline, ingestion = (begun if old is victim else old for old in (features, offline, ingestion))
        if step == 5:
            audit.send(signal.SIGKILL)
            audit.wait_ended()
            audit = auditing(whole)
        before = audit.metric("tidemill_audit_verified_values_total")
        until(lambda: audit.metric("tidemill_audit_verified_values_total") > before, lambda: audit.tail() + whole.tails())  # noqa: B023
    whole.settled(1_350)
    before = audit.metric("tidemill_audit_verified_values_total")
    until(lambda: audit.metric("tidemill_audit_verified_values_total") > before + 200, audit.tail)
    assert audit.metric("tidemill_audit_differing_verified_values") == 0
    assert audit.metric("tidemill_audit_undecided_verified_values_total") == 0
    assert whole.alerts() == []
