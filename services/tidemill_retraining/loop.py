"""The loop: one look after the other. Each look reads the topics, and takes at most one step, which acts first and is recorded then.

What a step does it finds done when it is repeated: a stored version is not trained again, a role that a version has is not given again. So a kill
at any moment costs at most one step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from tidemill.clock import now_ms
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.declarations.retrain import Retrain
from tidemill.errors import ArtifactError, DeploymentChanged, DeploymentRefused, NoSuchVersion
from tidemill.gate.rule import Decision
from tidemill.kafka.topics import ensure_topics
from tidemill.models.artifact import stored_manifest
from tidemill.operations.deploying import Action, Deploying
from tidemill.records import PredictionRecord, Role
from tidemill.retrainings import GateFinding, RetrainingRecord, RetrainingStep
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.service import cancelled
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.topics import (
    alerts_topic,
    deployments_topic,
    predictions_topic,
    results_topic,
    retraining_topic,
    shadows_topic,
    topic_specs,
)  # fmt: skip
from tidemill.training.stages.records import run_name
from tidemill_retraining.clocks import MachineClock, clock_of
from tidemill_retraining.evidence import Evidence
from tidemill_retraining.facts import ModelFacts
from tidemill_retraining.history import OpenRun
from tidemill_retraining.jobs import Ended, rehearsal_command, run, training_command
from tidemill_retraining.logs import Logs
from tidemill_retraining.positions import StepReading, ends_now
from tidemill_retraining.seating import Seating
from tidemill_retraining.settings import RetrainingSettings
from tidemill_retraining.silence import Silence
from tidemill_retraining.stages import Seats, at_the_horizon, evidence_for, look
from tidemill_retraining.told import rehearsed
from tidemill_retraining.triggers import WantedRun, wanted
from tidemill_retraining.turns import Turn

log = get_logger(__name__)

_ACTIONS: Mapping[Role, Action] = {"shadow": "shadow", "challenger": "canary", "champion": "promote"}
_STEPS: Mapping[Role, RetrainingStep] = {"shadow": "shadow", "challenger": "canary", "champion": "promoted"}
_LEAST_MS = 2.0  # a slower answer by so much is nothing to speak of, whatever the factor


class Watched(NamedTuple):
    """What is read of a step of a run. `since`: from when on answers are of it."""

    run: OpenRun
    since: int
    seats: Seats
    evidence: Evidence
    reading: StepReading


class _Job(NamedTuple):
    """A process of a step of a run."""

    run: int
    step: RetrainingStep
    task: asyncio.Task[Ended]


class Loop:
    """Of one model. Run `run` as a task. `turn`: of the models that are trained one after the other; `check`: its name on the board."""

    KIND = "retrain"

    def __init__(self, project: Project, model: Model, settings: RetrainingSettings, board: HealthBoard, turn: Turn) -> None:
        self._project, self._model, self._settings, self._board, self._kafka = project, model, settings, board, settings.kafka
        self._root, self._turn = settings.offline.root, turn
        self.check = f"{self.KIND}/{model.name}"
        board.require(self.check)
        self._job: _Job | None = None
        self._stepped = False
        self._silence = Silence()
        self._watched: Watched | None = None
        self._known: ModelFacts
        self._logs: Logs
        self._clock: MachineClock
        self._seating: Seating
        self.pulse = Pulse("retraining")

    async def run(self) -> None:
        """Look for ever. When Kafka is away, or after an error, it begins anew from the topics; a training that runs goes on meanwhile. So an error with one
        model stops no other model's loop."""
        try:
            await supervise(self._follow, partial(self._board.down, self.check), [self.pulse], (Exception,))
        finally:
            await self._no_job()

    async def _follow(self) -> None:
        self.pulse.beat()
        topics = (alerts_topic, deployments_topic, predictions_topic, results_topic, retraining_topic, shadows_topic)
        specs = topic_specs(self._project)
        await ensure_topics(self._kafka, {name: specs[name] for topic in topics for name in [topic(self._project.name)]})
        self._known = ModelFacts(self._project, self._settings.project.project, self._kafka, self._root)
        try:
            clock = clock_of(self._settings.job.clock, self._kafka, self._project.name)
            async with Logs(self._kafka, self._project.name, self._model.name) as self._logs, clock as self._clock:
                self._seating = Seating(Deploying(self._kafka, self._project, self._root), self._logs)
                while True:
                    await self._logs.catch_up()
                    await self._clock.catch_up()
                    self._board.up(self.check)
                    self.pulse.beat()
                    if self._clock.now_ms():
                        await self._look()
                    await self._rest()
        finally:
            await self._unwatch()
            await self._known.close()

    async def _rest(self) -> None:
        """Waits until the next look, which is at once after a step was taken, and when the process of a step ends."""
        if self._stepped:
            self._stepped = False
        elif self._job is not None and not self._job.task.done():
            await asyncio.wait([self._job.task], timeout=self._settings.job.look_seconds)
        else:
            await asyncio.sleep(self._settings.job.look_seconds)

    @property
    def _policy(self) -> Retrain:
        """What is asked of a new version."""
        return self._model.retrain or Retrain()

    def _tell_open(self, open_run: OpenRun | None) -> None:
        metrics.RETRAINING_OPEN.labels(self._model.name).set(max(0, self._clock.now_ms() - open_run.begun) / 1000 if open_run else 0)

    async def _look(self) -> None:
        open_run = self._logs.history.open
        self._tell_open(open_run)
        if open_run is None:
            await self._unwatch()
            self._turn.leave(self._model.name)
            await self._begin()
            return
        try:
            await self._step(open_run, self._policy)
        except DeploymentChanged as error:
            log.warning("somebody else deployed", reason=str(error))  # the next look sees what
        except (ArtifactError, DeploymentRefused) as error:
            await self._give_up(open_run, str(error))

    # What begins

    async def _begin(self) -> None:
        name, policy = self._model.name, self._model.retrain
        if policy is None:
            return
        if name not in self._logs.deployments:
            await self._in_vain()
            return
        try:
            known = await self._known.known(self._model, self._logs)
        except ArtifactError as error:
            log.error("the champion cannot be read", model=name, reason=str(error))
            return
        found = wanted(name, policy, self._logs.history, known, self._clock.now_ms(), self._turn.other(name))
        if found is not None and found.held:
            await self._skip(found)
        elif found is not None and self._turn.take(name):
            await self._start(found, known.champion)

    async def _in_vain(self) -> None:
        """Of a model without a version that answers nothing begins; who asked for it by hand is told."""
        if self._logs.history.asked is not None:
            await self._skip(WantedRun("hand", "", [], f"no version of it serves: run: {self._model.making}"))

    async def _skip(self, found: WantedRun) -> None:
        """Tells once, until the next run, that a trigger is held back."""
        if found.trigger not in self._logs.history.held or found.trigger == "hand":
            at, why = self._clock.now_ms(), f"{found.held}; {found.reason}".strip("; ")
            await self._append(RetrainingRecord(self._model.name, at, "skipped", at, why, found.trigger))

    async def _start(self, found: WantedRun, champion: str) -> None:
        model, at = self._model.name, self._logs.history.free(self._clock.now_ms())
        ends = await ends_now(self._kafka, self._project.name)
        metrics.RETRAINING_RUNS.labels(model, found.trigger).inc()
        await self._append(
            RetrainingRecord(
                model, at, "begun", at, found.reason, found.trigger, found.causes, champion=champion, ends={"results": ends["results"]}
            )
        )

    # What goes on

    async def _step(self, open_run: OpenRun, policy: Retrain) -> None:
        if open_run.step == "begun":
            await self._train(open_run)
        elif open_run.step == "trained":
            await self._rehearse(open_run, policy)
        elif open_run.step == "rehearsed":
            await self._take_role(open_run, "shadow", "rehearsed; it is asked beside the champion", [])
        else:
            self._turn.leave(self._model.name)
            await self._judge(open_run, policy)

    async def _done(self, open_run: OpenRun, command: Sequence[str], seconds: float) -> Ended | None:
        """How the process of this step ended, which is begun here if it does not run; None while it runs."""
        if self._job is not None and (self._job.run, self._job.step) != (open_run.run, open_run.step):
            await self._no_job()  # of a run that was lost, or given up
        if self._job is None:
            if not self._turn.take(open_run.model):
                return None
            self._job = _Job(open_run.run, open_run.step, asyncio.create_task(run(command, self._settings.job, seconds)))
        if not self._job.task.done():
            return None
        ended, self._job = self._job.task.result(), None
        return ended

    async def _no_job(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            await cancelled(job.task)

    async def _train(self, open_run: OpenRun) -> None:
        version, job = run_name(open_run.run), self._settings.job
        ended: Ended | None = Ended("", [])
        if self._job is not None or not await self._stored(open_run.model, version):
            ended = await self._done(open_run, training_command(job, open_run.model, open_run.run, version), job.seconds)
        if ended is None:
            return
        if ended.why:
            await self._record(open_run, "failed", f"training {ended.why}")
        elif not await self._stored(open_run.model, version):
            await self._record(open_run, "failed", f"training ended well, and there is no version {version}")
        else:
            await self._record(open_run, "trained", "a version is stored", version=version)

    async def _stored(self, model: str, version: str) -> bool:
        try:
            await asyncio.to_thread(stored_manifest, self._root, model, version)
        except NoSuchVersion:
            return False
        return True

    async def _rehearse(self, open_run: OpenRun, policy: Retrain) -> None:
        """The version answers alone, in a process of its own, beside the champion of now."""
        champion = self._seating.champion(open_run.model)
        seats = Seats(await self._known.manifest(open_run.model, champion), await self._known.manifest(open_run.model, open_run.version))
        if seats.incomparable:
            await self._record(open_run, "rejected", seats.incomparable)
            return
        command = rehearsal_command(self._root, open_run.model, open_run.version, champion)
        ended = await self._done(open_run, command, self._settings.job.rehearsal_seconds)
        if ended is None:
            return
        found = rehearsed(ended)
        slow = not found.unlike and found.version_ms > max(policy.slower * found.champion_ms, found.champion_ms + _LEAST_MS)
        said = f"an answer takes {found.version_ms:.3g} ms, the champion's {found.champion_ms:.3g} ms; {policy.slower:g} times are allowed"
        latency = GateFinding("latency", "against" if slow else "for", said, found.champion_ms, found.version_ms)
        if found.wrong:
            await self._record(open_run, "rejected", f"rehearsal: {found.wrong}")
        elif slow:
            await self._record(open_run, "rejected", said, [latency])
        else:
            await self._record(open_run, "rehearsed", found.unlike or said, [] if found.unlike else [latency], champion=champion)

    async def _judge(self, open_run: OpenRun, policy: Retrain) -> None:
        if meanwhile := self._seating.elsewhere(open_run):
            await self._give_up(open_run, meanwhile)
            return
        if (
            open_run.step != "promoted" and self._seating.champion(open_run.model) == open_run.version
        ):  # it was promoted, and the record is missing
            await self._take_role(open_run, "champion", "it is the champion", [])
            return
        watched = await self._watch(open_run, policy)
        decision = await self._decided(open_run._replace(since=watched.since), policy, watched, now_ms())
        late = max(0, self._clock.now_ms() - open_run.since) > policy.horizon_ms
        if decision.verdict == "wait" and late:
            decision = at_the_horizon(open_run, policy, decision)
        await self._follow_decision(open_run, policy, decision)

    async def _decided(self, open_run: OpenRun, policy: Retrain, watched: Watched, now: int) -> Decision:
        return await asyncio.to_thread(look, open_run, policy, watched.evidence, watched.seats, now)

    async def _follow_decision(self, open_run: OpenRun, policy: Retrain, decision: Decision) -> None:
        found = decision.findings
        if decision.verdict == "wait":
            rows = max((finding.rows for finding in found), default=0)
            silent = self._silence.since((open_run.run, open_run.since), rows, time.monotonic(), policy.horizon_ms / 1000)
            if silent:
                said = (
                    f"no outcome has come for {silent / 3600:.1f} hours; without evidence it is decided against it after {policy.horizon}"
                )
                await self._record(open_run, "waiting", f"{said}: {decision.reason}", found)
            elif open_run.told is None or rows >= 2 * max(open_run.told, 50):
                await self._record(open_run, "waiting", decision.reason, found)
        elif decision.verdict in ("reject", "roll back"):
            await self._give_up(open_run, decision.reason, found)
        elif open_run.step == "promoted":
            await self._seating.retire(open_run.model, open_run.champion)
            await self._record(open_run, "kept", decision.reason, found)
        else:
            later = [share for share in policy.steps if share > open_run.share]
            if later:
                await self._take_role(open_run, "challenger", decision.reason, found, later[0])
            else:
                await self._take_role(open_run, "champion", decision.reason, found)

    async def _watch(self, open_run: OpenRun, policy: Retrain) -> Watched:
        """What is known of this step now."""
        held = self._watched
        if held is None or (held.run.run, held.run.step, held.run.share) != (open_run.run, open_run.step, open_run.share):
            await self._unwatch()
            names = (open_run.version, open_run.champion) if open_run.step == "promoted" else (open_run.champion, open_run.version)
            seats = Seats(*[await self._known.manifest(open_run.model, name) for name in names])
            reading = StepReading(self._kafka, self._project.name, open_run.ends)
            await reading.__aenter__()
            evidence = evidence_for(open_run, self._model, policy, seats, self._settings.job.grace_ms)
            held = self._watched = Watched(open_run, self._clock.answers_since_ms(open_run.since), seats, evidence, reading)
        async for records in held.reading.news():
            self.pulse.beat()
            for record in records:
                if isinstance(record, PredictionRecord):
                    held.evidence.answer(record)
                else:
                    held.evidence.result(record)
        return held

    async def _unwatch(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            await watched.reading.__aexit__()

    # Roles

    async def _take_role(self, open_run: OpenRun, role: Role, reason: str, evidence: Sequence[GateFinding], share: float = 0.0) -> None:
        """Gives the version a role, if it has not got it, and records it. After a promotion the former champion stays as a shadow."""
        ends = await ends_now(self._kafka, self._project.name)
        model, version = open_run.model, open_run.version
        if self._seating.role(model, version) != (role, share):
            await self._seating.act(model, _ACTIONS[role], version, share or None)
        if role == "champion":
            await self._logs.catch_up()
            if self._seating.role(model, open_run.champion)[0] is None:  # somebody else promoted it
                await self._seating.act(model, "shadow", open_run.champion)
        await self._record(open_run, _STEPS[role], reason, evidence, share=share, ends=ends)

    async def _give_up(self, open_run: OpenRun, reason: str, evidence: Sequence[GateFinding] = ()) -> None:
        """The version leaves, and the champion of before serves, unless somebody decided otherwise meanwhile."""
        role, _ = self._seating.role(open_run.model, open_run.version)
        if role == "champion" and open_run.step == "promoted":
            await self._seating.act(open_run.model, "rollback")
            await self._record(open_run, "rolled back", reason, evidence)
            return
        if role in ("shadow", "challenger"):
            await self._seating.retire(open_run.model, open_run.version)
        if open_run.step == "promoted":
            await self._seating.retire(open_run.model, open_run.champion)
        await self._record(open_run, "rolled back" if open_run.step == "promoted" else "rejected", reason, evidence)

    # Records

    async def _record(
        self,
        open_run: OpenRun,
        step: RetrainingStep,
        reason: str,
        evidence: Sequence[GateFinding] = (),
        *,
        version: str = "",
        champion: str = "",
        share: float | None = None,
        ends: dict[str, list[int]] | None = None,
    ) -> None:
        await self._append(
            RetrainingRecord(
                open_run.model, open_run.run, step, self._clock.now_ms(), reason, version=version or open_run.version,
                champion=champion or open_run.champion, share=open_run.share if share is None else share,
                evidence=list(evidence), ends=ends or {},
            )
        )  # fmt: skip

    async def _append(self, record: RetrainingRecord) -> None:
        await self._logs.append(record)
        self._stepped = record.step not in ("skipped", "waiting")
        metrics.RETRAINING_STEPS.labels(record.model, record.step).inc()
        log.info("step", model=record.model, run=record.run, step=record.step, version=record.version, reason=record.reason)
