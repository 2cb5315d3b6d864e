"""Filling against a real broker and a real archive: nothing missed, nothing doubled, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from tests.offline.lake import Sent
from tests.operations.fill.shop import (
    LOAD,
    T0,
    Raw,
    StandIn,
    archive,
    commit,
    declare,
    ends,
    expected,
    folded,
    publish,
    raws,
    routing,
)

from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.load import Load
from tidemill.archive.reading import read_events
from tidemill.archive.retention import ArchiveSettings
from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import CatalogueChanged, TidemillError
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.kernel.view import ViewKernel
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import view_table
from tidemill.operations.applying import Applying, Planned
from tidemill.operations.fill.job import Filled, Phase
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions
from tidemill.streams.topics import topic_specs, view_topic

pytestmark = pytest.mark.integration


class Told:
    """What a watcher heard."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, Phase, int, int]] = []
        self.done: list[Filled] = []

    def filling(self, version: ViewVersion, phase: Phase, done: int, total: int) -> None:
        """Progress of a phase."""
        self.phases.append((version.log, phase, done, total))

    def filled(self, version: ViewVersion, done: Filled) -> None:
        """A version is handed over."""
        self.done.append(done)

    def waiting(self, view: FeatureView, online: int, offline: int, total: int) -> None:
        """Progress of the stores."""


@dataclass
class Shop:
    """A shop on one broker, with an archive."""

    name: str
    settings: KafkaSettings
    folder: Path
    store: OfflineStore

    @property
    def topic(self) -> str:
        """Of its event."""
        return f"{self.name}.paid"

    def declare(self, **options: Any) -> Project:
        """Its project, written down."""
        return declare(self.folder, self.name, **options)

    def job(self, project: Project) -> Applying:
        """What applies a project."""
        return Applying(project, self.store, self.settings, ArchiveSettings(days=None))

    async def begun(self, project: Project) -> tuple[Applying, Planned, Definitions]:
        """A plan whose first record is written."""
        job = self.job(project)
        planned = await job.planned()
        return job, planned, await job.begin(planned)

    async def applied(self, project: Project) -> Told:
        """Fills, hands over, and puts in force without waiting for stores, since no services run."""
        told = Told()
        job, planned, now = await self.begun(project)
        await job.finish(planned, await job.fill(planned, now, told))
        return told

    async def view(self, name: str = "cards") -> FeatureView:
        """The view in force, or another version."""
        return project_of(await read_definitions(self.settings, self.name), self.name).views[name]


@pytest.fixture
def shop(kafka: str, topic_prefix: str, tmp_path: Path) -> Shop:
    """A shop of a test's own, without topics."""
    return Shop(topic_prefix, KafkaSettings(bootstrap_servers=kafka), tmp_path / "shop", OfflineStore(tmp_path / "offline"))


async def live(shop: Shop, events: Sequence[Raw], routed: int, archived: int) -> None:
    """Publishes events, of which ingestion has routed some of each partition, and the archive has some."""
    await publish(shop.settings, events)
    archive(shop.store, shop.declare(), [event for event in events if event.offset < archived])
    await commit(shop.settings, shop.declare(), dict.fromkeys(range(3), routed))


@pytest.mark.parametrize("ahead", [None, "30m"])
@pytest.mark.parametrize(("routed", "archived"), [(60, 60), (60, 40), (25, 40)])
async def test_a_filled_log_folds_to_what_the_events_say(shop: Shop, routed: int, archived: int, ahead: str | None) -> None:
    """Late, doubled and keyless events of three partitions, a file, a field from the undeclared part; the archive first, then the topic,
    then ingestion from the hand-over, wherever it was before: as if each event had been folded once when it became known."""
    await shop.applied(shop.declare())
    events = [event for event in raws(shop.topic, 3, 60, 7) if event.data.get("tip") != "much"]
    events = [event._replace(offset=number) for p in range(3) for number, event in enumerate(e for e in events if e.partition == p)]
    tail = [event._replace(known=T0 + 10**9 + event.offset, data={**event.data, "card": "abc"[event.partition]})
            if event.offset >= archived else event for event in events]  # fmt: skip
    files = raws(LOAD, 1, 30, 8)
    await live(shop, tail, routed, archived)
    archive(shop.store, shop.declare(), files)
    told = await shop.applied(shop.declare(later=True, ahead=ahead))
    view, (done,) = await shop.view(), told.done
    assert view.version == 2
    assert (done.archived, done.live) == (len([event for event in tail if event.offset < archived]) + len(files), 0)
    async with routing(StandIn(shop.settings, shop.name, shop.topic, 3)):
        pass
    states, folds = await folded(shop.settings, shop.name, view)
    assert states == expected(view, [*tail, *files])
    assert [(fold.fence.poison, fold.fence.since_ms) for fold in folds] == [(0, 0)] * 2
    assert told.phases[-1][1:] == ("archive", done.archived, len([event for event in tail if event.offset < archived]) + len(files))


async def test_events_come_at_full_pace_while_a_version_is_handed_over(shop: Shop) -> None:
    """Publisher and ingestion go on during fill and hand-over: old and new version have every event once."""
    await shop.applied(shop.declare())

    def made(first: int, end: int) -> list[Raw]:
        return [
            Raw(shop.topic, p, n, T0 + n, {"at": T0 + n, "card": "abcdef"[2 * p + n % 2], "amount": n / 4, "no": f"{p}-{n}", "tip": n / 8})
            for n in range(first, end)
            for p in range(3)
        ]

    events, applied = made(0, 3_000), asyncio.Event()
    await publish(shop.settings, events)
    archive(shop.store, shop.declare(), events)

    async def rest() -> None:
        """As fast as it goes, then slowly until the version is applied, and once more."""
        more = True
        while more:
            more, start = not applied.is_set(), len(events) // 3
            events.extend(made(start, start + (300 if start < 12_000 else 10)))
            await publish(shop.settings, events[3 * start :])
            await asyncio.sleep(0 if start < 12_000 else 0.1)

    async with routing(StandIn(shop.settings, shop.name, shop.topic, 3)) as ingestion:
        while ingestion.routed < 6_000:
            await asyncio.sleep(0.05)
        publishing = asyncio.create_task(rest())
        told = await shop.applied(shop.declare(later=True))
        applied.set()
        await publishing
    assert sum(told.done[0].handover.values()) < len(events)
    now = project_of(await read_definitions(shop.settings, shop.name), shop.name)
    for name in ("cards", "cards@v1"):
        states, folds = await folded(shop.settings, shop.name, now.views[name])
        assert states == expected(now.views[name], events)
        assert [fold.fence.duplicates for fold in folds] == [0, 0]


async def test_history_that_is_loaded_later(shop: Shop, tmp_path: Path) -> None:
    """The next plan fills another version of the view, with the file's events and all others; then there is nothing to do."""
    await shop.applied(shop.declare())
    events = raws(shop.topic, 3, 20, 7)
    await live(shop, events, 20, 20)
    project, rows = shop.declare(), [event for event in raws("", 1, 30, 8, T0 - 10**8) if event.data["no"]]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(event.data) + "\n" for event in rows))
    (file,) = history_files([tmp_path / "history.jsonl"])
    report = Load(project, project.events["paid"], shop.store, FileRules(), lambda *_: None).run(file, lambda *_: None)
    planned = await shop.job(project).planned()
    assert [change.details for change in planned.plan.changes] == [("history was loaded from 1 file since version 1 was filled",)]
    await shop.applied(project)
    loaded = read_events(shop.store, project.events["paid"], ["no"], filters=pc.field("_topic") != shop.topic).to_pylist()
    assert len(loaded) == report.loaded > 10
    known = [rows[row["_offset"]]._replace(topic=row["_topic"], known=row["_known"], offset=row["_offset"]) for row in loaded]
    states, _ = await folded(shop.settings, shop.name, await shop.view())
    assert states == expected(await shop.view(), [*events, *known])
    assert (await shop.job(project).planned()).plan.changes == []


async def test_a_field_that_no_event_has(shop: Shop) -> None:
    """The plan names its features, which are null in a window that begins before the change; all others have their values."""
    await shop.applied(shop.declare())
    events = [
        event._replace(data={name: value for name, value in event.data.items() if name != "tip"}) for event in raws(shop.topic, 3, 20, 7)
    ]
    await live(shop, events, 20, 20)
    job, planned, now = await shop.begun(shop.declare(later=True))
    survey = planned.surveys["cards", 2]
    view, changed_ms = await shop.view("cards@v2"), planned.plan.first.time
    of_tip = [feature.name for feature in view.served if feature.aggregation.column == "tip"]
    assert (survey.archived, survey.live, survey.missing) == (60, 0, tuple(of_tip))
    assert of_tip == ["mean_tip_1h", "mean_tip_24h", "last_tip"]
    await job.finish(planned, await job.fill(planned, now, Told()))
    view, kernel = await shop.view(), ViewKernel(await shop.view())
    states, folds = await folded(shop.settings, shop.name, view)
    assert states == expected(view, events)
    assert [fold.fence.since_ms for fold in folds] == [0, 0]
    for hours, null in ((0, of_tip), (2, of_tip[1:]), (25, of_tip[2:])):
        complete = kernel.read(next(iter(states.values())), changed_ms + hours * 3_600_000).complete
        assert [feature.name for feature, held in zip(view.served, complete, strict=True) if not held] == null


@pytest.mark.parametrize("later", [False, True])
async def test_a_first_plan_for_a_log_that_is_there(shop: Shop, later: bool) -> None:
    """Services ran by the file: the log is version 1, unless its records lack what the view folds by now; then another is filled."""
    project, events = shop.declare(), raws(shop.topic, 3, 20, 7)
    await ensure_topics(shop.settings, topic_specs(project))
    await live(shop, events, 20, 20)
    router, view = Router(project), project.views["cards"]
    wave: dict[tuple[str, int], list[Any]] = {}
    for event in events:
        for topic, partition, key, value in router.route(
            event.topic, event.partition, event.offset, event.known, event.key, event.value, event.headers
        ):
            if topic == view_topic(shop.name, view.log):
                wave.setdefault((topic, partition), []).append((key, value, []))
    async with started_producer(shop.settings) as made:
        await send_wave(made, wave)
    mirror, table = shop.store.topic_table(view_table(project, view)), view_table(project, view)
    for (topic, partition), records in wave.items():
        rows = [Sent(offset, key, value) for offset, (key, value, _) in enumerate(records)]
        mirror.append(table.rows_of({partition: rows}), {(topic, partition): (0, len(rows))})
    planned = await shop.job(shop.declare(later=later)).planned()
    assert [found.version for found in planned.plan.first.views] == [2 if later else 1]
    assert [found.version for found in planned.plan.fills] == ([2] if later else [])


async def test_a_fill_that_was_broken_off_is_given_up(shop: Shop) -> None:
    """The next one begins with another, empty log; the first, which had only been asleep, can change nothing any more."""
    await shop.applied(shop.declare())
    await live(shop, _plain(shop, 20), 20, 20)
    asleep, old_plan, old_now = await shop.begun(shop.declare(later=True))
    await shop.applied(shop.declare(later=True))
    before = await read_definitions(shop.settings, shop.name)
    states = (await folded(shop.settings, shop.name, await shop.view()))[0]
    assert (await shop.view()).version == 3
    with pytest.raises(CatalogueChanged, match="changed by somebody else"):
        await asleep.fill(old_plan, old_now, Told())
    assert await read_definitions(shop.settings, shop.name) == before
    assert (await folded(shop.settings, shop.name, await shop.view()))[0] == states == expected(await shop.view(), _plain(shop, 20))


async def test_somebody_else_who_writes_is_noticed(shop: Shop) -> None:
    """A record that is not ours, before or between ours, ends the fill, and nothing is handed over."""
    await shop.applied(shop.declare())
    await live(shop, _plain(shop, 20), 20, 20)
    job, planned, now = await shop.begun(shop.declare(later=True))
    topic = view_topic(shop.name, planned.plan.fills[0].log)
    await ensure_topics(shop.settings, {topic: topic_specs(project_of(now, shop.name))[topic]})

    class Intruder(Told):
        def filling(self, version: ViewVersion, phase: Phase, done: int, total: int) -> None:
            raise AssertionError

    async with started_producer(shop.settings) as made:
        await send_wave(made, {(topic, 1): [(b"a", b"{}", [])]})
    with pytest.raises(TidemillError, match="somebody else writes to") as caught:
        await job.fill(planned, now, Intruder())
    assert "tidemill apply" in caught.value.mend
    assert await read_definitions(shop.settings, shop.name) == now


async def test_after_the_hand_over_the_next_one_only_waits(shop: Shop) -> None:
    """Killed between hand-over and end: nothing is filled again."""
    await shop.applied(shop.declare())
    await live(shop, _plain(shop, 20), 20, 20)
    job, planned, now = await shop.begun(shop.declare(later=True))
    handed = await job.fill(planned, now, Told())
    told = await shop.applied(shop.declare(later=True))
    assert told.done == []
    after = await read_definitions(shop.settings, shop.name)
    assert (after.in_force, after.number) == ({"cards": 2}, handed.number + 2)


async def test_a_stack_of_today_is_taken_over(shop: Shop) -> None:
    """Its log has its records, so nothing is filled, and ingestion does not go back."""
    project, events = shop.declare(), _plain(shop, 20)
    await ensure_topics(shop.settings, topic_specs(project))
    await live(shop, events, 20, 20)
    router = Router(project)
    routed = [router.route(e.topic, e.partition, e.offset, e.known, b"k", e.value, e.headers)[0] for e in events]
    async with started_producer(shop.settings) as made:
        for topic, partition, key, value in routed:
            await send_wave(made, {(topic, partition): [(key, value, [])]})
    assert (await shop.applied(project)).done == []
    now = await read_definitions(shop.settings, shop.name)
    assert (now.number, now.in_force, now.routed_from("paid", 0, 20, 0)) == (1, {"cards": 1}, 20)


async def test_the_first_catalogue(shop: Shop) -> None:
    """A view whose event was archived before there was a catalogue, and whose log is empty, is filled, into a log to which nobody writes."""
    project = shop.declare()
    await ensure_topics(shop.settings, topic_specs(project))
    await live(shop, _plain(shop, 5), 5, 5)
    (done,) = (await shop.applied(project)).done
    view = await shop.view()
    assert (done.archived, view.version) == (15, 2)
    assert await ends(shop.settings, view_topic(shop.name, view.log)) == done.ends
    assert (await folded(shop.settings, shop.name, view))[0] == expected(view, _plain(shop, 5))


def _plain(shop: Shop, each: int) -> list[Raw]:
    """Events without any trouble."""
    return [
        Raw(shop.topic, p, n, T0 + n, {"at": T0 + n, "card": "abc"[p], "amount": n / 4, "no": f"{p}-{n}", "tip": 1.0})
        for p in range(3)
        for n in range(each)
    ]
