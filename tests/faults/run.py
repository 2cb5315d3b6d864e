"""A run: the whole system, its traffic, its checker, and faults one after the other until there were enough."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from tests.faults.asking import MODEL, Clients
from tests.faults.closing import Closing
from tests.faults.injections.ground import Ground
from tests.faults.injections.injection import Injection, Missed
from tests.faults.messages import Configuration, Finish
from tests.faults.operating import Operator
from tests.faults.progress import PATIENCE_SECONDS, Progress
from tests.faults.report import Display, Report
from tests.faults.resources import Resources
from tests.faults.schedule import SERVERS, Fault, beside, schedule
from tests.faults.tally import Tally
from tests.faults.traffic import Traffic
from tests.faults.versions import Versions
from tests.faults.watching import CheckerProcess

from tidemill.declarations.project import load_project
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.store import OfflineStore
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import results_topic

PROJECT = Path(__file__).parent / "fault_project"
WARM_SECONDS = 12.0
TRAININGS = 5  # of which a fault may end all but the last
AUDITED_EVENTS = 2_000_000
_STRIKE_SECONDS = 480.0
_THREADS = 24  # each strike waits in one
_EXPLAINED_SECONDS = 5.0
_TWICE_SECONDS = 5.0  # in which a result that is published twice would come
Recovered = Callable[[float, str], Awaitable[float]]
"""Returns when a fault is overcome: the seconds since a moment (monotonic). Called with the moment when it ended, and its name."""


@dataclass(frozen=True)
class Plan:
    """What a run is: `faults` faults and `events` events at least, and every kind of fault; a soak takes its `minutes`. After twice as long it
    ends anyway.

    A store that was emptied folds its whole log again: beyond `refolded_events` that is not done any more, since nothing else takes as long.
    """

    seed: int
    minutes: float
    catalogue: Sequence[Injection]
    faults: int = 0
    events: int = 0
    refolded_events: int = 400_000
    events_per_second: int = 1_000
    cases_per_second: float = 10
    soak: bool = False
    audit: bool = True

    def over(self, seconds: float, faults: int, events: int, *, whole: bool) -> bool:
        """Whether a run is long enough after so much. `whole`: every kind struck."""
        enough, limit_seconds = faults >= self.faults and events >= self.events, 60 * self.minutes
        return (enough and (seconds > limit_seconds if self.soak else whole)) or seconds > 2 * limit_seconds


class Run:
    """One run over a ground."""

    def __init__(self, plan: Plan, rig: Ground, command: str) -> None:
        self.plan, self.rig = plan, rig
        self.report = Report(seed=plan.seed, command=command)
        self._folder = rig.stack.project or ""
        self.project = load_project(self._folder)
        self.kafka = KafkaSettings(bootstrap_servers=rig.stack.kafka)
        self.tally = Tally()
        self.versions = Versions(self.kafka, self.project)
        self.traffic = Traffic(self.kafka, plan.seed, plan.events_per_second)
        self.clients = Clients(self.kafka, rig.stack.urls["inference"], plan.seed, plan.cases_per_second)
        self.resources = Resources(Path(rig.stack.offline))
        self._display = Display(self.report, self._figures)
        self.operator = Operator(rig, self.kafka, self.project.name, self.traffic, self.tally, self._display.line, plan.seed)
        config = Configuration(rig.stack.kafka, rig.redis_url, rig.stack.urls["serving"], rig.stack.offline, self._folder, plan.seed)
        self.checker = CheckerProcess(rig.home, config, self._display.line)
        self._striking: list[Injection] = []
        self._changed = asyncio.Condition()
        self._rewinding: list[tuple[float, float]] = []
        self._began = time.monotonic()

    def _figures(self) -> dict[str, Any]:
        status = self.checker.status
        return {
            "events": self.traffic.events, "predictions": self.clients.answered, "requests repeated": self.clients.repeated,
            "samples judged": status.samples, "predictions computed again": status.recomputed, "offline rows compared": status.rows, **status.counts,
        }  # fmt: skip

    async def run(self) -> Report:
        """Everything; the report tells what was found. Raises what ended the run early."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
        with self._display:
            async with AsyncExitStack() as stack:
                await self.checker.start()
                stack.push_async_callback(self.checker.end)
                link = await stack.enter_async_context(RedisLink(self.rig.redis_url, timeout_seconds=3))
                progress = Progress(self.versions, self.rig, link, self.traffic.positions, self.clients)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.checker.run())
                        group.create_task(self.traffic.run())
                        group.create_task(self.clients.run())
                        beside = [group.create_task(work) for work in (self._look_at_resources(), self.versions.run(), self.operator.run())]
                        await self._storm(progress)
                        await self._close(progress)
                        for task in beside:
                            task.cancel()
                    await self._compare()
                finally:
                    self._summarise(progress)
        return self.report

    async def _storm(self, progress: Progress) -> None:
        self._display.state("warming up")
        await asyncio.sleep(WARM_SECONDS)
        if any("operator" in injection.needs for injection in self.plan.catalogue):
            await self.operator.begin()
        await asyncio.to_thread(self._train)
        self.clients.asking = True
        await progress.recovered(time.monotonic(), "the first deployment")
        self._display.state("faults")
        commands = [kind for kind in self.plan.catalogue if "operator" in kind.needs]
        others = [kind for kind in self.plan.catalogue if "operator" not in kind.needs]
        async with asyncio.TaskGroup() as group:
            for kinds, recovered in ((others, progress.recovered), (commands, self.operator.settled)):
                group.create_task(self._strike_on(kinds, recovered))
            group.create_task(self._train_again())

    async def _strike_on(self, kinds: Sequence[Injection], recovered: Recovered) -> None:
        """Faults of these kinds, one after the other, beside those of other kinds. A matrix rests once all of these struck, until the others have too."""
        faults = schedule(self.plan.seed, kinds, partial(self._allowed, kinds)) if kinds else iter(())
        for fault in faults:
            while not self.plan.soak and self._never() and not self._never(kinds) and not self._over:
                await asyncio.sleep(0.5)
            if self._over:
                return
            await self._strike(fault, recovered)
            await asyncio.sleep(fault.pause_seconds)

    async def _train_again(self) -> None:
        """A new model, while faults strike: a training that they end is begun again, as its operator would."""
        while self.report.faults < min(self.plan.faults or 60, 60) / 2:
            if self._over:
                return
            await asyncio.sleep(1)
        for left in reversed(range(TRAININGS)):
            try:
                async with self.operator.lock:  # what is trained on stays in force meanwhile
                    await asyncio.to_thread(self._train)
            except RuntimeError as error:
                self._display.line(str(error))
                if not left:
                    raise
            else:
                self._display.line("a newly trained model was deployed")
                return

    @property
    def _over(self) -> bool:
        return self.plan.over(time.monotonic() - self._began, self.report.faults, self.traffic.events, whole=not self._never())

    def _never(self, kinds: Sequence[Injection] | None = None) -> list[str]:
        """Those of some kinds, or of all, that have not struck yet."""
        return [kind.name for kind in (self.plan.catalogue if kinds is None else kinds) if kind.name not in self.report.by_kind]

    def _allowed(self, kinds: Sequence[Injection], injection: Injection) -> bool:
        if not self.plan.soak and injection.name in self.report.by_kind and self._never(kinds):
            return False  # first those whose strike was missed
        return not (injection.name == "valkey: emptied" and self.traffic.events > self.plan.refolded_events)

    async def _strike(self, fault: Fault, recovered: Recovered) -> None:
        self._display.state(fault.name)
        began = time.monotonic()
        async with asyncio.timeout(_STRIKE_SECONDS):
            results = await asyncio.gather(*(self._one(injection, fault.seed + i) for i, injection in enumerate(fault.injections)))
        struck = [injection for injection, said in zip(fault.injections, results, strict=True) if said is not None]
        ended = time.monotonic()
        try:
            seconds = await recovered(ended, fault.name)
        finally:
            await self._ended(fault.injections)
            if any(injection.rewinds for injection in struck):
                self._rewinding.append((began, time.monotonic() + _EXPLAINED_SECONDS))
        self.report.missed += len(fault.injections) - len(struck)
        self.report.struck([injection.name for injection in struck], seconds)
        said = "; ".join(said or "missed" for said in results)
        self._display.line(f"{fault.number}: {said}: took {ended - began:.1f} s, recovered in {seconds:.1f} s")

    async def _one(self, injection: Injection, seed: int) -> str | None:
        async with self._changed:
            await self._changed.wait_for(lambda: all(beside(injection, other) for other in self._striking))
            self._striking.append(injection)
        if injection.rewinds:
            await self._all_answered()
        try:
            return await asyncio.to_thread(injection.strike, self.rig, random.Random(seed))
        except Missed as missed:
            self._display.line(f"missed: {injection.name}: {missed}")
            return None
        finally:
            if SERVERS.isdisjoint(injection.targets):  # a server has to be back before another strike
                await self._ended([injection])

    async def _all_answered(self) -> None:
        """Returns once every request that waits now is answered, or after a minute: others are asked all the time, so some always wait. One that
        inference was killed under, and that is repeated to a Redis that has lost its answer meanwhile, is a prediction of its own: that limit is
        told in decision 0015."""
        with suppress(TimeoutError):
            async with asyncio.timeout(60):  # then it goes on without
                await self.clients.all_answered()

    async def _ended(self, injections: Sequence[Injection]) -> None:
        """Others may strike that must not strike beside these."""
        async with self._changed:
            self._striking = [one for one in self._striking if one not in injections]
            self._changed.notify_all()

    def _train(self) -> None:
        """Trains and deploys in a process of its own, which the services go before."""
        stack = self.rig.stack
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": stack.kafka,
            "TIDEMILL_OFFLINE": stack.offline,
            "TIDEMILL_PROJECT": self._folder,
        }
        environment["PYTHONPATH"] = stack.environment["PYTHONPATH"]
        command = ["nice", "-n", "5", sys.executable, "-m", "tidemill_training", MODEL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"training failed: {done.stdout}{done.stderr}")

    async def _look_at_resources(self) -> None:
        for turn in itertools.count():
            await asyncio.sleep(5)
            with suppress(OSError):
                processes = await asyncio.to_thread(self.rig.stack.supervisor.processes)
                await asyncio.to_thread(self.resources.look, {name: process.pid for name, process in processes.items() if process.pid})
            if turn % 6 == 0:
                await asyncio.to_thread(self.resources.look_at_tables)

    async def _close(self, progress: Progress) -> None:
        """Ends the traffic, lets everything come to its end, and the checker judge the rest."""
        self._display.state("waiting for the end of everything")
        self.clients.per_second = 0
        self.traffic.stop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.clients.waiting:
                await asyncio.sleep(0.2)
        await progress.recovered(time.monotonic(), "the end of the traffic", asking=False)
        sent = {sender.number: (sender.next, sender.spoiled_numbers) for sender in self.traffic.senders}
        self.checker.finish(
            Finish(sent, {str(log): files for log, files in self.operator.required.items()}, self.versions.now.definitions.number)
        )
        within_seconds = self.project.models[MODEL].outcome.wait.within_ms / 1000
        end = time.monotonic() + within_seconds + 25
        while time.monotonic() < end and not await self._all_have_results():
            self.clients.tick()  # outcomes that nobody waits for let the join's time pass
            await asyncio.sleep(1)
        await asyncio.sleep(_TWICE_SECONDS)
        self.clients.stop()

    async def _all_have_results(self) -> bool:
        published = await offset_ranges(self.kafka, results_topic(self.project.name))
        return sum(span.end for span in published.values()) >= len(self.clients.cases)

    async def _compare(self) -> None:
        self._display.state("comparing the rest")
        store = OfflineStore(self.rig.stack.offline)
        closing = Closing(self.versions.project, self.kafka, store, self.tally)
        self.report.dead_letters = await closing.dead_letters(self.traffic)
        await closing.mirrors()
        await closing.outcomes(self.clients)
        closing.predictions(self.clients)
        self.report.results = await closing.results(self.clients)
        if self.plan.audit and self.traffic.events < AUDITED_EVENTS:
            self.report.checked["audited"] = await closing.audit(self.rig.redis_url)
            self.report.checked["archived"] = await closing.archive(self.operator.loaded)
            self.report.checked["verified"] = await closing.verify(self.rig.stack.urls["serving"], self.plan.seed)

    def _summarise(self, progress: Progress) -> None:
        """Fills the report with what is known, whether the run came to its end or not."""
        status, report = self.checker.status, self.report
        self.tally.merge(status.counts, self.checker.findings)
        held = {view.log for view in self.versions.project.views.values()}
        unexplained = [rewind for rewind in self.checker.rewinds if not any(a <= rewind.at <= b for a, b in self._rewinding)]
        unexplained = [
            rewind for rewind in unexplained if rewind.found is not None or rewind.place.partition("[")[0] in held
        ]  # else pruned
        self.tally.add("different", "a fence went back for no reason", unexplained)
        self.tally.findings += [f"resources: {said}" for said in self.resources.excesses()] + progress.silences
        report.take(self.tally)
        report.events, report.predictions = self.traffic.events, self.clients.answered
        report.requests_repeated, report.silences, report.rewinds = self.clients.repeated, len(progress.silences), len(self.checker.rewinds)
        report.never = self._never()
        report.changes, report.commands = self.operator.changes, self.operator.runs
        report.seconds = round(time.monotonic() - self._began, 1)
        report.resources, report.table_files = self.resources.usage(), self.resources.table_files
        report.checked |= {
            name: getattr(status, name)
            for name in ("samples", "values", "behind", "served", "rows", "predictions", "recomputed", "repeated", "pruned")
        } | status.fold
        report.checked |= {"sent_twice": sum(sender.repeated for sender in self.traffic.senders)}


def write(report: Report, path: Path) -> None:
    """Write `.tidemill/faults.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
