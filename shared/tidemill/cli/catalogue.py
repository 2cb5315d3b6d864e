"""`tidemill plan`, `tidemill apply` and `tidemill prune`: what the project would change in the catalogue, the change, and what nobody reads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.text import Text

from tidemill.cli.console import console
from tidemill.cli.showing import moment
from tidemill.cli.target import Target, need, servers
from tidemill.errors import CatalogueChanged, DeclarationError, TidemillError
from tidemill.local.addresses import find

if TYPE_CHECKING:
    from tidemill.catalogue.definitions import Definitions
    from tidemill.catalogue.plan import Change
    from tidemill.operations.applying import Applying, Planned
    from tidemill.operations.fill.around import Survey

_MARKS = {"new": ("+", "green"), "changed": ("~", "yellow"), "gone": ("-", "red")}


def plan() -> None:
    """Show what the project would change in the catalogue, and what that costs. It changes nothing.

    If no servers run here and none are named, it starts those of the local stack meanwhile.
    """
    need("deltalake", "lake")
    with servers() as at:
        show(at, asyncio.run(applying(at).planned()), values=True)


def apply(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the stores, and put new versions in force.")] = True,
) -> None:
    """Put the project's declarations in force: fill new versions of views from the archive, hand them over, wait, put them in force.

    Services go on meanwhile with what is in force. It can be killed and run again.
    """
    need("deltalake", "lake")
    need("hiredis", "store")
    with servers() as at:
        planned = asyncio.run(applying(at).planned())
        show(at, planned, values=not yes)
        if planned.plan.changes and (yes or typer.confirm("put this in force?")):
            put_in_force(at, planned, wait=wait)


def prune(yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only shown.")] = False) -> None:
    """Delete versions of views that are not in force, and that neither a deployed model reads nor a prediction that waits for its outcome:
    their topics, tables and keys."""
    need("deltalake", "lake")
    need("hiredis", "store")
    from tidemill.operations.pruning import Pruning
    from tidemill.redis.client import redis_client
    from tidemill.streams.topics import view_topic

    with servers() as at:
        job = Pruning(at.declared.name, at.store, at.kafka_settings, at.urls, all_known=find() is not None)
        with console.status("looking who reads which version ..."):
            unread = asyncio.run(job.unread())
        for name, readers in unread.kept.items():
            for reader in readers:
                console.print(f"  {name} stays: {reader}", markup=False, highlight=False, soft_wrap=True)
        for log in unread.logs:
            console.print(
                f"- {log}: topic {view_topic(at.declared.name, log)}, table views/{log}, its keys in Redis", markup=False, highlight=False
            )
        if not unread.logs:
            console.print("nothing to delete")
            return
        console.print("old predictions that read these versions cannot be replayed afterwards")
        if not yes:
            console.print("nothing is deleted yet: add --yes")
            return

        async def run() -> None:
            async with redis_client(at.redis_url, timeout_seconds=10) as link:
                await job.delete(unread, link, console.print)

        with console.status("waiting until services have followed, then deleting ..."):
            asyncio.run(run())
        console.print(f"{len(unread.logs)} deleted", highlight=False)


def applying(at: Target) -> Applying:
    """The job for a project."""
    from tidemill.archive.retention import ArchiveSettings
    from tidemill.operations.applying import Applying

    return Applying(at.declared, at.store, at.kafka_settings, ArchiveSettings.load())


def put_in_force(at: Target, planned: Planned, begun: Definitions | None = None, *, wait: bool = True) -> None:
    """Apply a plan, with a progress bar for each version. `begun`: the catalogue after its first record, if that is written already."""
    from tidemill.cli.filling import Bars
    from tidemill.redis.client import redis_client

    job = applying(at)

    async def run() -> int | None:
        with Bars(console) as bars:
            now = await job.fill(planned, begun or await job.begin(planned), bars)
            if planned.plan.waits:
                if not wait:
                    return None
                async with redis_client(at.redis_url, timeout_seconds=10) as link:
                    await job.wait(planned, now, link, bars)
        return (await job.finish(planned, now)).number

    number = asyncio.run(run())
    if number is None:
        console.print("the new versions are filled and handed over, and not in force yet: run tidemill apply once all services run")
    else:
        console.print(f"in force, as number {number} of the catalogue", highlight=False)


def show(at: Target, planned: Planned, *, values: bool = False) -> None:
    """Print a plan. `values`: also those of some entities, before and after."""
    changes = planned.plan.changes
    since = f"number {planned.before.number} of {moment(planned.before.time)}" if planned.before.number else "empty"
    console.print(f"project {at.declared.name}; the catalogue is {since}", highlight=False)
    for change in changes:
        _show(at, change, planned, values=values)
    if not changes:
        console.print("nothing to change")


def _show(at: Target, change: Change, planned: Planned, *, values: bool) -> None:
    mark, style = _MARKS[change.kind]
    console.print(Text(f"{mark} {change.what} {change.name}: {change.kind}", style=style))
    lines = list(change.details)
    if change.version is not None:
        lines += _filled(planned.surveys[change.name, change.version], change.version)
    if change.what == "view":
        models = [model.name for model in at.declared.models.values() if any(view.name == change.name for view in model.views)]
        lines += [f"read by the models {', '.join(models)}"] * bool(models)
        if values and change.kind == "changed":
            lines += _samples(at, change, planned)
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)


def _samples(at: Target, change: Change, planned: Planned) -> Iterator[str]:
    """Values of a changed view; none where they would be null for want of events, or where those of today lack history that was loaded."""
    from tidemill.catalogue.definitions import project_of
    from tidemill.cli.samples import samples
    from tidemill.clock import now_ms

    survey = None if change.version is None else planned.surveys[change.name, change.version]
    old = project_of(planned.before, at.declared.name).views.get(change.name)
    if old is None or (survey is not None and survey.since_ms is not None):
        return
    lacks = len(planned.plan.first.loads.get(old.source.name, ())) > planned.before.version(change.name, old.version).loaded
    if not lacks:
        since = planned.plan.first.since.get(old.source.name, {})
        new = at.declared.views[change.name].as_version(change.version or old.version, in_force=True, since=since)
        yield from samples(at.store, old, new, now_ms())


def _filled(survey: Survey, version: int) -> list[str]:
    from tidemill.operations.fill.job import EVENTS_A_SECOND

    seconds = math.ceil((survey.archived + survey.live) / EVENTS_A_SECOND)
    cost = f"{survey.archived:,} archived events to fold, and {survey.live:,} from the topic; filling takes about {seconds:,} s"
    lines = [f"version {version} is filled: {cost} (an estimate, at {EVENTS_A_SECOND:,} events a second)"]
    if survey.unfinished:
        lines.append(
            f"{survey.unfinished:,} archived events are left out: their file is not loaded to its end. Run tidemill load again, then this"
        )
    if survey.missing:
        lines.append(
            f"earlier events do not have the fields of {', '.join(survey.missing)}: null until a window begins later; of the whole life for ever"
        )
    if survey.lost:
        lines.append(f"{survey.lost:,} events expired before they were archived: values are null until a window begins after this change")
    if survey.since_ms is not None and not survey.lost:
        lines.append(f"the archive keeps events since {moment(survey.since_ms)}: values of windows that begin earlier are null")
    return lines


class Started(NamedTuple):
    """A plan that a start of the stack has begun, and that has to be finished while services run."""

    planned: Planned
    now: Definitions


def at_start(at: Target, before: Definitions) -> Started | None:
    """What a start of the stack does once servers answer: it puts in force what needs no services, and begins the rest; None: nothing is left.
    `before`: the catalogue now.

    It leaves everything as it is, and says so, when something in force would be lost, or the declarations are refused.
    """
    from tidemill.catalogue.plan import unapplied

    try:
        if before.number and not unapplied(before, at.declared):
            return None  # without the packages of the archive, which take a while to import
        return _begun(at, before)
    except (DeclarationError, CatalogueChanged) as error:
        _left(error)
        return None


def _begun(at: Target, before: Definitions) -> Started | None:
    job = applying(at)

    async def run() -> Started | None:
        planned = await job.planned(before)
        if not planned.plan.changes:
            return None
        if any(change.kind == "gone" for change in planned.plan.changes):
            show(at, planned)
            console.print("something in force would be gone, so all of it waits for you: run tidemill apply", style="yellow")
            return None
        now = await job.begin(planned)
        if planned.plan.waits:
            return Started(planned, now)
        await job.finish(planned, now)
        return None

    return asyncio.run(run())


def after_start(at: Target, started: Started, *, wait: bool) -> None:
    """Fills and puts in force what a start has begun. An error is printed: what is in force goes on."""
    show(at, started.planned)
    try:
        put_in_force(at, started.planned, started.now, wait=wait)
    except TidemillError as error:
        _left(error)


def _left(error: TidemillError) -> None:
    console.print(f"the catalogue is left as it was: {error}", style="red", markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(plan)
    app.command()(apply)
    app.command()(prune)
