"""The demo: seven months of real flights through the whole system, and the loop closed on them, with the proof at the end.

Starts Kafka, Valkey and the services as processes of their own, loads January to May as history, trains a first model on it, and replays
the months from June on in order of event time. From then on nobody does anything: drift detection raises alerts, retraining trains new versions, and its gate
promotes those that are shown to be better. Closes with what was reached, beside a model that is never trained again and one that is trained each month. Data
and report: .tidemill/demo, which it empties first.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import random
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import uvloop
from data import STEP_MS, event_tables
from demo_calendar import Calendar, Source, compare
from demo_loop import training_set
from demo_report import Facts, closing, facts_of
from demo_view import Screen
from demo_watch import Watcher
from steps import MODEL, history, month_ms, offline_reached, served, train

from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError
from tidemill.local.addresses import home_folder
from tidemill.local.services import SERVICES, choose
from tidemill.local.stack import External, Stack
from tidemill.offline.store import OfflineStore
from tidemill.operations.playback import Agenda, open_playback
from tidemill.proof.audit import audit
from tidemill.proof.partition_audit import AuditReport
from tidemill.proof.replay import logged, replay
from tidemill.proof.verified import SampleSize, ViewVerify
from tidemill.proof.verified_results import ResultsVerify
from tidemill.redis.client import redis_client
from tidemill.runtime.logs import configure
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.dead_letter_log import read_dead_letters
from tidemill.training.stages.records import run_name
from tidemill.verify.checks import check_training_rows
from tidemill.verify.compare import Compared

HERE = Path(__file__).parent
FIRST = 6
REPLAYED = 1_000
SAMPLE = SampleSize(entities=4, predictions=10, rows=100_000)  # of one partition of each view, for SQL
SAMPLED_RESULTS, SAMPLED_ROWS = 1_000, 20
FIRST_VERSION = run_name(month_ms(FIRST))
# No audit: the proof at the end compares everything.
RUNNING = choose([*(service.name for service in SERVICES if service.name != "audit"), "retraining"])
SETTINGS = {
    "TIDEMILL_FLUSH_SECONDS": "4",  # fewer commits to Delta, and not many fewer: each training waits for the next ones while time stands still
    "TIDEMILL_DRIFT_WINDOW": "30d",  # weeks differ from the whole of winter even within winter; months do not
    "TIDEMILL_RETRAINING_CLOCK": "requests",  # a month of flights is a month to it
    "TIDEMILL_RETRAINING_LOOK_SECONDS": "1.5",  # about two days of flights
    "TIDEMILL_RETRAINING_GRACE_SECONDS": "5",  # and this about ten days
    "TIDEMILL_RETRAINING_NICE": "0",  # the replay waits for it
}


@dataclass
class Demo:
    """One run: what to play, where everything is, and what was seen."""

    project: Project
    stack: Stack
    screen: Screen
    months: int
    began: float
    waited: float = field(default=0.0)  # for trainings

    async def run(self) -> Facts:
        """History, training, replay, proof."""
        turn, end = month_ms(FIRST), month_ms(FIRST + self.months)
        agenda = Agenda([self.project.models[MODEL]], STEP_MS)
        async with open_playback(self.project, self.stack.kafka, self.stack.redis_url) as playback:
            self.screen.chapter("history: January to May")
            await history(self.project, playback, turn, agenda, self.screen.step)
            self.screen.chapter("training on what was known by 1 June")
            training = asyncio.create_task(
                asyncio.to_thread(train, self._environment(), f"2013-{FIRST:02d}-01", self.screen.note, created_ms=turn)
            )
            await served(self.stack.urls["inference"], training)
            self.screen.chapter("replay: each flight is asked for one hour before departure")
            (recording,) = self.project.recordings.values()
            with Calendar(self._source, self._months()) as calendar:
                async with Watcher(self.project, self.stack.kafka) as watcher:
                    self.screen.watch(watcher)
                    async for step in playback.play(recording, turn, end, STEP_MS, agenda, self.stack.urls["inference"]):
                        self.screen.step(step)
                        calendar.passed(step.time_ms)
                        await self._stand_still(watcher)
                    await asyncio.to_thread(self.stack.halt, "retraining")  # what it has not begun by now is of next year
                    await training  # its last step, the record in MLflow, runs beside the first days
                    await offline_reached(playback, self.stack.urls["offline"])
                    return await self._prove(watcher, calendar)

    @property
    def _source(self) -> Source:
        return Source(str(HERE), self.stack.offline, MODEL, FIRST_VERSION)

    def _environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka, "TIDEMILL_OFFLINE": self.stack.offline, "TIDEMILL_PROJECT": str(HERE)}

    async def _stand_still(self, watcher: Watcher) -> None:
        """Waits while a version is trained, which takes seconds of the machine, and would be weeks of the replay."""
        if watcher.trains:
            began = time.monotonic()
            await watcher.trained()
            self.waited += time.monotonic() - began

    def _rest(self) -> None:
        """Stops the services while the stores are compared: nobody needs them any more. Retraining was stopped at the replay's end."""
        for name in self.stack.urls.keys() - {"retraining"}:
            self.stack.halt(name)

    async def _prove(self, watcher: Watcher, calendar: Calendar) -> Facts:
        self.screen.chapter("proof: online = offline, and predictions recomputed")
        offline, run = self.stack.offline, asyncio.get_running_loop().run_in_executor
        calendar.hurry()
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=quiet) as pool:
            again = run(pool, in_sql, offline, self.stack.redis_url)
            comparing = [run(pool, audited, offline, self.stack.redis_url, name) for name in self.project.views]
            await watcher.settled()
            await asyncio.to_thread(self._rest)
            replaying = run(pool, recompute, offline)
            for name, report in zip(self.project.views, reports := await asyncio.gather(*comparing), strict=True):
                self.screen.note(f"{name}: {report.checked:,} values compared, {report.mismatched} differ")
            taught = await asyncio.to_thread(calendar.all)
            replayed, verified, found = await replaying, await again, await run(pool, compare, self._source, self._months(), taught)
        return Facts(
            events=self.screen.events,
            predictions=self.screen.predictions,
            **facts_of(found, watcher.steps, watcher.alerts),
            audit={"checked": sum(r.checked for r in reports), "mismatched": sum(r.mismatched for r in reports)},
            replay=replayed,
            verify=verified,
            dead_letters=len(await read_dead_letters(KafkaSettings(bootstrap_servers=self.stack.kafka), self.project.name)),
            seconds=round(time.monotonic() - self.began, 1),
            training_seconds=round(self.waited, 1),
        )

    def _months(self) -> list[str]:
        return [f"2013-{FIRST + after:02d}" for after in range(self.months)]


def quiet() -> None:
    """Begins a process of the proof: it reports by its results, and by warnings."""
    configure("demo", level=logging.WARNING)


def audited(offline: str, redis_url: str, view: str) -> AuditReport:
    """Audits one view. Runs in a process of its own, beside the others: each view's year is folded anew."""

    async def run() -> AuditReport:
        async with redis_client(redis_url, timeout_seconds=10) as link:
            return await audit(load_project(HERE), OfflineStore(offline), link, [view])

    return asyncio.run(run())


def recompute(offline: str) -> dict[str, int]:
    """Replays a sample of the log. Runs in a process of its own, beside the audit."""
    store = OfflineStore(offline)
    results = replay(load_project(HERE), store, logged(store, sample=REPLAYED))
    return {"checked": len(results), "equal": sum(result.equal for result in results)}


def in_sql(offline: str, redis_url: str) -> dict[str, int]:
    """Computes samples of what is served, logged, joined and trained on in SQL from the archived events. Runs in a process of its own."""

    async def served() -> list[Compared]:
        async with redis_client(redis_url, timeout_seconds=10) as link:
            verifies = [ViewVerify(project, view, store, link, {}, wait_seconds=60) for view in project.views.values()]
            return [(await one.look(draw.randrange(one.view.partitions), SAMPLE, draw)).compared for one in verifies]

    project, store, draw = load_project(HERE), OfflineStore(offline), random.Random(0)
    model = project.models[MODEL]
    values = asyncio.run(served())
    results = ResultsVerify(model, store, since=0, wait_seconds=60)
    labels = results.look(results.draw(SAMPLED_RESULTS, draw), {}).compared
    trained = check_training_rows(store, model, training_set(offline, MODEL, FIRST_VERSION), month_ms(FIRST), SAMPLED_ROWS, seed=0)
    differ = [one.differ for one in (*values, labels, *trained)]
    return {"values": sum(one.values for one in values), "labels": labels.values, "rows": trained[0].values, "differ": sum(differ)}


def main() -> int:
    """Runs the demo; 0 when every proof holds."""
    parser = argparse.ArgumentParser(description="Seven months of real flights through the whole of tidemill.")
    parser.add_argument(
        "--months", type=int, default=7, choices=range(1, 8), metavar="1..7", help="how many months to replay, from June on"
    )
    parser.add_argument("--picture", type=Path, help="also save the last live view as an SVG file")
    options = parser.parse_args()
    home = home_folder() / "demo"
    shutil.rmtree(home, ignore_errors=True)
    began = time.monotonic()
    configure("demo", level=logging.WARNING)
    try:
        project = load_project(HERE)
        with Screen() as screen:
            screen.chapter("starting Kafka, Valkey and the services")
            Thread(target=event_tables, daemon=True).start()  # parses the tables meanwhile; they are kept
            with Stack(home, str(HERE), RUNNING, external=External.from_environment(), environment=SETTINGS) as stack:
                screen.note(
                    f"Kafka {stack.kafka}, Valkey {stack.redis_url}, " + ", ".join(f"{name} {url}" for name, url in stack.urls.items())
                )
                facts = uvloop.run(Demo(project, stack, screen, options.months, began).run())
                screen.chapter("stopping")
            if options.picture:
                screen.save(options.picture)
    except TidemillError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    facts.write(home / "report.json")
    closing(facts, home / "report.json")
    return 0 if facts.proved else 1


if __name__ == "__main__":
    sys.exit(main())
