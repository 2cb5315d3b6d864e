"""What the demo and `prepare.py` share: history through the running system, and a first model on it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import httpx

from tidemill.declarations.project import Project
from tidemill.operations.playback import Agenda, Playback, PlayedStep

MODEL = "flight_late"
DAY_MS = 86_400_000


def month_ms(month: int) -> int:
    """The first moment of a month of 2013 (13: January 2014), UTC."""
    return int(datetime(2013 + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)


async def history(project: Project, playback: Playback, until_ms: int, agenda: Agenda, seen: Callable[[PlayedStep], None]) -> None:
    """Publishes everything known before a moment, and waits until the online store has it. Training waits for the offline store."""
    (recording,) = project.recordings.values()
    start = int(datetime.fromisoformat(recording.start).replace(tzinfo=UTC).timestamp() * 1000)
    async for step in playback.load(recording, start, until_ms, DAY_MS, agenda):
        seen(step)


async def offline_reached(playback: Playback, offline_url: str) -> None:
    """Waits until the offline writer has written all that was published."""
    ends = await playback.ends()
    async with httpx.AsyncClient(base_url=offline_url, trust_env=False) as http:
        while True:
            positions: dict[str, dict[str, int]] = (await http.get("/positions")).json()
            if all(positions.get(tp.topic, {}).get(str(tp.partition), 0) >= end for tp, end in ends.items()):
                return
            await asyncio.sleep(0.2)


def train(environment: Mapping[str, str], until: str, note: Callable[[str], None], created_ms: int | None = None) -> None:
    """Trains and deploys the model in a process of its own; `environment` has the stack's addresses; the version is named after `created_ms` (None: now)."""
    named = [] if created_ms is None else ["--created", str(created_ms)]
    command = [sys.executable, "-m", "tidemill_training", MODEL, "--until", until, *named]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            note(line.strip())
    if process.returncode:
        raise SystemExit(f"training failed with exit code {process.returncode}")


async def served(inference_url: str, training: asyncio.Task[None]) -> None:
    """Waits until inference has loaded the version that a training deploys. Raises what the training raises."""
    async with httpx.AsyncClient(base_url=inference_url, trust_env=False) as http:
        while (await http.get(f"/v2/models/{MODEL}/ready")).status_code != httpx.codes.OK:
            if training.done():
                await training
            await asyncio.sleep(0.5)
