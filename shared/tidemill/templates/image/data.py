"""Handwritten digits, to begin with: `python data.py` writes them to history/. They come with scikit-learn. Replace them by your own pictures."""

import json
import random
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DAY_MS = 86_400_000


def pictures() -> list[tuple[list[list[float]], str]]:
    """(rows of pixels between 0 and 1, the digit) of 1,797 pictures, in an order that mixes who drew them."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pairs = [((pixels / 16).tolist(), str(digit)) for pixels, digit in zip(found.images, found.target, strict=True)]
    random.Random(1).shuffle(pairs)
    return pairs


def base64(pixels: list[list[float]]) -> str:
    """Pixels as an event has them."""
    return b64encode(np.array(pixels, "<f4").tobytes()).decode()


def events(end_ms: int, most: int = 1_797) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(when it became known, name of the event, its fields) before `end_ms` (epoch ms), in order: a picture each minute, its digit ten seconds later."""
    for number, (pixels, digit) in enumerate(pictures()[:most]):
        at = end_ms - (most - number) * 60_000
        yield at, "myproject.shown", {"picture": f"p{number}", "at": at, "pixels": base64(pixels)}
        yield at + 10_000, "myproject.told", {"picture": f"p{number}", "at": at + 10_000, "digit": digit}


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
