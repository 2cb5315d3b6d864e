"""Generated projects on real services, with changes under way and processes killed, each judged by `tidemill verify`.

    python -m tests.verify --projects 5              five projects; each takes about half a minute
    python -m tests.verify --seed 7 --minutes 30     as many as begin within half an hour; 7, 8, 9, ... are their seeds

Every third project has a model, whose logged predictions are judged too. The exit code is 1 when a value differs, and the project is printed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

from tests.verify.live import live, servers

from tidemill.local.addresses import home_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 0 when nothing differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--projects", type=int, help="at most so many")
    parser.add_argument("--minutes", type=float, default=10.0, help="none begins later (10)")
    parser.add_argument("--seed", type=int, help="of the first project; another one each time unless told")
    options = parser.parse_args(arguments)
    first = options.seed if options.seed is not None else time.time_ns() // 1000 % 10**8
    home_folder().mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="generated-", dir=home_folder()))
    ends, values, projects = time.monotonic() + 60 * options.minutes, 0, 0
    with servers(home / "servers") as external:
        for seed in islice(count(first), options.projects):
            if time.monotonic() > ends:
                break
            try:
                found = live(seed, home / f"project-{seed}", external, modelled=seed % 3 == 0)
            except Exception as error:  # whatever it is: the seed repeats it
                print(
                    f"FOUND: {error}",
                    *error.__notes__,
                    f"again: python -m tests.verify --seed {seed} --projects 1",
                    sep="\n",
                    file=sys.stderr,
                )
                return 1
            print(f"seed {seed}: {found}", flush=True)
            shutil.rmtree(home / f"project-{seed}")
            values, projects = values + found.values, projects + 1
    print(f"{projects} projects, {values:,} values compared, 0 differ")
    shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
