"""Prediction logging against a real broker: killed, doubled, cut off from its topic, every prediction is logged and answered once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiokafka.admin import NewTopic
from tests.logged import faults
from tests.offline.lake import NOW_MS, Pair, Service, lake, make_topics, read_topic, running, send, until

from tidemill.catalogue.definitions import NOTHING
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.checksums import proof_of
from tidemill.declarations.project import Project
from tidemill.errors import UnknownTable
from tidemill.kafka.admin import admin
from tidemill.kafka.client import started_producer
from tidemill.kernel.keys import partition_of
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import result_of_row
from tidemill.records import OutcomeRecord, PredictionRecord, ResultRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.topics import catalogue_topic, topic_specs
from tidemill_predlog.outbox import Outbox
from tidemill_predlog.results import ResultsTable

pytestmark = pytest.mark.integration

STEP_MS = 1000
WITHIN_MS = {"comes_back": 600_000, "late_back": 3_600_000}
RESULT = decoder(ResultRecord)


@pytest.fixture
def project(topic_prefix: str) -> Project:
    """The project under a name of this test's own."""
    return lake(topic_prefix)


@pytest.fixture
def predlog(kafka: str, project: Project, tmp_path: Path) -> Iterator[Service]:
    """The process of prediction logging, not yet started."""
    service = Service("tidemill_predlog", project.name, kafka, tmp_path / "offline", tmp_path / "predlog.log")
    yield service
    service.kill()


def predicted(i: int) -> PredictionRecord:
    """The i-th prediction: one a second; every 97th without a subject, every 5th of the model that waits for an hour."""
    model = "late_back" if i % 5 == 0 else "comes_back"
    return PredictionRecord(f"p{i}", model, "1", NOW_MS + i * STEP_MS, 2 * NOW_MS, [0.5, None], 0.25, None if i % 97 == 13 else f"s{i}")


def came(i: int) -> OutcomeRecord | None:
    """Its outcome: half a minute after it, half a minute before it (which answers nothing), or none at all."""
    if i % 3 == 2:
        return None
    known = NOW_MS + i * STEP_MS + (30_000 if i % 3 else -30_000)
    return OutcomeRecord(predicted(i).model, f"s{i}", float(i % 2), known, known, ("returned", 0, i))


def wave(project: Project, first: int, end: int) -> dict[tuple[str, int], list[Pair]]:
    """Predictions (each 40th sent twice, some records undecodable) and outcomes (each 30th twice), in the order of a live stream."""
    found: dict[tuple[str, int], list[Pair]] = {}
    for i in range(first, end):
        record, outcome = predicted(i), came(i)
        for _ in range(2 if i % 40 == 0 else 1):
            found.setdefault((f"{project.name}.predictions", partition_of(record.id.encode(), 4)), []).append(
                (record.id.encode(), encode(record))
            )
        if i % 100 == 50:
            found.setdefault((f"{project.name}.predictions", i % 4), []).append((b"junk", b"junk"))
            found.setdefault((f"{project.name}.outcomes", i % 4), []).append((None, b"junk"))
        for _ in range(0 if outcome is None else 2 if i % 30 == 0 else 1):
            assert outcome is not None
            key = outcome.subject.encode()
            found.setdefault((f"{project.name}.outcomes", partition_of(key, 4)), []).append((key, encode(outcome)))
    return found


def expected(count: int) -> dict[str, tuple[str, float | str | None]]:
    """The results of the first `count` predictions, once the stream's time has reached that of the last record."""
    outcomes = [outcome for i in range(count) if (outcome := came(i)) is not None]
    clock = max(predicted(count - 1).time, *(outcome.known for outcome in outcomes))
    found: dict[str, tuple[str, float | str | None]] = {}
    for i in range(count):
        record, outcome = predicted(i), came(i)
        if record.subject is None:
            continue
        if outcome is not None and outcome.known > record.time:
            found[record.id] = ("joined", outcome.value)
        elif record.time + WITHIN_MS[record.model] < clock:
            found[record.id] = ("never", None)
    return found


def results_so_far(offline: Path) -> int:
    """How many results the table has."""
    try:
        return OfflineStore(offline).snapshot("results").counter("seq")
    except UnknownTable:
        return 0


async def results_published(kafka: str, project: Project) -> list[ResultRecord]:
    """The topic's results."""
    return [RESULT.decode(value or b"") for _, value in (await read_topic(kafka, f"{project.name}.results"))[0]]


async def assert_exact(kafka: str, project: Project, offline: Path, count: int) -> None:
    """Each prediction is logged and answered once, as it should be; table and topic of results agree."""
    store = OfflineStore(offline)
    results = store.scan("results").to_pylist()
    assert [row["seq"] for row in results] == list(range(len(results)))
    found = {row["prediction"]: (row["status"], row["outcome"]) for row in results}
    assert len(found) == len(results)
    assert found == expected(count)
    published = await results_published(kafka, project)
    assert [(result.seq, result.prediction) for result in published] == [(row["seq"], row["prediction"]) for row in results]
    topic = await read_topic(kafka, f"{project.name}.predictions")
    rows = store.scan("predictions", ["partition", "offset", "proof"]).to_pylist()
    assert [(row["partition"], row["offset"], row["proof"]) for row in rows] == [
        (p, offset, proof_of(key, value)) for p in sorted(topic) for offset, (key, value) in enumerate(topic[p])
    ]
    assert sorted(store.predictions(["id"])["id"].to_pylist()) == sorted(f"p{i}" for i in range(count))


async def settled(kafka: str, project: Project, service: Service, offline: Path, count: int) -> None:
    """Waits until all results are in table and topic, and all predictions logged."""
    await until(lambda: results_so_far(offline) >= len(expected(count)))
    records = sum(map(len, (await read_topic(kafka, f"{project.name}.predictions")).values()))
    await until(lambda: sum(service.get("/positions").json()[f"{project.name}.predictions"].values()) == records)
    async with asyncio.timeout(180):
        while len(await results_published(kafka, project)) < len(expected(count)):
            await asyncio.sleep(0.2)


async def test_joins_a_backlog_exactly(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Started after everything was written, partitions are read at different speeds: nobody is given up too early."""
    await make_topics(kafka, project)
    await send(kafka, wave(project, 0, 6000))
    with running(predlog):
        await settled(kafka, project, predlog, tmp_path / "offline", 6000)
        await until(lambda: predlog.get("/health/ready").status_code == 200)
        numbers = predlog.get("/metrics").text
        assert predlog.stop() == 0
    await assert_exact(kafka, project, tmp_path / "offline", 6000)
    joined = sum(status == "joined" for status, _ in expected(6000).values())
    counted = sum(float(line.split()[-1]) for line in numbers.splitlines() if line.startswith("tidemill_predlog_joined_total"))
    assert counted == joined


@pytest.mark.soak
async def test_killed_again_and_again(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Eight kill -9 while predictions and outcomes flow: each is logged and answered once, in table and topic."""
    await make_topics(kafka, project)
    chance, count = random.Random(3), 6000
    sending = asyncio.create_task(_trickle(kafka, project, count))
    for _ in range(8):
        before = results_so_far(tmp_path / "offline")
        predlog.start()
        if not sending.done():
            await until(lambda least=before: sending.done() or results_so_far(tmp_path / "offline") > least)
        await asyncio.sleep(chance.random() * 0.3)
        predlog.kill()
    await sending
    with running(predlog):
        await settled(kafka, project, predlog, tmp_path / "offline", count)
    await assert_exact(kafka, project, tmp_path / "offline", count)


async def _trickle(kafka: str, project: Project, count: int) -> None:
    for first in range(0, count, 150):
        await send(kafka, wave(project, first, first + 150))
        await asyncio.sleep(0.3)


async def test_changes_of_models_are_no_faults(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Four times the join begins anew while predictions and outcomes flow: each is answered once, and nothing looks like a fault."""
    await make_topics(kafka, project)
    settings = KafkaSettings(bootstrap_servers=kafka)
    now = plan_of(NOTHING, project, 5, Surroundings()).first
    with running(predlog):
        await until(lambda: predlog.get("/health/ready").status_code == 200)
        begun = len(predlog.lines())
        sending = asyncio.create_task(_trickle(kafka, project, 4500))
        for number in range(1, 5):
            more = msgspec.structs.replace(now.models[0], name=f"more_{number}")
            await append_definitions(settings, project.name, msgspec.structs.replace(now, number=number, models=(*now.models, more)))
            await until(lambda number=number: any(line.get("catalogue") == number for line in predlog.lines()))
            so_far = results_so_far(tmp_path / "offline")
            await until(lambda so_far=so_far: sending.done() or results_so_far(tmp_path / "offline") > so_far)
            assert predlog.get("/health/ready").status_code == 200
        await sending
        await settled(kafka, project, predlog, tmp_path / "offline", 4500)
        assert faults(predlog.lines()[begun:]) == []
    await assert_exact(kafka, project, tmp_path / "offline", 4500)


async def test_restart_waits_for_outcomes_still_to_come(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Predictions that waited when the process was killed, and outcomes that came before theirs, are remembered by the next one."""
    await make_topics(kafka, project)
    both = wave(project, 0, 600)
    early = {target: pairs[: len(pairs) // 2] for target, pairs in both.items()}
    late = {target: pairs[len(pairs) // 2 :] for target, pairs in both.items()}
    await send(kafka, early)
    with running(predlog):
        await until(lambda: results_so_far(tmp_path / "offline"))
    await send(kafka, late)
    with running(predlog):
        await settled(kafka, project, predlog, tmp_path / "offline", 600)
    await assert_exact(kafka, project, tmp_path / "offline", 600)


async def test_two_at_once(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Two processes that should not run together: the table stays exact, and the topic repeats no gap."""
    await make_topics(kafka, project)
    other = Service("tidemill_predlog", project.name, kafka, tmp_path / "offline", tmp_path / "other.log")
    with running(predlog), running(other):
        await until(lambda: predlog.get("/positions").json() and other.get("/positions").json())
        await _trickle(kafka, project, 1500)
        await until(lambda: results_so_far(tmp_path / "offline") == len(expected(1500)))
    results = OfflineStore(tmp_path / "offline").scan("results").to_pylist()
    assert {row["prediction"]: (row["status"], row["outcome"]) for row in results} == expected(1500)
    highest = -1
    for result in await results_published(kafka, project):
        assert result.seq <= highest + 1
        highest = max(highest, result.seq)


async def make_anew(kafka: str, topic: str) -> None:
    """Delete a topic, and make one of its name."""
    async with admin(KafkaSettings(bootstrap_servers=kafka)) as client:
        await client.delete_topics([topic])
        while topic in await client.list_topics():
            await asyncio.sleep(0.1)
        await client.create_topics([NewTopic(topic, 1, 1)])


async def test_ready_once_the_catalogue_can_be_read(kafka: str, project: Project, predlog: Service) -> None:
    """A catalogue that could not be read, after the topics were there, is no reason any more when it can be."""
    await make_topics(kafka, project)
    topic = catalogue_topic(project.name)
    await send(kafka, {(topic, 0): [(b"p", b"junk")]})
    with running(predlog):
        await until(lambda: "cannot be read" in predlog.get("/health/ready").json()["checks"]["topics"].get("reason", ""))
        await make_anew(kafka, topic)
        await until(lambda: predlog.get("/health/ready").status_code == 200)


async def test_topic_is_filled_from_the_table(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """When the topic of results lacks what the table has, the next start publishes it, in order."""
    await make_topics(kafka, project)
    await send(kafka, wave(project, 0, 1000))
    with running(predlog):
        await settled(kafka, project, predlog, tmp_path / "offline", 1000)
    topic = f"{project.name}.results"
    await make_anew(kafka, topic)
    first = OfflineStore(tmp_path / "offline").scan("results").slice(0, 10).to_pylist()
    await send(kafka, {(topic, 0): [(row["prediction"].encode(), encode(result_of_row(row))) for row in first]})
    with running(predlog):
        await settled(kafka, project, predlog, tmp_path / "offline", 1000)
    await assert_exact(kafka, project, tmp_path / "offline", 1000)


async def test_a_deleted_topic_is_made_anew(kafka: str, project: Project, tmp_path: Path) -> None:
    """An outbox that begins finds no topic, makes it, and publishes into it."""
    settings, topic = KafkaSettings(bootstrap_servers=kafka), f"{project.name}.results"
    table = ResultsTable(OfflineStore(tmp_path / "offline"), [])
    table.open()
    async with started_producer(settings) as made:
        outbox = Outbox(settings, made, topic, topic_specs(project)[topic], table, Pulse())
        await outbox.start(0)
        await outbox.publish([ResultRecord(0, "p", "m", "1", "s", 1, 0.5, "never", 2)])
    assert [result.prediction for result in await results_published(kafka, project)] == ["p"]


async def test_topic_ahead_of_the_table_is_refused(kafka: str, project: Project, predlog: Service, tmp_path: Path) -> None:
    """Results that the table does not have, or records that are none, in the topic: the service refuses and says why."""
    await make_topics(kafka, project)
    await send(kafka, {(f"{project.name}.results", 0): [(b"p", encode(ResultRecord(7, "p", "m", "1", "s", 1, 0.5, "never", 2)))]})
    with running(predlog):
        await until(lambda: "holds results up to 8" in predlog.get("/health/ready").json()["checks"]["join"].get("reason", ""))
        await send(kafka, {(f"{project.name}.results", 0): [(b"p", b"junk")]})
        await until(lambda: "not a result" in predlog.get("/health/ready").json()["checks"]["join"].get("reason", ""))
        assert predlog.get("/health/live").status_code == 200
