"""Invented payments, to begin with: `python data.py` writes them to history/. Replace them by your own."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAY_MS = 86_400_000
HOUR_MS = DAY_MS // 24
COUNTRIES = ["AT", "CH", "DE", "FR", "IT"]
Known = tuple[int, str, dict[str, Any]]


def events(end_ms: int, days: int = 60, a_day: int = 120) -> Iterator[Known]:
    """(when it became known, name of the event, its fields) of the days before `end_ms` (epoch ms), in order. The same `end_ms`, the same events.

    People often pay several times on one trip. A thief pays three times within a day, mostly online, abroad, and more than the card's owner would; the
    owner complains days later.
    """
    draw, found, begin_ms = random.Random(1), list[Known](), end_ms - days * DAY_MS
    usual = {f"c{card}": (draw.uniform(10, 80), draw.choice(COUNTRIES)) for card in range(100)}
    for number in range(days * a_day // 2):
        card, at = draw.choice(list(usual)), begin_ms + number * 2 * DAY_MS // a_day
        for turn in range(draw.choice([1, 1, 2, 4])):
            paid = _payment(f"p{number}t{turn}", at + turn * draw.randrange(HOUR_MS), card, *usual[card], draw)
            found.append((paid["at"], "myproject.paid", paid))
        if draw.random() < 0.012:
            found += _theft(number, at + draw.randrange(DAY_MS), card, usual[card][0], draw)
    yield from (event for event in sorted(found, key=lambda event: event[0]) if event[0] < end_ms)


def _theft(number: int, at: int, card: str, usual: float, draw: random.Random) -> Iterator[Known]:
    for turn in range(3):
        at += draw.randrange(6 * HOUR_MS)
        paid = _payment(f"p{number}x{turn}", at, card, usual * draw.uniform(1, 5), draw.choice(COUNTRIES), draw, online=0.7)
        later = at + draw.randrange(DAY_MS, 10 * DAY_MS)
        yield at, "myproject.paid", paid
        yield later, "myproject.charged_back", {"payment": paid["payment"], "at": later, "merchant": paid["merchant"], "fraud": True}


def _payment(payment: str, at: int, card: str, usual: float, country: str, draw: random.Random, online: float = 0.3) -> dict[str, Any]:
    merchant, amount = f"shop{min(draw.randrange(40), draw.randrange(40))}", usual * draw.lognormvariate(0, 0.5)
    more = {"country": country, "amount": round(amount, 2), "online": draw.random() < online}
    return {"payment": payment, "at": at, "card": card, "merchant": merchant} | more


def main(folder: Path = Path("history")) -> None:
    """Writes a file for each event, with everything up to an hour ago."""
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[str]] = {}
    for _, name, data in events(int(time.time() * 1000) - HOUR_MS):
        lines.setdefault(name, []).append(json.dumps(data) + "\n")
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("".join(found))
        print(f"{folder / name}.jsonl: {len(found):,} events")


if __name__ == "__main__":
    main()
