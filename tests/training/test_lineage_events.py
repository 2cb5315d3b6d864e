"""What a job read and made is told by the OpenLineage client, to a file or a server; nobody waits for a receiver that is away."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.demo_state import demo

from tidemill.errors import TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.training import lineage_events
from tidemill.training.lineage_events import JobStory, archived, file_of, is_set, told, version_of, views_of
from tidemill.training.stages.data import ArchiveState

MODEL = demo().models["big_tip"]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The client adds variables of its own to the environment; a test leaves none."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def story(root: Path) -> JobStory:
    """A training of the demo's model."""
    made = JobStory("demo", "train.big_tip", "TRAINING")
    made.reads(*views_of("demo", MODEL.views))
    made.reads(*archived(str(root), {"trips": ArchiveState(3), "asked": ArchiveState(None)}))
    return made


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the events, by the client's own settings."""
    path = tmp_path / "events.jsonl"
    for name, value in (("TYPE", "file"), ("LOG_FILE_PATH", str(path)), ("APPEND", "true")):
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    return path


def events(path: Path) -> list[dict[str, Any]]:
    """Those that a file got."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_training_is_told(file: Path, tmp_path: Path) -> None:
    """Begin and end of one run, with views and tables in their versions, and the version of the model that was made."""
    notes = list[str]()
    with told(story(tmp_path), notes.append) as told_story:
        told_story.made(version_of("demo", "big_tip", "v1"))
    begun, done = events(file)
    assert (begun["eventType"], done["eventType"], notes) == ("START", "COMPLETE", [])
    assert begun["run"]["runId"] == done["run"]["runId"]
    assert (done["job"]["namespace"], done["job"]["name"]) == ("tidemill://demo", "train.big_tip")
    assert done["job"]["facets"]["jobType"]["jobType"] == "TRAINING"
    inputs = {(one["namespace"], one["name"]): one["facets"]["version"]["datasetVersion"] for one in done["inputs"]}
    definitions = {("tidemill://demo", f"views/{view.name}"): ViewKernel(view).definition for view in MODEL.views}
    assert inputs == definitions | {("file", f"{tmp_path}/events/trips"): "3"}
    assert begun["outputs"] == []
    (output,) = done["outputs"]
    assert (output["name"], output["facets"]["version"]["datasetVersion"]) == ("models/big_tip", "v1")


def test_a_job_that_fails_or_is_ended(file: Path, tmp_path: Path) -> None:
    """The error goes on as it was, and is told; Ctrl-C is told as an end."""
    with pytest.raises(TidemillError, match="no examples; collect more"), told(story(tmp_path), print):
        raise TidemillError("no examples", mend="collect more")
    with pytest.raises(KeyboardInterrupt), told(story(tmp_path), print):
        raise KeyboardInterrupt
    _, failed, _, ended = events(file)
    assert (failed["eventType"], failed["run"]["facets"]["errorMessage"]["message"]) == ("FAIL", "no examples")
    assert ended["eventType"] == "ABORT"


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server as its standard address, and the events that it took."""
    found = list[dict[str, Any]]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append({"path": self.path, **json.loads(self.rfile.read(int(self.headers["Content-Length"])))})
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", found
    server.shutdown()
    server.server_close()


def test_a_server_gets_the_events(received: tuple[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENLINEAGE_URL alone is enough."""
    url, found = received
    monkeypatch.setenv("OPENLINEAGE_URL", url)
    monkeypatch.setattr(lineage_events, "CLOSE_SECONDS", 60.0)
    with told(story(tmp_path), print):
        pass
    assert [(one["path"], one["eventType"]) for one in found] == [("/api/v1/lineage", "START"), ("/api/v1/lineage", "COMPLETE")]


@pytest.mark.slow
def test_a_receiver_that_is_away_or_hangs_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is done all the same."""
    monkeypatch.setattr(lineage_events, "CLOSE_SECONDS", 0.2)
    for name, value in (("TYPE", "http"), ("TIMEOUT", "1"), ("RETRY", '{"total": 0}')):
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    notes = list[str]()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4)
        for port in (1, silent.getsockname()[1]):
            monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", f"http://127.0.0.1:{port}")
            with told(story(tmp_path), notes.append) as done:
                done.made(file_of(tmp_path / "out.csv"))
        for thread in [one for one in threading.enumerate() if one.name == "openlineage"]:
            thread.join()
    assert len(notes) == 2
    assert all(note.startswith("OpenLineage events of train.big_tip were not told: ") for note in notes)


def test_nobody_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting nothing is imported or told; a switch turns it off; a file beside the command turns it on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not is_set()
    (tmp_path / "openlineage.yml").write_text("transport: {type: console}")
    assert is_set()
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not is_set()
    threads = threading.active_count()
    with told(story(tmp_path), print):
        assert threading.active_count() <= threads


def test_tables_of_an_object_store() -> None:
    """They have the bucket as their place."""
    (table,) = archived("s3://lake/team", {"trips": ArchiveState(7)})
    assert table == ("s3://lake", "team/events/trips", "7")
