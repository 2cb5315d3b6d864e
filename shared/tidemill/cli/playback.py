"""`tidemill replay-stream`: play a project's recording through the running stack."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from tidemill.cli.target import Target, target
from tidemill.cli.times import to_ms
from tidemill.declarations import Recording
from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.errors import TidemillError


def replay_stream(
    start: Annotated[str | None, typer.Option(help="First moment (ISO date or time, UTC).", show_default="the recording's start")] = None,
    end: Annotated[str | None, typer.Option(help="Last moment.", show_default="the recording's end")] = None,
    speed: Annotated[str, typer.Option(help='Event time over wall time, such as "600x"; "max" for as fast as it goes.')] = "600x",
    step: Annotated[str, typer.Option(help="Events and requests are grouped in steps of this much event time.")] = "10m",
    recording: Annotated[str | None, typer.Option(help="Which recording, when the project has several.")] = None,
    predict: Annotated[bool, typer.Option(help="Ask for the predictions that events announce.")] = True,
) -> None:
    """Play recorded events in order of event time, and ask for the predictions that they announce.

    At any speed a request is answered from the events that were known at its time.
    """
    at = target()
    chosen = _choose(at.declared, recording)
    start_ms, end_ms = to_ms(start or chosen.start), to_ms(end or chosen.end)
    if start_ms >= end_ms:
        raise TidemillError(f"there is nothing from {start or chosen.start} to {end or chosen.end}", mend="let --start lie before --end")
    factor, step_ms, url = _factor(speed), _step_ms(step), at.url("inference") if predict else ""
    project = at.project()
    try:
        asyncio.run(_play(at, project, chosen, start_ms, end_ms, factor, step_ms, url))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _play(
    at: Target, project: Project, recording: Recording, start_ms: int, end_ms: int, speed: float | None, step_ms: int, url: str
) -> None:
    from tidemill.operations.playback import Agenda, open_playback

    events = predictions = 0
    models = list(project.models.values()) if url else []
    async with open_playback(project, at.kafka, at.redis_url) as playback:
        with Live(refresh_per_second=4) as live:
            agenda = Agenda(models, step_ms)
            async for done in playback.play(recording, start_ms, end_ms, step_ms, agenda, url, speed):
                events, predictions = events + done.events, predictions + len(done.answers)
                live.update(_progress(done.time_ms, events, predictions, done.barrier_seconds))


def _progress(time_ms: int, events: int, predictions: int, barrier_seconds: float) -> Table:
    table = Table("event time", "events", "predictions", "published to applied")
    table.add_row(
        f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}",
        f"{events:,}",
        f"{predictions:,}",
        f"{barrier_seconds * 1000:.0f} ms",
    )
    return table


def _choose(project: Project, name: str | None) -> Recording:
    recordings = project.recordings
    if name in recordings:
        return recordings[name]
    if name is None and len(recordings) == 1:
        return next(iter(recordings.values()))
    raise TidemillError(
        f"project {project.name!r} has {len(recordings)} recordings: {', '.join(recordings) or 'none'}",
        mend="declare a Recording, or choose one with --recording",
    )


def _factor(text: str) -> float | None:
    if text == "max":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise TidemillError(f"{text!r} is not a speed", mend='write for example "600x", or "max"')
    return factor


def _step_ms(text: str) -> int:
    try:
        return parse_ms(text)
    except ValueError as error:
        raise TidemillError(f"--step: {error}", mend="see tidemill replay-stream --help") from None


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("replay-stream")(replay_stream)
