"""What a service works by, and when it begins anew."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.beside import beside
from tests.patience import PATIENCE_SECONDS

from tidemill import Event, FeatureView, Model, Outcome, count, mean
from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion
from tidemill.declarations import Recording
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_event, write_model, write_view
from tidemill.errors import KafkaUnavailable, ProjectError, WorkerEnded
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.following import Following, InForce, every_record, everything_of, in_force, views_and_events_of, views_of

TRIP = Event("trip", {"taxi": str, "at": int, "miles": float}, "at")
FIRST = FeatureView("taxis", TRIP, "taxi", [count()], windows=["1h"])
SECOND = FeatureView("taxis", TRIP, "taxi", [count(), mean("miles")], windows=["1h"])
DECLARED = Project("town", {"trip": TRIP}, {"taxis": FIRST})
ONE = Definitions(1, 5, (write_event(TRIP),), (ViewVersion(write_view(FIRST), 1, {}),), {"taxis": 1})
FILLING = Definitions(2, 6, ONE.events, (*ONE.views, ViewVersion(write_view(SECOND), 2)), {"taxis": 1})
HANDED = FILLING.handed_over("taxis", 2, {0: 3}, 7)
SWAPPED = msgspec.structs.replace(HANDED, number=4, in_force={"taxis": 2})
USES = [views_of, views_and_events_of, everything_of]


def logs(definitions: Definitions) -> dict[str, str]:
    """View -> its log, as services know them."""
    return {name: str(view.log) for name, view in in_force(definitions, DECLARED).project.views.items()}


def test_a_service_knows_versions_once_they_are_handed_over() -> None:
    """Before the first record the file counts; a version that is being filled is not there; the plain name moves when it is in force."""
    assert in_force(NOTHING, DECLARED).project is DECLARED
    assert logs(ONE) == logs(FILLING) == {"taxis": "taxis.p4"}
    assert logs(HANDED) == {"taxis": "taxis.p4", "taxis@v2": "taxis.v2.p4"}
    assert logs(SWAPPED) == {"taxis@v1": "taxis.p4", "taxis": "taxis.v2.p4"}
    assert in_force(SWAPPED, DECLARED).project.catalogue == 4


def test_what_is_only_python_comes_from_the_file() -> None:
    """The catalogue has no pipelines and no recordings; of a model that the file does not declare there is no pipeline."""
    model = Model("tips", TRIP, "at", "taxi", [FIRST], Outcome(TRIP, "miles", "taxi"), list)
    recording = Recording("days", lambda _start, _end: iter(()), "2026-01-01", "2026-01-02")
    declared = Project("town", {"trip": TRIP}, {"taxis": FIRST}, {"tips": model}, {"days": recording}, Path("/town"))
    found = in_force(msgspec.structs.replace(ONE, models=(write_model(model),)), declared).project
    assert (found.models["tips"].pipeline, found.recordings, found.root) == (list, declared.recordings, Path("/town"))
    gone = in_force(msgspec.structs.replace(ONE, models=(write_model(model),)), DECLARED).project
    with pytest.raises(ProjectError, match="has no pipeline of model 'tips'"):
        gone.models["tips"].pipeline()


@pytest.mark.parametrize("uses", USES)
def test_another_description_stops_nothing(uses: object) -> None:
    """Only who shows descriptions takes them up."""
    assert callable(uses)
    views = tuple(
        msgspec.structs.replace(found, view=msgspec.structs.replace(found.view, description="x", entity_description="y"))
        for found in ONE.views
    )
    events = tuple(msgspec.structs.replace(event, description="z") for event in ONE.events)
    after = in_force(msgspec.structs.replace(ONE, number=2, views=views, events=events), DECLARED)
    assert uses(after) == uses(in_force(ONE, DECLARED))
    assert every_record(after) != every_record(in_force(ONE, DECLARED))


@pytest.mark.parametrize("uses", USES)
def test_what_is_the_same_stops_nothing(uses: object) -> None:
    """The first record of what runs already, and the fill of a version, change nothing that a service uses; a hand-over does."""
    assert callable(uses)
    used = [uses(in_force(each, DECLARED)) for each in (NOTHING, ONE, FILLING, HANDED, SWAPPED)]
    assert used[0] == used[1] == used[2]
    assert used[2] != used[3] != used[4]


def test_an_event_without_views_stops_only_who_uses_events() -> None:
    """Feature computation folds views alone."""
    other = Event("paid", {"shop": str, "at": int}, "at")
    after = Definitions(2, 6, (*ONE.events, write_event(other)), ONE.views, ONE.in_force)
    assert views_of(in_force(after, DECLARED)) == views_of(in_force(ONE, DECLARED))
    assert views_and_events_of(in_force(after, DECLARED)) != views_and_events_of(in_force(ONE, DECLARED))


class Work:
    """What a service does. `begun`: the numbers of the catalogues by which it began; `running`: how many runs there are now."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.running = self.most = 0

    async def run(self, now: InForce) -> None:
        """One run, which takes a while to stop."""
        self.begun.append(now.definitions.number)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            self.running -= 1


async def soon(work: Work, begun: list[int]) -> None:
    """Assert that runs began so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(180):
            while work.begun != begun:
                await asyncio.sleep(0.02)
    assert work.begun == begun


@pytest.mark.integration
async def test_work_begins_anew_when_what_it_uses_changes(kafka: str, topic_prefix: str) -> None:
    """One run at a time: the old one has ended before the new one begins, and a record that changes nothing for it starts none."""
    settings, work, declared = KafkaSettings(bootstrap_servers=kafka), Work(), Project(topic_prefix, DECLARED.events, DECLARED.views)
    following = Following(settings, declared, views_of, lambda _: None)
    async with beside(following.run(work.run)):
        await soon(work, [0])
        assert REGISTRY.get_sample_value("tidemill_catalogue_records") == 0
        for definitions in (ONE, FILLING, HANDED, SWAPPED):
            await append_definitions(settings, topic_prefix, definitions)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while work.begun[-1] != 4:
                await asyncio.sleep(0.02)
        assert work.begun in ([0, 3, 4], [0, 4])  # of records that come together only the last counts
        assert REGISTRY.get_sample_value("tidemill_catalogue_records") == 4
    assert (work.running, work.most) == (0, 1)
    assert following.now.definitions == SWAPPED


@pytest.mark.integration
async def test_work_that_ends_ends_the_service(kafka: str, topic_prefix: str) -> None:
    """Its error is raised; without one, WorkerEnded."""
    settings, declared = KafkaSettings(bootstrap_servers=kafka), Project(topic_prefix, DECLARED.events, DECLARED.views)

    async def fails(_now: InForce) -> None:
        raise ValueError("broken")

    async def ends(_now: InForce) -> None:
        return

    with pytest.raises(ValueError, match="broken"):
        await Following(settings, declared, views_of, lambda _: None).run(fails)
    with pytest.raises(WorkerEnded):
        await Following(settings, declared, views_of, lambda _: None).run(ends)


async def test_nothing_is_done_before_the_catalogue_was_read() -> None:
    """Without Kafka nobody knows whether the file or a catalogue counts: the reason is told, and no work begins."""
    told, work = list[Exception](), Work()
    following = Following(KafkaSettings(bootstrap_servers="127.0.0.1:1"), DECLARED, views_of, told.append)
    async with beside(following.run(work.run)), asyncio.timeout(180):
        while not told:
            await asyncio.sleep(0.1)
    assert isinstance(told[0], KafkaUnavailable)
    assert work.begun == []
