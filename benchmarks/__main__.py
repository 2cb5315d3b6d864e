"""All benchmarks in one run: `python -m benchmarks`, or `make bench`. Writes .tidemill/bench.json.

Every figure stands beside a peer or a limit that was measured in the same run; compare ratios, since machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from pathlib import Path

from benchmarks import (
    engines,
    explaining,
    features,
    fill,
    fold,
    forms,
    history,
    ingestion,
    memory,
    offline,
    reading,
    requests,
    swaps,
    training,
)

from tidemill.runtime.logs import configure

OUT = Path(".tidemill/bench.json")


def main() -> None:
    """Runs, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed of tidemill, beside peers and limits.")
    parser.add_argument("--quick", action="store_true", help="fewer events and shorter loads: a look, not a figure to quote")
    quick = parser.parse_args().quick
    configure("benchmarks", level=logging.WARNING)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}", flush=True)
    found = []
    for part in (fold, ingestion, forms, features, offline, history, fill, memory, reading, requests, swaps, training, explaining, engines):
        for figure in part.figures(quick=quick):
            print(figure, flush=True)
            found.append(figure._asdict())
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {OUT}")


if __name__ == "__main__":
    main()
