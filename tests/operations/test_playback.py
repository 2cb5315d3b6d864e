"""A recording is cut right, requests are asked when they are due, and no prediction sees the future or misses the past."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata
from hypothesis import given
from hypothesis import strategies as st
from tests.offline.lake import ROOT, read_topic
from tests.patience import PATIENCE_SECONDS

from tidemill import Event, FeatureView, Model, Outcome, Recording, count
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError
from tidemill.local.stack import Stack
from tidemill.operations.playback import Agenda, Due, Playback, PlayedStep, Round, _poll, open_playback, rounds, steps
from tidemill.records import PredictionRecord, ViewRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.dead_letter_log import read_dead_letters
from tidemill.streams.topics import predictions_topic, view_topic

PROJECT = load_project(Path(__file__).parents[1] / "live_project")
(RECORDING,) = PROJECT.recordings.values()
BIG_TIP = PROJECT.models["big_tip"]
START_MS = 1_767_225_600_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
STEP_MS = 10 * MINUTE_MS


def recording(known: list[int]) -> Recording:
    """A recording of events that are known at these moments, each with its number."""

    def events(start_ms: int, end_ms: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
        return ((at, "e", {"n": n}) for n, at in enumerate(known) if start_ms < at <= end_ms)

    return Recording("tested", events, start="1970-01-01", end="1970-01-02")


@given(st.lists(st.integers(0, 100)), st.integers(0, 50), st.integers(0, 100), st.integers(1, 40))
def test_steps_hold_every_event_once_in_its_step(known: list[int], start: int, length: int, step: int) -> None:
    """Steps follow each other up to the end; each holds the events known in (its start, its end], in order."""
    end = start + length
    made = list(steps(recording(sorted(known)), start, end, step))
    ends = [step_end for step_end, _ in made]
    assert ends == [min(start + i * step, end) for i in range(1, -(-length // step) + 1)]
    for begin, (step_end, moments) in zip([start, *ends], made, strict=False):
        assert [at for at, _, _ in moments] == [at for at in sorted(known) if begin < at <= step_end]
    numbers = [data["n"] for _, moments in made for _, _, data in moments]
    assert numbers == sorted(numbers)


def test_a_recording_out_of_order_is_refused() -> None:
    """Events that would be published late are a mistake of the recording, told with both moments."""
    with pytest.raises(TidemillError, match="recording 'tested' is not in order of time: e at 3 comes after 5; yield events in order"):
        list(steps(recording([5, 3]), 0, 10, 10))


def order(ride: str, pickup_ms: int) -> dict[str, Any]:
    """The event that announces a prediction."""
    return {"ride": ride, "at": 0, "pickup_at": pickup_ms, "zone": "a", "driver": 1, "distance": 0.5}


def asked(agenda: Agenda, time_ms: int) -> list[tuple[int, str]]:
    """What is due: moment and subject."""
    return [(due.at_ms, due.instance["subject"]) for due in agenda.due(time_ms)]


def test_requests_are_due_at_the_last_step_before_their_time() -> None:
    """A request waits for its moment, is asked once, and in order of time, then of announcement."""
    agenda = Agenda([BIG_TIP], 10)
    for ride, at in (("late", 39), ("b", 20), ("c", 29), ("a", 19)):
        agenda.announce("rides.ordered", order(ride, at))
    agenda.announce("rides.taken", {"ride": "other"})
    assert asked(agenda, 9) == []
    assert asked(agenda, 20) == [(10, "a"), (20, "b"), (20, "c")]
    assert asked(agenda, 20) == []
    assert asked(agenda, 30) == [(30, "late")]


def test_a_request_announced_after_its_time_is_due_at_once() -> None:
    """It is asked at the step in which it became known."""
    agenda = Agenda([BIG_TIP], 10)
    agenda.announce("rides.ordered", order("missed", 15))
    assert asked(agenda, 500) == [(10, "missed")]


def test_a_request_gives_what_the_model_needs() -> None:
    """The instance has the subject, and exactly the entities and values of the model."""
    agenda = Agenda([BIG_TIP], 10)
    agenda.announce("rides.ordered", order("r", 15))
    assert list(agenda.due(15)) == [Due(10, 1, "big_tip", {"subject": "r", "entities": {"zone": "a", "driver": 1, "distance": 0.5}})]


def test_a_value_that_is_left_out_is_null() -> None:
    """Ingestion takes an event without a field that may be null, so a play does."""
    agenda = Agenda([BIG_TIP], 10)
    agenda.announce("rides.ordered", {name: value for name, value in order("r", 15).items() if name != "driver"})
    (due,) = agenda.due(15)
    assert due.instance["entities"] == {"zone": "a", "driver": None, "distance": 0.5}


def test_the_time_of_a_request_may_be_text() -> None:
    """A project may write its times as RFC 3339, and number its subjects."""
    event = Event("e", {"at": str, "n": int}, time="at")
    view = FeatureView("v", event, "n", [count()])
    agenda = Agenda([Model("m", event, "at", "n", [view], Outcome(event, "n > 1", subject="n"), dict)], 1000)
    agenda.announce("e", {"at": "1970-01-01T00:00:02.5Z", "n": 7})
    assert asked(agenda, 3000) == [(2000, "7")]


Orders = list[tuple[int, int]]
"""Known time and time of request of each event."""


def rounds_of(orders: Orders, *, gather: bool, length: int = 120, step: int = 10) -> tuple[list[Round], list[tuple[int, list[int]]]]:
    """The rounds of a play of these orders, and the steps of the same play, each with the numbers of its events."""
    moments = [(known, "rides.ordered", order(str(n), at)) for n, (known, at) in enumerate(sorted(orders))]
    what = Recording("tested", lambda begin, end: (m for m in moments if begin < m[0] <= end), start="1970-01-01", end="1970-01-02")
    cut = list(steps(what, 0, length, step))
    agenda = Agenda([BIG_TIP], step)
    return list(rounds(cut, agenda, gather=gather)), [(end, [int(data["ride"]) for _, _, data in found]) for end, found in cut]


ORDERS = st.lists(st.tuples(st.integers(1, 120), st.integers(0, 160)), max_size=12)


@given(ORDERS)
def test_a_request_comes_after_all_events_known_by_then_and_before_the_others(orders: Orders) -> None:
    """Gathered or not, the same predictions are asked for at the same moments, when exactly the same events have been published."""
    asked: list[list[tuple[int, Due, list[int]]]] = []
    for gather in (False, True):
        made, cut = rounds_of(orders, gather=gather)
        published: list[int] = []
        asked.append([])
        for time_ms, moments, due in made:
            published += [int(data["ride"]) for _, _, data in moments]
            asked[-1] += [(time_ms, item, list(published)) for item in due]
        assert published == [number for _, numbers in cut for number in numbers]
        assert made[-1].time_ms == cut[-1][0]
    assert asked[0] == asked[1]
    for time_ms, _, published in asked[1]:
        assert published == [n for n, (known, _) in enumerate(sorted(orders)) if known <= time_ms]


@given(ORDERS)
def test_only_steps_without_a_request_are_gathered(orders: Orders) -> None:
    """Ungathered, each step is a round; gathered, each round but the last ends with a request."""
    each, cut = rounds_of(orders, gather=False)
    assert [item.time_ms for item in each] == [end for end, _ in cut]
    gathered, _ = rounds_of(orders, gather=True)
    assert all(item.due for item in gathered[:-1])
    assert len(gathered) <= len(each)


def test_a_thousand_events_do_not_wait() -> None:
    """Events wait for a request only as long as they are few."""
    made, _ = rounds_of([(1 + n // 700, 500) for n in range(2100)], gather=True, length=4, step=1)
    assert [(item.time_ms, len(item.moments)) for item in made] == [(2, 1400), (4, 700)]


class Coordinators:
    """What Kafka's client says of committed offsets: the first coordinator that it asks is no more."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._found = 0

    async def find_coordinator(self, group: str) -> int:
        """The next broker."""
        self._found += 1
        return self._found

    async def list_consumer_group_offsets(
        self, group: str, coordinator: int, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, Any]:
        """All offsets, of the second broker."""
        self.asked.append(coordinator)
        if coordinator == 1:
            raise NotCoordinatorForGroupError
        return dict.fromkeys(partitions, OffsetAndMetadata(7, ""))


async def test_a_coordinator_that_moved_is_looked_for_again() -> None:
    """The replay waits, and asks the coordinator of now, which it remembers."""
    groups, place = Coordinators(), TopicPartition("rides.taken", 0)
    playback = Playback(PROJECT, *cast("tuple[Any, Any, Any, Any]", (None, None, None, groups)))
    await playback.routed({place: 7}, timeout_seconds=30)
    await playback.routed({place: 6}, timeout_seconds=30)
    assert groups.asked == [1, 2, 2]


async def test_who_gets_on_is_waited_for() -> None:
    """A store that lags is waited for as long as it gets on, however slowly; one that stands still is named."""
    positions = iter([1, 2, 3])
    at = 0

    async def lagging() -> str | None:
        nonlocal at
        at = next(positions, 4)
        return None if at == 4 else f"it is at {at}"

    await _poll(lagging, 0.0, mend="wait", reached=lambda: at)
    positions = iter([3, 3])
    with pytest.raises(TidemillError, match="it is at 3; wait"):
        await _poll(lagging, 0.0, mend="wait", reached=lambda: at)


@contextlib.asynccontextmanager
async def playing(live: Stack) -> AsyncIterator[Playback]:
    """A playback on the running system."""
    async with open_playback(PROJECT, live.kafka, live.redis_url) as playback:
        yield playback


@pytest.fixture(scope="module")
def served(live: Stack) -> Stack:
    """The running system with twelve hours of history and a model that serves."""
    asyncio.run(prepare(live))
    return live


async def prepare(live: Stack) -> None:
    """History, training, deployment: as a user would do it, unless it was done before."""
    async with httpx.AsyncClient(base_url=live.urls["inference"], timeout=PATIENCE_SECONDS, trust_env=False) as http:
        if (await http.get("/v2/models/big_tip/ready")).is_success:
            return
    async with playing(live) as playback:
        async for _ in playback.load(RECORDING, START_MS, START_MS + 12 * HOUR_MS, 6 * HOUR_MS, Agenda([BIG_TIP], STEP_MS)):
            pass
        ends = await playback.ends()
    async with httpx.AsyncClient(base_url=live.urls["offline"], timeout=PATIENCE_SECONDS, trust_env=False) as http, asyncio.timeout(180):
        behind = True
        while behind:
            await asyncio.sleep(0.1)
            positions = (await http.get("/positions")).json()
            behind = any(positions.get(tp.topic, {}).get(str(tp.partition), 0) < end for tp, end in ends.items())
    environment = {
        "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}", "KAFKA_BOOTSTRAP_SERVERS": live.kafka,
        "TIDEMILL_OFFLINE": live.offline, "TIDEMILL_PROJECT": str(PROJECT.root),
    }  # fmt: skip
    command = [sys.executable, "-m", "tidemill_training", "big_tip", "--until", "2026-01-01T12:00"]
    await asyncio.to_thread(subprocess.run, command, env={**os.environ, **environment}, check=True)
    async with httpx.AsyncClient(base_url=live.urls["inference"], timeout=PATIENCE_SECONDS, trust_env=False) as http, asyncio.timeout(180):
        while (await http.get("/v2/models/big_tip/ready")).is_error:
            await asyncio.sleep(0.05)


async def played(live: Stack, start_ms: int, end_ms: int) -> list[PlayedStep]:
    """Plays a part with predictions."""
    async with playing(live) as playback:
        agenda = Agenda([BIG_TIP], STEP_MS)
        return [step async for step in playback.play(RECORDING, start_ms, end_ms, STEP_MS, agenda, live.urls["inference"])]


async def predictions(live: Stack) -> dict[str, PredictionRecord]:
    """The log of predictions by id."""
    logs = await read_topic(live.kafka, predictions_topic(PROJECT.name))
    decode = decoder(PredictionRecord).decode
    found = [decode(value or b"") for log in logs.values() for _, value in log]
    assert len({prediction.id for prediction in found}) == len(found)
    return {prediction.id: prediction for prediction in found}


Times = dict[tuple[str, int], list[int | None]]


def check_stamp(prediction: PredictionRecord, before: Times, known: Times) -> None:
    """Of what was published since `before`: below each fence of the stamp all was known at the request's time, above it nothing was, but for
    what ingestion sent again, which tells nothing new."""
    assert {entry.view for entry in prediction.stamp} == {view.log for view in PROJECT.views.values()}
    for entry in prediction.stamp:
        place = view_topic(PROJECT.name, entry.view), entry.partition
        begin = len(before[place])
        assert entry.next >= begin
        assert max(filter(None, known[place][begin : entry.next]), default=0) <= prediction.time
        assert min(filter(None, known[place][entry.next :]), default=prediction.time + 1) > prediction.time


@pytest.mark.integration
async def test_every_prediction_sees_all_that_was_known_and_nothing_else(served: Stack) -> None:
    """By the stamps in the log: a prediction has seen every event known at its time, and none that became known later."""
    start, before = START_MS + 13 * HOUR_MS, await known_times(served)
    made = await played(served, start, start + 5 * HOUR_MS)
    answers = [(step, due, answer) for step in made for due, answer in step.answers]
    assert sum(step.events for step in made) == sum(1 for _ in RECORDING.events(start, start + 5 * HOUR_MS))
    assert len(answers) > 200
    assert all(due.at_ms <= step.time_ms and answer["time"] == step.time_ms for step, due, answer in answers)
    known, log = await known_times(served), await predictions(served)
    for _, _, answer in answers:
        assert log[answer["prediction_id"]].output == answer["probability"]
        check_stamp(log[answer["prediction_id"]], before, known)


async def known_times(live: Stack) -> Times:
    """When each record of each view topic became known, in offset order; None for one that was sent twice."""
    decode = decoder(ViewRecord).decode
    found: Times = {}
    for view in PROJECT.views.values():
        topic = view_topic(PROJECT.name, view.log)
        for partition, log in (await read_topic(live.kafka, topic)).items():
            records, seen = [decode(value or b"") for _, value in log], dict[int, int]()
            times: list[int | None] = []
            for record in records:
                source, offset = record.source
                times.append(record.known if offset > seen.get(source, -1) else None)
                seen[source] = max(offset, seen.get(source, -1))
            found[topic, partition] = times
    return found


@pytest.mark.integration
async def test_services_may_die_meanwhile(served: Stack) -> None:
    """Ingestion, feature computation and inference are killed while a part is played: it goes on, and nothing is asked twice."""
    start, before = START_MS + 18 * HOUR_MS, await known_times(served)

    async def kill() -> None:
        for name in ("ingestion", "features", "inference"):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(served.kill, name)

    killing = asyncio.create_task(kill())
    made = await played(served, start, start + 3 * HOUR_MS)
    await killing
    await asyncio.to_thread(served.wait_ready)
    log, known = await predictions(served), await known_times(served)
    answers = [answer for step in made for _, answer in step.answers]
    assert answers
    for answer in answers:
        check_stamp(log[answer["prediction_id"]], before, known)


@pytest.mark.integration
async def test_the_barrier_says_what_is_behind(served: Stack) -> None:
    """A service that does not go on is named, with where it should be."""
    async with playing(served) as playback:
        await playback.applied()
        place = TopicPartition("rides.taken", 0)
        with pytest.raises(TidemillError, match=r"ingestion has not routed rides.taken\[0\] to 1000000; run: tidemill logs ingestion"):
            await playback.routed({place: 1_000_000}, timeout_seconds=0.05)
        await playback.routed({})
        served.halt("features")
        try:
            await playback.routed(await playback.publish(list(RECORDING.events(START_MS + 30 * HOUR_MS, START_MS + 31 * HOUR_MS))))
            with pytest.raises(
                TidemillError, match=r"feature computation has not applied rides.view.[\w.]+\[\d\] up to \d+; run: tidemill"
            ):
                await playback.applied(timeout_seconds=0.05)
        finally:
            await asyncio.to_thread(served.resume, "features")
        await playback.applied()


@pytest.mark.integration
async def test_what_cannot_be_played_is_refused(served: Stack) -> None:
    """An event the project does not know, a model without a version, and values that inference refuses end the play with a reason."""
    async with playing(served) as playback:
        before = await read_dead_letters(KafkaSettings(bootstrap_servers=served.kafka), "rides")
        with pytest.raises(TidemillError, match=r"an event 'rides.lost' that project 'rides' does not declare; yield one of rides.ordered"):
            await playback.publish([(START_MS, "rides.lost", {})])
        agenda = Agenda([BIG_TIP], STEP_MS)
        agenda.announce("rides.ordered", order("r", START_MS) | {"distance": "far"})
        nothing = recording([])
        with pytest.raises(TidemillError, match=r"inference refused prediction big_tip-r-\d+: .*distance"):
            await collect(playback, nothing, agenda, served.urls["inference"])
        assert await read_dead_letters(KafkaSettings(bootstrap_servers=served.kafka), "rides") == before


async def collect(playback: Playback, what: Recording, agenda: Agenda, url: str) -> list[PlayedStep]:
    """One step."""
    return [step async for step in playback.play(what, START_MS, START_MS + STEP_MS, STEP_MS, agenda, url)]


@pytest.mark.integration
async def test_history_announces_what_is_due_later(served: Stack) -> None:
    """Loading asks for nothing, but keeps on the agenda what is due after its end."""
    start, agenda = START_MS + 40 * HOUR_MS, Agenda([BIG_TIP], STEP_MS)
    before = len(await predictions(served))
    async with playing(served) as playback:
        loaded = [step async for step in playback.load(RECORDING, start, start + HOUR_MS, STEP_MS, agenda)]
        ends = await playback.ends()
    assert sum(step.events for step in loaded) == sum(1 for _ in RECORDING.events(start, start + HOUR_MS))
    assert len(await predictions(served)) == before
    assert 20 <= len(list(agenda.due(start + 3 * HOUR_MS))) <= 40
    assert sum(end for tp, end in ends.items() if tp.topic == BIG_TIP.on.topic) > 0
