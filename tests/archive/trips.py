"""What the tests of the archive share: a project, its events, a naive account of what a table holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.declarations.project import Project, load_project

FOLDER = Path(__file__).parent / "trips_project"
NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Sent:
    """A consumed record as the archive sees it."""

    offset: int
    value: bytes | None
    timestamp: int = NOW_MS
    headers: Sequence[tuple[str, bytes | None]] = ()
    key: bytes | None = b"k"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def project_of(name: str = "trips", *, later: bool = False) -> Project:
    """The project under a name of a test's own. `later`: the event has the field `tip` too."""
    with _environment({"TRIPS_PROJECT": name, "TRIPS_LATER": "1" if later else ""}):
        return load_project(FOLDER)


def trip(number: int, **changes: Any) -> bytes:
    """A good event; `changes` replace or add fields, `...` leaves one out."""
    event = {"at": NOW_MS - number, "id": f"t{number}", "zone": f"z{number % 5}", "fare": number / 4, "seats": number % 3 or None} | changes
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()
