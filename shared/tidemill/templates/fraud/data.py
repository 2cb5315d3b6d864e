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

    A thief pays four times within an hour, more than the card's owner would, mostly online and abroad. The owner complains days later.
    """
    draw, found, begin_ms = random.Random(1), list[Known](), end_ms - days * DAY_MS
    usual = {f"c{card}": (draw.uniform(10, 80), draw.choice(COUNTRIES)) for card in range(200)}
    for number in range(days * a_day):
        card, at = draw.choice(list(usual)), begin_ms + number * DAY_MS // a_day
        amount, country = usual[card]
        found.append(
            (at, "myproject.paid", _payment(f"p{number}", at, card, country, amount * draw.lognormvariate(0, 0.5), draw, online=0.3))
        )
        if draw.random() < 0.006:
            found += _theft(number, at, card, amount, draw)
    yield from (event for event in sorted(found, key=lambda event: event[0]) if event[0] < end_ms)


def _theft(number: int, begin_ms: int, card: str, usual: float, draw: random.Random) -> Iterator[Known]:
    for turn in range(4):
        at, payment = begin_ms + (turn + 1) * HOUR_MS // 6 + draw.randrange(1000), f"p{number}t{turn}"
        paid = _payment(payment, at, card, draw.choice(COUNTRIES), usual * draw.uniform(2, 8), draw, online=0.8)
        later = at + draw.randrange(DAY_MS, 10 * DAY_MS)
        yield at, "myproject.paid", paid
        yield later, "myproject.charged_back", {"payment": payment, "at": later, "merchant": paid["merchant"], "fraud": True}


def _payment(payment: str, at: int, card: str, country: str, amount: float, draw: random.Random, *, online: float) -> dict[str, Any]:
    merchant = f"shop{min(draw.randrange(40), draw.randrange(40))}"
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
