"""Commands work by what is in force, and not by a file that was changed since."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.test_catalogue import Start
from tests.operations.fill.shop import archive, declare
from tests.operations.fill.test_killed import shop_events
from typer.testing import CliRunner, Result

from tidemill.cli import app
from tidemill.cli.samples import samples
from tidemill.cli.target import offline_target
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError, UnknownEvent
from tidemill.offline.store import OfflineStore

pytestmark = pytest.mark.integration

UNAPPLIED = "project.py differs from what is in force: run tidemill plan"


@pytest.fixture
def start(kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A shop in force with some archived events, whose file was changed: the event has another name there."""
    project = declare(tmp_path / "shop", topic_prefix)
    made = Start(kafka, topic_prefix, tmp_path)
    made.up()
    archive(OfflineStore(tmp_path / "offline"), project, [event for event in shop_events(project) if event.offset < 70])
    for variable, value in {
        "TIDEMILL_PROJECT": str(tmp_path / "shop"), "KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": "redis://127.0.0.1:1/0",
        "TIDEMILL_OFFLINE": str(tmp_path / "offline"), "TIDEMILL_HOME": str(tmp_path / "home"),
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    return made


def run(*arguments: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(arguments))


def test_the_names_in_force_count(start: Start, tmp_path: Path) -> None:
    """A name that only the file has is not known yet; one that only the catalogue has still is. One line says why."""
    assert UNAPPLIED not in run("erase", "paid", "card=00").output
    start.write('Event("paid"', 'Event("sold"')
    erased = run("erase", "paid", "card=00")
    assert "10 archived events of paid have card=00" in erased.output
    assert UNAPPLIED in erased.output
    assert isinstance(run("erase", "sold", "card=00").exception, UnknownEvent)
    (tmp_path / "more.csv").write_text("at,card,amount,no\n2026-01-01T00:00:00Z,a,1.5,x\n")
    assert "1 events loaded" in " ".join(run("load", "paid", str(tmp_path / "more.csv")).output.split())
    assert "unknown event 'sold'" in str(run("load", "sold", str(tmp_path / "more.csv")).exception)


def test_a_file_that_cannot_be_put_in_force(start: Start) -> None:
    """It differs too, and stops no command."""
    start.write('"amount": float', '"amount": int')
    erased = run("erase", "paid", "card=00")
    assert (erased.exit_code, UNAPPLIED in erased.output) == (0, True)


def test_repartition_is_for_projects_without_a_catalogue(start: Start) -> None:
    """With one, the same is a new version."""
    error = run("repartition", "cards").exception
    assert isinstance(error, TidemillError)
    assert error.mend == "run: tidemill apply"


def test_without_kafka_the_file_counts(start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """History can be loaded while nothing runs. If a stack ran here before, there may be a catalogue, and nobody can read it."""
    start.write('Event("paid"', 'Event("sold"')
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert list(offline_target()[0].events) == ["sold"]
    assert capsys.readouterr().err == ""
    (start.folder / "home" / "kafka").mkdir(parents=True)
    offline_target()
    assert "what is in force is not known" in capsys.readouterr().err


def test_values_before_and_after(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the entities of the newest events: what changes, what is new, and what there is no longer."""
    store, old = OfflineStore(start.folder / "offline"), load_project(start.folder / "shop").views["cards"]
    time_ms = shop_events(load_project(start.folder / "shop"))[69].known
    declare(start.folder / "shop", start.name, later=True)
    start.write("dedupe=4", 'dedupe=4, ttl="1m"')
    new = load_project(start.folder / "shop").views["cards"]
    lines = list(samples(store, old, new, time_ms))
    assert len(lines) == 3
    assert lines[0].startswith("card 26 now: mean_tip_1h (none) -> ")
    assert list(samples(store, new, new, time_ms)) == [f"card {card} now: no value changes" for card in ("26", "16", "06")]
    assert "count_1h 10.0 -> null" in next(samples(store, old, new, time_ms + 61_000))
    monkeypatch.setattr("tidemill.cli.samples.MOST_EVENTS", 100)
    assert list(samples(store, old, new, time_ms)) == ["no sample values: 210 events are too many to compute them in passing"]
    assert list(samples(OfflineStore(start.folder / "none"), old, new, time_ms)) == []
