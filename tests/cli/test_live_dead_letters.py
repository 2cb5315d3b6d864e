"""`tidemill dead-letters` against the whole running system: refused, listed once, mended, sent again, folded."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path

import msgspec
import pytest
from tests.ask import post
from tests.cli.test_live import Shell

from tidemill.declarations.project import Project, load_project
from tidemill.errors import BadRequest
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.waves import send_wave
from tidemill.local.stack import Stack
from tidemill.operations.republish import event_of, place_of
from tidemill.records import DeadLetterRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.dead_letters import dead_letter

LIVE = Path(__file__).parents[1] / "live_project"
AT_MS = 1_767_225_600_000


@pytest.fixture(scope="module")
def project() -> Project:
    """The project of the running system."""
    return load_project(LIVE)


def letter(value: bytes, topic: str = "rides.taken", view: str | None = None, size: int | None = None) -> DeadLetterRecord:
    """A dead letter with this value."""
    made = dead_letter("wrong_type", "why", (topic, 3, 41), AT_MS, None, value, view)
    return made if size is None else msgspec.structs.replace(made, size=size)


def test_an_event_is_sent_again_as_it_came_or_mended(project: Project) -> None:
    """The body names the event, carries its data unchanged, and has the letter's place for an id."""
    body = msgspec.json.decode(event_of(project, letter(b'{"fare": 1.50}'), None))
    assert body == {"type": "rides.taken", "id": "rides.taken/3/41", "data": {"fare": 1.5}}
    assert b'"data":{"x": 2}' in event_of(project, letter(b"{broken"), b'{"x": 2}')
    assert place_of(letter(b"")) == "rides.taken/3/41"


@pytest.mark.parametrize(
    ("refused", "mended", "cause", "mend"),
    [
        (
            letter(b"{}", topic="rides.view.zones.p2", view="zones"),
            None,
            "is a record of view 'zones'",
            "correct the event it was made from",
        ),
        (letter(b"{}", view="zones"), None, "was refused by view 'zones' alone", "raise ahead="),
        (letter(b"{}", size=70_000), None, "of the 70000 bytes", "--value"),
        (letter(b"{broken"), None, "are not JSON", "--value"),
        (letter(b"{}"), b"\xff", "are not JSON", "--value"),
    ],
)
def test_what_cannot_be_sent_again_says_why(
    project: Project, refused: DeadLetterRecord, mended: bytes | None, cause: str, mend: str
) -> None:
    """A record of a view, one that other views have, one that is cut, and what is no JSON: each with its mend."""
    with pytest.raises(BadRequest, match=cause) as raised:
        event_of(project, refused, mended)
    assert mend in raised.value.mend


def written(kafka: KafkaSettings, topic: str, value: bytes) -> int:
    """Write a record to the first partition of a topic, and return its offset."""

    async def write() -> int:
        writer = producer(kafka)
        await writer.start()
        offsets = await send_wave(writer, {(topic, 0): [(None, value, [])]})
        await close_producer(writer)
        return offsets[topic, 0][1]

    return asyncio.run(write())


@pytest.mark.integration
def test_refused_listed_mended_and_folded(live: Stack, tmp_path: Path) -> None:
    """An event with a wrong type is listed once though its letter was written twice; mended, ingestion takes it, and its zone has it."""
    shell, kafka = Shell(live), KafkaSettings(bootstrap_servers=live.kafka)
    ride = {"ride": "dl-1", "at": AT_MS, "zone": "nowhere", "driver": 1, "fare": 10.0, "tip": "none"}
    place = f"rides.taken/0/{written(kafka, 'rides.taken', json.dumps(ride).encode())}"
    listed = wait_for(shell, place)
    assert [(found["reason"], base64.b64decode(found["value"])) for found in listed] == [("wrong_type", json.dumps(ride).encode())]
    written(kafka, "rides.dead-letters", encode(msgspec.convert(listed[0], DeadLetterRecord)))
    assert len(wait_for(shell, place)) == 1
    shown = shell.run("dead-letters", "--reason", "wrong_type")
    assert place in shown
    assert "tip: Expected `float`, got `str`" in shown
    assert "ingestion answered 422: tip: Expected `float`" in " ".join(shell.run("dead-letters", "--replay", place, code=1).split())
    assert "unknown dead letter 'rides.taken/9/9'" in shell.run("dead-letters", "--replay", "rides.taken/9/9", code=1)
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(ride | {"tip": 4.5}))
    assert f"{place} is sent again" in " ".join(shell.run("dead-letters", "--replay", place, "--value", str(mended)).split())
    question = {"features": ["zones:mean_tip_1h"], "entities": {"zone": ["nowhere"]}, "as_of": AT_MS}
    deadline = time.monotonic() + 180
    while True:
        answer = post(f"{live.urls['serving']}/get-online-features", json=question).json()
        if answer["results"][-1]["values"] == [4.5]:
            return
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def wait_for(shell: Shell, place: str) -> list[dict[str, str]]:
    """The letters of a place, once there are some."""
    deadline = time.monotonic() + 180
    while True:
        lines = [json.loads(line) for line in shell.run("dead-letters", "--json", "--last", "1000").splitlines() if line.startswith("{")]
        found = [line for line in lines if "/".join(map(str, line["source"])) == place]
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.5)
