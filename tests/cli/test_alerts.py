"""`tidemill alerts` on real topics: what is open, what was not judged, acknowledged, muted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from tests.drift.rig import PROJECT
from typer.testing import CliRunner

from tidemill.cli import app
from tidemill.cli.alerts import alerts_line
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.local.addresses import Addresses
from tidemill.records import AlertRecord, JudgementRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert
from tidemill.streams.judgements import append_judgement
from tidemill.streams.notes import read_notes
from tidemill.streams.topics import alerts_topic, judgements_topic, topic_specs

pytestmark = pytest.mark.integration

OPENED = AlertRecord(
    "a1", "late", "1", "feature_drift", "size", "opened", 0, 10, "z", 1.0, 1.0, 0.3, 300, "late: size has moved", source="drift"
)
OVER = msgspec.structs.replace(OPENED, id="a2", subject="load", message="late: load has moved")
WAITS = JudgementRecord("late", "1", "ranking", 0, 10, 300, "waiting", "2 of 10 rows with the rarer outcome")


def run(*words: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, ["alerts", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


async def fill(settings: KafkaSettings, name: str, folder: Path) -> None:
    """An open alert, one that is over, and a window that waits."""
    specs = topic_specs(load_project(folder))
    await ensure_topics(settings, {topic: specs[topic] for topic in (alerts_topic(name), judgements_topic(name))})
    async with started_producer(settings) as made:
        for alert in (OPENED, OVER, msgspec.structs.replace(OVER, id="a3", state="closed")):
            await append_alert(made, name, alert)
        await append_judgement(made, name, WAITS)


def test_alerts_are_shown_acknowledged_and_muted(kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open ones by default, all on demand; a note is shown beside its alert, and every later command sees it."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix))
    for name, value in {
        "TIDEMILL_PROJECT": str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": "redis://nowhere", "TIDEMILL_OFFLINE": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = KafkaSettings(bootstrap_servers=kafka)
    assert "no alerts are open" in run()
    asyncio.run(fill(settings, topic_prefix, tmp_path))
    shown = run()
    assert "a1 opened 1, since 1970-01-01T00:00:00Z\n  late: size has moved" in shown
    assert "a2" not in shown
    stack = Addresses(kafka, "redis://nowhere", "", str(tmp_path), {"drift": "http://127.0.0.1:1"}, {}, owner=0, supervisor="")
    assert alerts_line(stack) == "alerts: 1 open (late 1); `tidemill alerts` shows them"
    assert "late 1: ranking waits: 2 of 10 rows with the rarer outcome" in shown
    assert [json.loads(line)["id"] for line in run("--all", "--json").splitlines()] == ["a1", "a3"]
    assert "a1 is acknowledged" in run("ack", "a1", "--reason", "known")
    assert "muted: size of late" in run("mute", "--model", "late", "--subject", "size", "--until", "2999-01-01")
    noted = run()
    assert "opened, acknowledged by " in noted
    assert "(known), muted until 2999-01-01T00:00:00Z 1, since" in noted
    assert "muted: size of late until 2999-01-01T00:00:00Z, by " in noted
    run("unmute", "--model", "late", "--subject", "size")
    assert "muted until" not in run()
    assert "no alert has been about 'sise' yet: did you mean size?" in run("mute", "--subject", "sise", "--reason", "typing")
    assert "muted: sise of every model, by " in run()
    run("unmute", "--subject", "sise")
    assert [note.kind for note in asyncio.run(read_notes(settings, topic_prefix))] == ["ack", *["mute", "unmute"] * 2]
    for words, said in (
        (["ack", "b"], "alert"), (["mute"], "without end or reason"), (["mute", "--until", "2001-01-01"], "is over"),
        (["mute", "--model", "lates", "--reason", "r"], "'lates' is no model and no view; did you mean late?"),
        (["unmute", "--model", "late"], "everything of late is not muted; muted: nothing"),
    ):  # fmt: skip
        with pytest.raises(TidemillError, match=said):
            run(*words)
