"""The demo: seven months of real flights through the whole system, in a few minutes, with the proof at the end.

Starts Kafka, Valkey and every service as processes of their own, loads January to May as history, trains a first model on it, replays
the months from June on in order of event time, and closes with what was reached. Data and report: .tidemill/demo.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from demo_report import Facts, closing, monthly
from demo_view import Screen
from demo_watch import Watcher

from tidemill.local.stack import External, Stack
from tidemill.offline_store import OfflineStore
from tidemill.playback import Agenda, Playback, open_playback
from tidemill.project import Project, load_project
from tidemill.proof.audit import audit
from tidemill.proof.replay import logged, replay
from tidemill.redis_link import RedisLink

HERE = Path(__file__).parent
HOME = Path(".tidemill/demo")
MODEL = "flight_late"
STEP_MS = 30 * 60_000
DAY_MS = 86_400_000
REPLAYED = 1_000


@dataclass
class Demo:
    """One run: what to play, where everything is, and what was seen."""

    project: Project
    stack: Stack
    screen: Screen
    months: int
    began: float = field(default_factory=time.monotonic)

    async def run(self) -> Facts:
        """History, training, replay, proof."""
        recording = next(iter(self.project.recordings.values()))
        start, turn = _ms(2013, 1), _ms(2013, 6)
        end = _ms(2013, 6 + self.months)
        agenda = Agenda([self.project.models[MODEL]], STEP_MS)
        async with open_playback(self.project, self.stack.kafka, self.stack.redis_url) as playback:
            self.screen.chapter("history: January to May")
            async for step in playback.load(recording, start, turn, DAY_MS, agenda):
                self.screen.step(step)
            await self._offline_reached(playback)
            self.screen.chapter("training on what was known by 1 June")
            await asyncio.to_thread(self._train)
            await self._served()
            self.screen.chapter("replay: every prediction one hour before departure, none knows more than that moment did")
            async with Watcher(self.project, self.stack.kafka) as watcher:
                self.screen.watch(watcher)
                async for step in playback.play(recording, turn, end, STEP_MS, agenda, self.stack.urls["inference"]):
                    self.screen.step(step)
                await self._offline_reached(playback)
                await watcher.settled()
                return await self._prove(watcher, playback)

    def _train(self) -> None:
        command = [sys.executable, "-m", "tidemill_training", MODEL, "--until", "2013-06-01"]
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka,
            "TIDEMILL_OFFLINE": self.stack.offline,
            "TIDEMILL_PROJECT": str(HERE),
        }
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.screen.note(line.strip())
        if process.returncode:
            raise SystemExit(f"training failed with exit code {process.returncode}")

    async def _served(self) -> None:
        """Waits until inference has loaded the deployed version."""
        async with httpx.AsyncClient(base_url=self.stack.urls["inference"], trust_env=False) as http:
            while (await http.get(f"/v2/models/{MODEL}/ready")).status_code != httpx.codes.OK:
                await asyncio.sleep(0.1)

    async def _offline_reached(self, playback: Playback) -> None:
        """Waits until the offline writer has written all that was published."""
        ends = await playback.ends()
        async with httpx.AsyncClient(base_url=self.stack.urls["offline"], trust_env=False) as http:
            while True:
                positions: dict[str, dict[str, int]] = (await http.get("/positions")).json()
                if all(positions.get(tp.topic, {}).get(str(tp.partition), 0) >= end for tp, end in ends.items()):
                    return
                await asyncio.sleep(0.2)

    async def _prove(self, watcher: Watcher, playback: Playback) -> Facts:
        self.screen.chapter("proof: online = offline, and predictions recomputed")
        store = OfflineStore(self.stack.offline)
        async with RedisLink(self.stack.redis_url, timeout_seconds=10) as link:
            audited = await audit(self.project, store, link, note=self.screen.note)
        replayed = await asyncio.to_thread(replay, self.project, store, logged(store, sample=REPLAYED), self.screen.note)
        months, totals = await asyncio.to_thread(monthly, store, self.project.models[MODEL].pipeline(), MODEL, watcher.alerts)
        return Facts(
            events=self.screen.events,
            predictions=self.screen.predictions,
            months=months,
            **totals,
            audit={"checked": audited.checked, "mismatched": audited.mismatched},
            replay={"checked": len(replayed), "equal": sum(item.equal for item in replayed)},
            dead_letters=await playback.dead_letters(),
            seconds=round(time.monotonic() - self.began, 1),
        )


def _ms(year: int, month: int) -> int:
    return int(datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC).timestamp() * 1000)


def main() -> int:
    """Runs the demo; 0 when every proof holds."""
    parser = argparse.ArgumentParser(description="Seven months of real flights through the whole of tidemill.")
    parser.add_argument(
        "--months", type=int, default=7, choices=range(1, 8), metavar="1..7", help="how many months to replay, from June on"
    )
    months = parser.parse_args().months
    shutil.rmtree(HOME, ignore_errors=True)
    project = load_project(HERE)
    began = time.monotonic()
    with Screen() as screen:
        screen.chapter("starting Kafka, Valkey and the services")
        with Stack(HOME, str(HERE), external=External.from_environment()) as stack:
            screen.note(f"Kafka {stack.kafka}, Valkey {stack.redis_url}, " + ", ".join(f"{name} {url}" for name, url in stack.urls.items()))
            facts = asyncio.run(Demo(project, stack, screen, months, began).run())
            screen.chapter("stopping")
    facts.write(HOME / "report.json")
    closing(facts, HOME / "report.json")
    return 0 if facts.proved else 1


if __name__ == "__main__":
    sys.exit(main())
