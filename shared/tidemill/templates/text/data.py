"""Invented messages, to begin with: `python data.py` writes them to history/. Replace them by your own."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAY_MS = 86_400_000
ABOUT = {
    "billing": ["the invoice", "my last bill", "a payment", "the refund", "the amount", "a second charge", "the receipt", "my card"],
    "delivery": ["the parcel", "my order", "the driver", "the box", "the address", "a missing item", "the tracking page", "the courier"],
    "account": ["my password", "the login", "my profile", "the app", "my e-mail address", "a new phone", "the settings", "my user name"],
}
BEGINS = [
    "hello, there is a problem with",
    "please help me with",
    "question about",
    "hi team,",
    "again:",
    "can you check",
    "I do not understand",
]
ENDS = ["since yesterday", "thank you", "it is urgent", "as you wrote to me", "and nobody answers", "best wishes", "before the weekend"]


def events(end_ms: int, days: int = 30, a_day: int = 40) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(when it became known, name of the event, its fields) of the days before `end_ms` (epoch ms), in order. The same `end_ms`, the same events."""
    draw, found = random.Random(1), list[tuple[int, str, dict[str, Any]]]()
    for number in range(days * a_day):
        at = end_ms - days * DAY_MS + number * DAY_MS // a_day
        team = draw.choice(list(ABOUT))
        said = [draw.choice(BEGINS), *draw.sample(ABOUT[team], 2), draw.choice(ENDS)]
        if draw.random() < 0.2:  # people write about two things at once
            said.insert(2, draw.choice(ABOUT[draw.choice(list(ABOUT))]))
        message = {"message": f"m{number}", "at": at, "sender": f"s{draw.randrange(80)}"}
        later = at + draw.randrange(DAY_MS // 24, DAY_MS)
        found.append((at, "myproject.received", message | {"text": " ".join(said)}))
        found.append((later, "myproject.answered", message | {"at": later, "team": team}))
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
