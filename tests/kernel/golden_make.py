"""Writes the pinned bytes anew: `python -m tests.kernel.golden_make [VIEW ...]`. Only for a change that is meant to change them.

Records that are pinned stay; a view that has none gets some.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from tests.kernel.golden import FOLDER, MINUTE_MS, dumped, outcome, pinned
from tests.kernel.golden_views import VIEWS

from tidemill import FeatureView

START_MS = 1_700_000_000_000
RECORDS = 240
WHO = ["north"] * 8 + ["süd", ""]
NUMBERS = ["7"] * 8 + ["-3"]
FLOATS = [0.1, -0.1, 1e9, -2.5e-7, 3.0, -0.0, 1 / 3]


def draw_records(view: FeatureView, seed: int) -> list[list[str | None]]:
    """Records of one partition: in order, late, much too late, published twice, routed twice, with long pauses, undecodable."""
    draw = random.Random(seed)
    longest = max((feature.window_ms or 0 for feature in view.served), default=0) or 120 * MINUTE_MS
    step_ms = min((feature.tile_ms for feature in view.served if feature.tile_ms), default=MINUTE_MS)
    ahead_ms = 100 * MINUTE_MS if view.ahead else step_ms
    made: list[list[str | None]] = []
    now_ms, sent = START_MS, 0
    for i in range(RECORDS):
        now_ms += draw.choice([0, 1, step_ms // 3, step_ms, step_ms]) if i != RECORDS // 2 else 2 * longest
        at = now_ms + draw.choice([0] * 40 + [-step_ms, -3 * step_ms, -longest // 2, -longest, -5 * longest, step_ms, ahead_ms])
        if i % 35 == 30:
            made.append([draw.choice([*WHO, None]), draw.choice(["poison", "{}", '{"time":1}', None])])
            continue
        values: dict[str, Any] = {
            "x": draw.choice([None, *FLOATS, draw.gauss(0, 10)]),
            "y": draw.randrange(-9, 10) * draw.choice([1, 1, 1, 10**9]),
        }
        values |= {"flag": draw.random() < 0.5, "maybe": draw.choice([None, True, False]), "kind": draw.choice("ab")}
        values |= {"note": draw.choice([None, "soon", 'späte"r'])}
        sent += draw.choice([1] * 15 + [0])
        record: dict[str, Any] = {"time": at, "known": at + 250, "source": [i % 2, sent], "values": {}}
        record["values"] = {name: values[name] for name in view.value_fields if values[name] is not None or draw.random() < 0.5}
        if draw.random() < 0.9:
            record["id"] = f"e{max(0, i - draw.choice([0] * 6 + [1, 2]))}"
        key = draw.choice(WHO if view.key.field == "who" else NUMBERS)
        made.append([key, json.dumps(record, ensure_ascii=False, separators=(",", ":"))])
    return made


def main(names: list[str]) -> None:
    """Writes the files of these views, all of them when none is named."""
    FOLDER.mkdir(exist_ok=True)
    for seed, (name, view) in enumerate(VIEWS.items()):
        if names and name not in names:
            continue
        path = FOLDER / f"{name}.json"
        records = pinned(name)["records"] if path.exists() else draw_records(view, seed)
        path.write_text(dumped(outcome(view, records)))


if __name__ == "__main__":
    main(sys.argv[1:])
