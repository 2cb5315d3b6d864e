"""Invented bookings, to begin with: `python data.py` writes them to history/. Replace them by your own."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAY_MS = 86_400_000
CHANNELS = {"web": 0.15, "phone": 0.05, "agency": 0.4}
HOTELS = {"harbour": 0.0, "garden": 0.1, "station": 0.25, "hill": 0.4}


def events(end_ms: int, days: int = 60, a_day: int = 40) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(when it became known, name of the event, its fields) of the days before `end_ms` (epoch ms), in order. The same `end_ms`, the same events."""
    draw, found = random.Random(1), list[tuple[int, str, dict[str, Any]]]()
    for number in range(days * a_day):
        at = end_ms - days * DAY_MS + number * DAY_MS // a_day
        hotel, channel, days_ahead = draw.choice(list(HOTELS)), draw.choice(list(CHANNELS)), draw.randrange(1, 90)
        booking = {"booking": f"b{number}", "at": at, "hotel": hotel}
        more = {"channel": channel, "nights": draw.randrange(1, 8), "price": round(draw.gauss(120, 30), 2), "days_ahead": days_ahead}
        cancelled = draw.random() < CHANNELS[channel] + HOTELS[hotel] + days_ahead / 300
        later = at + draw.randrange(DAY_MS // 24, 2 * DAY_MS)
        found.append((at, "myproject.booked", booking | more))
        found.append((later, "myproject.ended", booking | {"at": later, "cancelled": cancelled}))
    yield from (event for event in sorted(found, key=lambda event: event[0]) if event[0] < end_ms)


def main(folder: Path = Path("history")) -> None:
    """Writes a file for each event, with everything up to an hour ago."""
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {}
    for _, name, data in events(int(time.time() * 1000) - DAY_MS // 24):
        lines.setdefault(name, []).append(json.dumps(data) + "\n")
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(found))
        print(f"{folder / name}.jsonl: {len(found):,} events")


if __name__ == "__main__":
    main()
