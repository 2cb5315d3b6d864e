"""Gives the running stack two months of history and a first model, unless it has a model already. `make up` runs this."""

from __future__ import annotations

import asyncio
import logging
import sys

import httpx
from data import STEP_MS
from rich.console import Console
from steps import MODEL, history, month_ms, served, train

from tidemill.cli.target import Target, target
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.operations.playback import Agenda, PlayedStep, open_playback
from tidemill.runtime.logs import configure

UNTIL = 3
QUESTION = (
    '{"entities": {"origin": "EWR", "carrier": "UA", "dest": "SFO", "route": "EWR-SFO", "tailnum": "N38727", "flight_number": "UA1532", '
    '"departure_minute": 1200, "weekday": 4, "distance": 2565, "duration": 390}, "time": "2013-03-01T00:00:00Z"}'
)
console = Console()


async def prepare(at: Target, project: Project) -> None:
    """Loads January and February, trains on them, and prints a question to ask."""
    if not await _has_model(at.url("inference")):
        with console.status("loading January and February 2013") as status:

            def seen(step: PlayedStep) -> None:
                status.update(f"loading history: {step.events:,} events of one day")

            async with open_playback(project, at.kafka, at.redis_url) as playback:
                agenda = Agenda(list(project.models.values()), STEP_MS)
                await history(project, playback, month_ms(UNTIL), agenda, seen)
            status.update("training a first model")
            training = asyncio.create_task(
                asyncio.to_thread(
                    train, at.environment, f"2013-{UNTIL:02d}-01", lambda text: console.print(text, style="dim", highlight=False)
                )
            )
            await served(at.url("inference"), training)
            await training
    console.print("ask for a prediction, as of a moment in the history that is loaded:\n", style="bold")
    console.print(f"curl -s {at.url('inference')}/predict/{MODEL} -d '{QUESTION}'\n", markup=False, highlight=False, soft_wrap=True)
    for service in ("ingestion", "serving", "inference"):
        console.print(f"{service:>10}  {at.url(service)}/docs", highlight=False)


async def _has_model(inference_url: str) -> bool:
    async with httpx.AsyncClient(base_url=inference_url, trust_env=False) as http:
        return (await http.get(f"/v2/models/{MODEL}/ready")).status_code == httpx.codes.OK


def main() -> int:
    """0 when the stack answers predictions."""
    configure("prepare", level=logging.WARNING)
    try:
        at = target()
        asyncio.run(prepare(at, at.project()))
    except TidemillError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
