"""What `tidemill up` puts in force by itself, and what it leaves to a person."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.operations.fill.shop import archive, declare, publish
from tests.operations.fill.test_killed import shop_events
from typer.testing import CliRunner

from tidemill.catalogue.definitions import Definitions
from tidemill.cli import app, catalogue
from tidemill.cli.target import Target
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions

pytestmark = pytest.mark.integration


class Start:
    """Starts of a stack over one shop, as far as the catalogue is concerned."""

    def __init__(self, kafka: str, name: str, folder: Path) -> None:
        self.kafka, self.name, self.folder = kafka, name, folder

    def up(self) -> catalogue.Started | None:
        """One start with what is declared now."""
        return catalogue.at_start(self.target(), self.now())

    def target(self) -> Target:
        """The project and its servers."""
        spec = str(self.folder / "shop")
        return Target(load_project(spec), spec, self.kafka, "redis://127.0.0.1:1/0", str(self.folder / "offline"), {})

    def now(self) -> Definitions:
        """The catalogue."""
        return asyncio.run(read_definitions(KafkaSettings(bootstrap_servers=self.kafka), self.name))

    def write(self, old: str, new: str) -> None:
        """Edit the project."""
        file = self.folder / "shop" / "project.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def start(kafka: str, topic_prefix: str, tmp_path: Path) -> Start:
    """A shop that was never started."""
    declare(tmp_path / "shop", topic_prefix)
    return Start(kafka, topic_prefix, tmp_path)


def test_what_loses_nothing_is_put_in_force(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """The first start makes the catalogue; the next changes nothing; a new view is in force; one that is gone waits for a person."""
    assert start.up() is None
    assert (start.now().number, start.now().in_force) == (1, {"cards": 1})
    assert start.up() is None
    assert start.now().number == 1
    start.write("cards = ", 'more = FeatureView("more", paid, "card", [count()])\ncards = ')
    assert start.up() is None
    assert start.now().in_force == {"cards": 1, "more": 1}
    start.write('more = FeatureView("more", paid, "card", [count()])\n', "")
    before = start.now()
    assert start.up() is None
    assert start.now() == before
    said = " ".join(capsys.readouterr().out.split())
    assert "- view more: gone" in said
    assert "run tidemill apply" in said


def test_a_refused_declaration_stops_nothing(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed with its mend, and what is in force goes on."""
    start.up()
    before = start.now()
    start.write('"amount": float', '"amount": int')
    assert start.up() is None
    assert start.now() == before
    said = " ".join(capsys.readouterr().out.split())
    assert "field 'amount' was float and is int now" in said
    assert "give the field another name" in said


def test_a_changed_view_is_filled_while_the_old_one_goes_on(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """A start begins it; once services run it is filled and handed over. A fill that fails is told, and stops nothing."""
    start.up()
    project = load_project(start.folder / "shop")
    events = [event for event in shop_events(project) if event.offset < 200]
    asyncio.run(publish(KafkaSettings(bootstrap_servers=start.kafka), events))
    archive(OfflineStore(start.folder / "offline"), project, events)
    declare(start.folder / "shop", start.name, later=True)
    started = start.up()
    assert started is not None
    assert start.now().in_force == {"cards": 1}
    catalogue.after_start(start.target(), started, wait=False)
    assert start.now().views[-1].handover is not None
    catalogue.after_start(start.target(), started, wait=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "handed over to ingestion" in said
    assert "the catalogue is left as it was: somebody else writes" in said


def test_commands_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a project, each of the three says how to name one."""
    for variable in ("TIDEMILL_PROJECT", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(variable, raising=False)
    for command in ("plan", "apply", "prune"):
        result = CliRunner().invoke(app, [command])
        assert isinstance(result.exception, TidemillError)
        assert "TIDEMILL_PROJECT" in result.exception.mend
