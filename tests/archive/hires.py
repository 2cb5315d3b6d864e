"""Hires of bicycles as the rows of a CSV file, and what a training set of them has, in plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "history_project"
BEGIN = datetime(2024, 3, 1, 6, tzinfo=UTC)


class Hire(NamedTuple):
    """One hire: its number, where and when it began and ended, and who hired."""

    number: int
    begin: datetime
    station: str
    member: bool
    minutes: float

    @property
    def end(self) -> datetime:
        """When it came back."""
        return self.begin + timedelta(minutes=self.minutes)


def hires(count: int, seed: int = 1) -> list[Hire]:
    """One begins every three minutes or so; whole seconds."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        member = draw.random() < 0.5
        seconds = draw.randrange(120, 5400) if member else draw.randrange(600, 7200)
        begin = BEGIN + timedelta(seconds=180 * number + draw.randrange(170))
        found.append(Hire(number, begin, draw.choice(["bridge", "market", "süd"]), member, seconds / 60))
    return found


def write(folder: Path, rows: list[Hire]) -> None:
    """Both files, with times as clocks in New York showed them, and columns that have names of their own."""
    eastern = timedelta(hours=-5)  # until 10 March
    (folder / "hired.csv").write_text(
        "started_at,ride_id,station,member,battery,bike\n"
        + "".join(
            f"{hire.begin + eastern:%Y-%m-%d %H:%M:%S},r{hire.number},{hire.station},{hire.member},,{hire.number % 7}\n" for hire in rows
        )
    )
    (folder / "returned.csv").write_text(
        "ended_at,ride_id,station,minutes\n"
        + "".join(f"{hire.end + eastern:%Y-%m-%d %H:%M:%S},r{hire.number},{hire.station},{hire.minutes!r}\n" for hire in rows)
    )


def oracle(rows: list[Hire]) -> dict[str, dict[str, Any]]:
    """The training row of each hire: the returns at its station that were known when it began, by a loop over all of them.

    A window covers whole tiles; see `count_in` of the test.
    """
    return {
        f"r{hire.number}": {
            "at": hire.begin,
            "label": float(hire.minutes > 30),
            "member": float(hire.member),
            "back": [other for other in rows if other.station == hire.station and other.end <= hire.begin],
        }
        for hire in rows
    }
