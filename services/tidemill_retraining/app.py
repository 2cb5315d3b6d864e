"""Wiring of retraining: the loop and the HTTP answers beside it."""

from __future__ import annotations

import asyncio
from functools import partial

from tidemill.declarations.project import load_project
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, everything_of
from tidemill_retraining.loop import Loop
from tidemill_retraining.online import OnlineLoop
from tidemill_retraining.settings import RetrainingSettings
from tidemill_retraining.strays import to_be_followed
from tidemill_retraining.turns import Turn


def build(settings: RetrainingSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    project = load_project(settings.project.project)
    board, pulses = HealthBoard("kafka"), list[Pulse]()
    following = Following(settings.kafka, project, everything_of, partial(board.down, "kafka"), pulses)

    async def work(now: InForce) -> None:
        project = now.project
        pulses.clear()
        followed = await supervise(partial(to_be_followed, settings.kafka, project), partial(board.down, "kafka"))
        board.up("kafka")
        turn = Turn()
        loops = [Loop(project, model, settings, board, turn) for model in followed]
        loops += [OnlineLoop(project, model, settings, board) for model in project.models.values() if model.online is not None]
        pulses[:] = [loop.pulse for loop in loops]
        try:
            await run_together(asyncio.Event().wait(), *(loop.run() for loop in loops))
        finally:
            for loop in loops:
                board.forget(loop.check)

    return Service(settings, board, OpsApp(board), partial(following.run, work), pulses)
