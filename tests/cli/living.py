"""A project in a folder and its running stack, as a user has them: commands, events over HTTP, and served values beside plain Python."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ask import post
from tests.offline.lake import ROOT
from tests.oracles import expected, in_window

from tidemill.clock import now_ms
from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.local.addresses import Addresses, find
from tidemill.runtime.settings import KafkaSettings

TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]
PATIENCE_SECONDS = 180


class Living:
    """A project with one field that names entities. `raw`: all events that views fold, as plain Python has them."""

    def __init__(self, folder: Path, project: str, text: str, field: str, entities: Sequence[str]) -> None:
        self.folder, self.home, self.project, self.raw = folder, folder / "home", folder / project, list[dict[str, Any]]()
        self.field, self.entities = field, list(entities)
        self.environment = {
            **os.environ, "TIDEMILL_HOME": str(self.home), "TIDEMILL_PROJECT": str(self.project), "COLUMNS": "300",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services"))),
        }  # fmt: skip
        self.project.mkdir()
        (self.project / "project.py").write_text(text)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints, when it ends with this code."""
        ended, output = self.tries(*arguments)
        assert ended == code, output
        return output

    def tries(self, *arguments: str) -> tuple[int, str]:
        """How a command ends, and what it prints."""
        result = subprocess.run(
            [*TIDEMILL, *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        output = result.stdout + result.stderr
        assert "Traceback" not in output
        return result.returncode, output

    @property
    def at(self) -> Addresses:
        """Where the stack is."""
        found = find(self.home)
        assert found is not None
        return found

    @property
    def kafka(self) -> KafkaSettings:
        """The broker of the stack."""
        return KafkaSettings(bootstrap_servers=self.at.kafka)

    def declare(self, old: str, new: str) -> None:
        """Edit the project."""
        file = self.project / "project.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def view(self, name: str) -> FeatureView:
        """A view, as it is declared now."""
        return load_project(self.project).views[name]

    def served(self, name: str, view: FeatureView, time_ms: int) -> dict[str, list[Any]] | str:
        """Feature -> the values of all entities, NaN for null; or why there is no answer."""
        wanted = [f"{name}:{feature.name}" for feature in view.served]
        body = {"features": wanted, "entities": {self.field: self.entities}, "as_of": time_ms}
        try:
            answer = post(f"{self.at.urls['serving']}/get-online-features", json=body, timeout=180)
        except httpx.TransportError as error:
            return repr(error)
        if answer.is_error:
            return answer.text
        found = answer.json()
        names = found["metadata"]["feature_names"]
        columns = zip(names, (column["values"] for column in found["results"]), strict=True)
        return {n: [math.nan if value is None else value for value in values] for n, values in columns if n != self.field}

    def oracle(self, view: FeatureView, time_ms: int, null: Sequence[str] = ()) -> dict[str, list[Any]]:
        """What plain Python says of the raw events. `null`: features that cannot be had."""
        found, of_entities = dict[str, list[Any]](), {entity: list[dict[str, Any]]() for entity in self.entities}
        for raw in self.raw:
            of_entities[raw[self.field]].append(raw)
        for feature in view.served:
            column = feature.aggregation.column
            told = [[(raw["at"], value_of(column, raw)) for raw in raws] for raws in of_entities.values()]
            values = [expected(feature.aggregation, in_window(feature, events, time_ms), time_ms) for events in told]
            found[feature.name] = [math.nan] * len(values) if feature.name in null else values
        return found

    def serves_all(self, name: str, view: FeatureView, null: Sequence[str] = ()) -> None:
        """Assert that soon the served values of all entities are those of plain Python, and stay so."""
        time_ms, deadline = now_ms(), time.monotonic() + PATIENCE_SECONDS
        wanted: dict[str, Any] = {
            feature: pytest.approx(values, rel=1e-9, abs=1e-9, nan_ok=True) for feature, values in self.oracle(view, time_ms, null).items()
        }
        while self.served(name, view, time_ms) != wanted and time.monotonic() < deadline:
            time.sleep(0.3)
        assert self.served(name, view, time_ms) == wanted
        time.sleep(1)
        assert self.served(name, view, time_ms) == wanted


def value_of(column: str | None, raw: dict[str, Any]) -> Any:
    """A field of an event, or a condition on its fields, which is null when one of them is."""
    if column is None or column.isidentifier():
        return raw.get(column or "")
    try:
        return float(eval(column, {}, raw))  # noqa: S307 - the test's own condition
    except (NameError, TypeError):
        return None
