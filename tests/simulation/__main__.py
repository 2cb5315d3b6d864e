"""Replays one history and prints it: `python -m tests.simulation SEED [--mutation NAME]`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from tests.simulation.mutations import MUTATIONS
from tests.simulation.running import HASHES, replay
from tests.simulation.world import Step


def table_of(seed: int, mutation: str | None, story: Sequence[Step]) -> Table:
    """The history as a table, one line per step."""
    table = Table(title=f"history {seed}" + (f" with {mutation}" if mutation else ""), title_justify="left", box=None)
    for heading in ("step", "seconds", "actor", "action", "partition", "offsets", "fence"):
        table.add_column(heading, justify="right" if heading in ("step", "seconds", "partition") else "left", max_width=40)
    table.add_column("verdict", min_width=30)
    for number, step in enumerate(story, 1):
        fence = "" if step.after is None else f"{step.before or 0} > {step.after}"
        style = "bold red" if step.actor == "check" else "yellow" if step.actor == "fault" else None
        cells = (str(number), f"{step.time:.3f}", step.actor, step.action, "" if step.partition is None else str(step.partition))
        table.add_row(*cells, step.offsets, fence, step.verdict, style=style)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when the history went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Replay one simulated history.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="a safeguard to take out")
    given = parser.parse_args(arguments)
    if not HASHES.items() <= os.environ.items():
        again = [sys.executable, "-m", "tests.simulation", *(sys.argv[1:] if arguments is None else arguments)]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(again, env=os.environ | HASHES | path, check=False).returncode
    story: list[Step] = []
    world = replay(given.seed, given.mutation, story)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table_of(given.seed, given.mutation, story))
    return 1 if world.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
