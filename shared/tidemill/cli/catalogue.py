"""`tidemill plan` and `tidemill apply`: what the project would change in the catalogue, and the change itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from tidemill.cli.showing import moment
from tidemill.cli.target import Target, need, servers

if TYPE_CHECKING:
    from tidemill.catalogue.plan import Change
    from tidemill.operations.applying import Applying, Planned
    from tidemill.operations.fill.around import Survey

console = Console()
_MARKS = {"new": ("+", "green"), "changed": ("~", "yellow"), "gone": ("-", "red")}


def plan() -> None:
    """Show what the project would change in the catalogue, and what that costs. It changes nothing.

    If no servers run here and none are named, it starts those of the local stack meanwhile.
    """
    need("deltalake", "lake")
    with servers() as at:
        show(at, asyncio.run(applying(at).planned()))


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
        show(at, planned)
        if planned.plan.changes and (yes or typer.confirm("put this in force?")):
            put_in_force(at, planned, wait=wait)


def applying(at: Target) -> Applying:
    """The job for a project."""
    from tidemill.archive.retention import ArchiveSettings
    from tidemill.operations.applying import Applying
    from tidemill.runtime.settings import KafkaSettings

    return Applying(at.project, at.store, KafkaSettings(bootstrap_servers=at.kafka), ArchiveSettings.load())


def put_in_force(at: Target, planned: Planned, *, wait: bool = True) -> None:
    """Apply a plan, with a progress bar for each version."""
    from tidemill.cli.filling import Bars
    from tidemill.redis.client import redis_client

    job = applying(at)

    async def run() -> int | None:
        with Bars(console) as bars:
            now = await job.fill(planned, await job.begin(planned), bars)
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


def show(at: Target, planned: Planned) -> None:
    """Print a plan."""
    changes = planned.plan.changes
    since = f"number {planned.before.number} of {moment(planned.before.time)}" if planned.before.number else "empty"
    console.print(f"project {at.project.name}; the catalogue is {since}", highlight=False)
    for change in changes:
        _show(at, change, planned)
    if not changes:
        console.print("nothing to change")


def _show(at: Target, change: Change, planned: Planned) -> None:
    mark, style = _MARKS[change.kind]
    console.print(Text(f"{mark} {change.what} {change.name}: {change.kind}", style=style))
    lines = list(change.details)
    if change.version is not None:
        lines += _filled(planned.surveys[change.name, change.version], change.version)
    if change.what == "view":
        models = [model.name for model in at.project.models.values() if any(view.name == change.name for view in model.views)]
        lines += [f"read by the models {', '.join(models)}"] * bool(models)
    for line in lines:
        console.print(Text(f"    {line}"), soft_wrap=True)


def _filled(survey: Survey, version: int) -> list[str]:
    lines = [f"version {version} is filled: {survey.archived:,} archived events to fold, and {survey.live:,} from the topic"]
    if survey.missing:
        lines.append(f"no archived event has {', '.join(survey.missing)}: values are null until a window begins after this change")
    if survey.lost:
        lines.append(f"{survey.lost:,} events expired before they were archived: values are null until a window begins after this change")
    if survey.since_ms is not None and not survey.missing and not survey.lost:
        lines.append(f"the archive keeps events since {moment(survey.since_ms)}: values of windows that begin earlier are null")
    return lines


def lossless(planned: Planned) -> bool:
    """Whether nothing that runs is lost by a plan."""
    return all(change.kind != "gone" for change in planned.plan.changes)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(plan)
    app.command()(apply)
