"""`tidemill simulate`: invented traffic, with drifts of one's choosing, to try a pipeline before production."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import console
from tidemill.cli.target import Target, need, target
from tidemill.clock import now_ms
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.errors import TidemillError, UnknownEvent, UnknownModel
from tidemill.traffic.acts import TrafficPlan, acts
from tidemill.traffic.drifts import KINDS, parse_drift
from tidemill.traffic.recorded import recorded_rows

if TYPE_CHECKING:
    from tidemill.traffic.invented import Row
    from tidemill.traffic.tally import Tally

_KINDS = ", ".join(f"{name} ({kind.told})" for name, kind in KINDS.items())


def simulate(
    seconds: Annotated[float, typer.Option(min=0, help="How long questions come; outcomes that are due later are still sent.")] = 60.0,
    events: Annotated[int | None, typer.Option(min=1, help="No more events than this, outcomes included.")] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Events of each kind, and so questions, a second.")] = 10.0,
    delay: Annotated[str, typer.Option(help='From a question to its outcome, such as "5s".')] = "5s",
    like: Annotated[
        list[str] | None, typer.Option(help="EVENT=FILE: draw this event from recorded rows (Parquet, CSV, JSON lines); may be repeated.")
    ] = None,
    drift: Annotated[
        list[str] | None, typer.Option(help=f"A drift such as 'amount:shift=2 after=60s'; may be repeated. Kinds: {_KINDS}.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same events, but for their times and ids.")] = 0,
    entities: Annotated[int, typer.Option(min=1, help="How many different keys of each view are invented.")] = 20,
    model: Annotated[list[str] | None, typer.Option(help="Ask this model only; may be repeated.")] = None,
    ask: Annotated[bool, typer.Option(help="Ask for predictions.")] = True,
    over: Annotated[str, typer.Option(help="How events are published: http or kafka.")] = "http",
    dry: Annotated[bool, typer.Option("--dry-run", help="Send nothing; print the first events and questions.")] = False,
) -> None:
    """Send invented traffic to the running stack: ask, publish, and tell the outcome after a while.

    Values are invented from the declarations: conditions come true and false, categories and keys come back, and outcomes follow from what a request
    gives, so that there is something to learn. With --like rows are drawn from files, and an outcome is the one that its row had.

    It goes to the stack of this folder, or where the environment says, and nowhere else.
    """
    if over not in ("http", "kafka"):
        raise TidemillError(f"--over {over}", mend="write http or kafka")
    at = None if dry else target()
    project = _declared() if at is None else at.project()
    for name in model or ():
        if name not in project.models:
            raise UnknownModel(name, list(project.models))
    plan = TrafficPlan(
        seed, rate, seconds, events, _delay_ms(delay), entities, [parse_drift(text, project) for text in drift or ()],
        _recorded(project, like or []), model or None,
    )  # fmt: skip
    if at is None:
        _print(project, plan)
        return
    from tidemill.traffic.tally import Tally

    tally, stopped = Tally(plan.drifts), False
    try:
        asyncio.run(_send(at, project, plan, tally, ask=ask, over=over))
    except KeyboardInterrupt:
        stopped = True
    for line in tally.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if stopped:
        console.print("stopped: outcomes that were due later are not sent")
        raise typer.Exit(130)
    raise typer.Exit(0 if tally.accepted else 1)


async def _send(at: Target, project: Project, plan: TrafficPlan, tally: Tally, *, ask: bool, over: str) -> None:
    from tidemill.traffic.sending import open_door, send

    found = acts(project, plan, now_ms())
    wanted = found if ask else (act for act in found if not act.model)
    ingestion = at.url("ingestion") if over == "http" else ""
    inference = at.url("inference") if ask and project.models else ""
    async with open_door(project, ingestion, inference, at.kafka_settings if over == "kafka" else None) as door:
        with console.status("beginning ...") if console.is_terminal else nullcontext() as status:
            await send(wanted, door, tally, lambda so_far: None if status is None else status.update(so_far.progress()))


def _print(project: Project, plan: TrafficPlan) -> None:
    """The first acts, a line each."""
    import json
    from itertools import islice

    from tidemill.traffic.published import instance, published

    for act in islice(acts(project, plan, now_ms()), 20):
        what = f"ask {act.model}" if act.model else act.event
        body = instance(project.models[act.model], act.row) if act.model else published(project.events[act.event], act.row)
        console.print(f"{act.offset_ms / 1000:8.3f} s  {what}  {json.dumps(body)}", markup=False, highlight=False, soft_wrap=True)


def _declared() -> Project:
    from tidemill.cli.target import project_spec
    from tidemill.declarations.project import load_project

    return load_project(project_spec())


def _delay_ms(text: str) -> int:
    try:
        return parse_ms(text)
    except ValueError as error:
        raise TidemillError(f"--delay: {error}", mend="see tidemill simulate --help") from None


def _recorded(project: Project, like: Sequence[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for text in like:
        name, equals, path = text.partition("=")
        if not equals:
            raise TidemillError(f"--like {text} is not EVENT=FILE", mend="for example --like orders.placed=placed.jsonl")
        if name not in project.events:
            raise UnknownEvent(name, list(project.events))
        found[name] = _rows(project.events[name], Path(path))
    return found


def _rows(event: Event, path: Path) -> list[Row]:
    need("pyarrow", "lake")
    from tidemill.scoring.tables import read_table

    table = read_table(path)
    return recorded_rows(
        event, (dict(zip(table.columns, values, strict=True)) for values in zip(*table.columns.values(), strict=True)), str(path)
    )


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(simulate)
