"""The whole running system under faults, checked while they strike.

    python -m tests.faults                       the matrix: every kind once, and more, until there were enough
    python -m tests.faults --third 1             every third kind of each target; 2, 3: the others
    python -m tests.faults --soak --minutes 65   a random schedule at full traffic for so long; --faults 500 --events 10000000: and until then

What was found is printed and written to .tidemill/faults.json; the exit code is 1 when anything is lost, doubled or different.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.faults.injections.catalogue import CATALOGUE
from tests.faults.injections.disks import cannot_mount
from tests.faults.injections.ground import ground
from tests.faults.injections.injection import Injection
from tests.faults.report import Report
from tests.faults.run import PROJECT, Plan, Run, write
from tests.faults.schedule import third

from tidemill.local.addresses import home_folder
from tidemill.local.services import SERVICES, choose
from tidemill.runtime import logs

DEFAULT_SEED = 20_240_101
SECOND_WORKER = replace(choose(["features"])[0], name="features2")
ENVIRONMENT = {"TIDEMILL_DRIFT_WINDOW": "1m"}
DISKS = {"valkey": 512, "offline": 2048}  # megabytes


class Defaults(NamedTuple):
    """Of what the command line leaves open."""

    minutes: float
    faults: int
    events: int
    events_per_second: int


MATRIX, THIRD, SOAK = Defaults(15.0, 60, 300_000, 600), Defaults(8.0, 30, 120_000, 400), Defaults(65.0, 0, 0, 4_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 0 when nothing is wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not any(_wanted(kind, options) for kind in CATALOGUE):
        parser.error("no kind of fault is called so: --list shows all")
    if options.list:
        print("\n".join(f"{injection.name}  (rows {', '.join(injection.rows)})" for injection in CATALOGUE))
        return 0
    report, home = struck(options)
    _tell(report)
    write(report, home_folder() / "faults.json")
    if report.wrong:
        print(f"\n{len(report.findings)} findings; logs and data: {home}\nagain: {report.command}", file=sys.stderr)
    elif not options.keep:
        shutil.rmtree(home, ignore_errors=True)
    return int(report.wrong)


def struck(options: argparse.Namespace) -> tuple[Report, Path]:
    """Run on a ground of its own. Returns the report and the folder with all data; raises with a note that names seed and folder."""
    home_folder().mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="faults-", dir=home_folder()))
    project = Path(shutil.copytree(PROJECT, home / "project"))  # it changes while it runs
    disks = {} if cannot_mount(home / "disks") else {name: size for name, size in DISKS.items() if not (options.soak and name == "offline")}
    plan = _plan(options, disks)
    command = _command(options, plan)
    print(f"seed {plan.seed}: {len(plan.catalogue)} kinds of faults; data and logs in {home}", flush=True)
    try:
        with ground(home, project, services=(*SERVICES, SECOND_WORKER), environment=ENVIRONMENT, megabytes=disks) as rig:
            return _run(Run(plan, rig, command), home, disks), home
    except BaseException as error:
        error.add_note(f"logs: {home / 'logs'}; again: {command}")
        raise


def _run(run: Run, home: Path, disks: dict[str, int]) -> Report:
    with (home / "logs" / "driver.log").open("w") as log:
        logs.configure("faults", stream=log)  # clients say much while their servers are away
        try:
            asyncio.run(run.run())
        except BaseException:
            _tell(run.report)
            write(run.report, home_folder() / "faults.json")
            raise
        finally:
            if run.report.wrong and "offline" in disks:  # what lies on a small disk goes with it: keep the store that tells most
                shutil.copytree(home / "offline", home / "offline.kept", dirs_exist_ok=True)
    return run.report


def _command(options: argparse.Namespace, plan: Plan) -> str:
    """What repeats this run."""
    words = ["python", "-m", "tests.faults", "--seed", str(plan.seed), *(["--soak"] if plan.soak else [])]
    words += ["--minutes", f"{plan.minutes:g}", "--faults", str(plan.faults), "--events", str(plan.events)]
    words += ["--events-per-second", str(plan.events_per_second)]
    words += ["--third", str(options.third)] if options.third else []
    return shlex.join(words + [word for kind in options.kinds or () for word in ("--kinds", kind)])


def _plan(options: argparse.Namespace, disks: dict[str, int]) -> Plan:
    seed = options.seed if options.seed is not None else (time.time_ns() // 1000 % 10**8 if options.soak else DEFAULT_SEED)
    chosen = tuple(kind for kind in CATALOGUE if _possible(kind, disks) and _wanted(kind, options))
    chosen = third(chosen, options.third) if options.third else chosen
    minutes, faults, events, per_second = SOAK if options.soak else THIRD if options.third else MATRIX
    plan = Plan(
        seed,
        options.minutes or minutes,
        chosen,
        faults if options.faults is None else options.faults,
        events if options.events is None else options.events,
        events_per_second=options.events_per_second or per_second,
    )
    return replace(plan, soak=True, cases_per_second=15) if options.soak else replace(plan, refolded_events=10**7)


def _possible(kind: Injection, disks: dict[str, int]) -> bool:
    return all(need.removesuffix(" disk") in disks for need in kind.needs if need.endswith(" disk"))


def _wanted(kind: Injection, options: argparse.Namespace) -> bool:
    if options.kinds:
        return any(re.search(pattern, kind.name) for pattern in options.kinds)
    return bool(options.soak) or not kind.soak


def _tell(report: Report) -> None:
    shown = msgspec.to_builtins(report)
    print("\n".join(f"{name:>24}  {value}" for name, value in shown.items() if not isinstance(value, dict | list)))
    print("\n".join(f"{name:>24}  {value}" for name, value in shown.items() if name in ("checked", "results")))
    for kind, figures in sorted(report.by_kind.items(), key=lambda item: -item[1].worst_recovery_seconds):
        print(f"{figures.count:>6} x {figures.worst_recovery_seconds:6.1f} s  {kind}")
    for kind in report.never:
        print(f"NEVER STRUCK: {kind}")
    for finding in report.findings:
        print(f"FOUND: {finding}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="the schedule's and the traffic's; a soak has another one each time unless told")
    parser.add_argument("--soak", action="store_true", help="a random schedule until the time is up, the longer faults included")
    parser.add_argument(
        "--minutes", type=float, help=f"a soak's length, else at most twice so long (soak: {SOAK.minutes:g}, else {MATRIX.minutes:g})"
    )
    parser.add_argument(
        "--faults",
        type=int,
        help=f"go on until there were so many, for twice the minutes at most (soak: {SOAK.faults}, else {MATRIX.faults})",
    )
    parser.add_argument("--events", type=int, help=f"and so many events (soak: {SOAK.events}, else {MATRIX.events:,})")
    parser.add_argument(
        "--events-per-second", type=int, help=f"of traffic (soak: {SOAK.events_per_second:,}, else {MATRIX.events_per_second:,})"
    )
    parser.add_argument("--kinds", action="append", help="only kinds whose name this regular expression finds; may be repeated")
    parser.add_argument("--third", type=int, choices=(1, 2, 3), help="only every third kind of each target")
    parser.add_argument("--keep", action="store_true", help="keep data and logs although nothing is wrong")
    parser.add_argument("--list", action="store_true", help="list the kinds and end")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
