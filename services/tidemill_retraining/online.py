"""The loop of a model that learns with each outcome: its training is the learner, of whose snapshots the gate judges the line.

While the champion is not of the line, a snapshot is the shadow, and a newer one takes its seat after each `every` outcomes: what they answered counts
together. Once a snapshot is the champion, the next one takes its place after it answered as a shadow and was not shown to be worse.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import NamedTuple

from tidemill.declarations import Model, Online
from tidemill.declarations.project import Project
from tidemill.declarations.retrain import Retrain
from tidemill.errors import ArtifactError
from tidemill.gate.rule import Decision
from tidemill.models.artifact import Manifest, stored_versions
from tidemill.models.line import LearnedOnline
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill_retraining.history import OpenRun
from tidemill_retraining.jobs import Ended, last_word, snapshot_command
from tidemill_retraining.learning import Learning
from tidemill_retraining.loop import Loop, Watched
from tidemill_retraining.settings import RetrainingSettings
from tidemill_retraining.stages import succeeds
from tidemill_retraining.told import MadeSnapshot, Rehearsed
from tidemill_retraining.triggers import WantedRun
from tidemill_retraining.turns import Turn

log = get_logger(__name__)

_CAUSE = "learned"


class _Tried(NamedTuple):
    """How much a line had learned when a run of it began."""

    line: str
    learned: int

    @classmethod
    def read(cls, cause: str) -> _Tried | None:
        """From the cause of a run; None of another one."""
        name, _, rest = cause.partition(":")
        line, _, learned = rest.rpartition(":")
        return cls(line, int(learned)) if name == _CAUSE and learned.isdigit() else None

    @property
    def cause(self) -> str:
        """As the cause of a run."""
        return f"{_CAUSE}:{self.line}:{self.learned}"


class OnlineLoop(Loop):
    """Of one model. Run `run` as a task."""

    KIND = "online"

    def __init__(self, project: Project, model: Model, settings: RetrainingSettings, board: HealthBoard) -> None:
        super().__init__(project, model, settings, board, Turn())  # a snapshot is soon made: it waits for no training
        self._online = model.online or Online()
        self._learning = Learning(model.name, settings.job)
        self._passed_over = 0  # learned by a snapshot that could not take the seat of the one before

    async def run(self) -> None:
        """Look for ever, while the learner learns."""
        try:
            await super().run()
        finally:
            await self._learning.close()

    @property
    def _policy(self) -> Retrain:
        return self._online.policy

    def _tell_open(self, open_run: OpenRun | None) -> None:
        """Of a line of snapshots, which may be judged for ever, nothing."""

    async def _look(self) -> None:
        await self._learning.follow(await self._line())
        await self._tell_stuck()
        await super()._look()

    async def _line(self) -> str:
        """The trained version whose line learns: the champion's, else the newest; empty without one."""
        name = self._model.name
        if name not in self._logs.deployments:
            return ""
        champion = await self._manifest(self._logs.deployments[name].version)
        if champion is not None and champion.learning is not None:
            return champion.learning.line
        for version in reversed(await asyncio.to_thread(stored_versions, self._root, name)):
            found = await self._manifest(version)
            if found is not None and found.learning is not None:
                return found.learning.line
        return ""

    async def _manifest(self, version: str) -> Manifest | None:
        try:
            return await self._known.manifest(self._model.name, version)
        except ArtifactError:
            return None

    # What begins

    async def _begin(self) -> None:
        name, history = self._model.name, self._logs.history
        if name not in self._logs.deployments:
            await self._in_vain()
            return
        learning, champion = self._learning, await self._manifest(self._seating.champion(name))
        if learning.line and learning.told is None and not learning.troubled:
            return  # it has just been started, and has not said how far it is
        tried = [found for cause in history.seen if (found := _Tried.read(cause)) is not None and found.line == learning.line]
        before = max(
            [found.learned for found in tried] + ([champion.learning.learned] if champion is not None and champion.learning else []),
            default=0,
        )
        asked = history.asked is not None
        if asked and learning.kept <= before:
            await self._skip(WantedRun("hand", "asked for by hand", [], "no snapshot is newer than the last that was tried"))
        elif asked or learning.kept - before >= self._online.every:
            now = self._clock.now_ms()
            if asked or not history.rests(now, self._online.policy.rest_ms):
                cause = _Tried(learning.line, learning.kept).cause
                reason = f"{learning.kept:,} outcomes are learned since {learning.line} was trained"
                causes = [cause, f"hand:{history.asked}"] if asked else [cause]
                await self._start(WantedRun("hand" if asked else "data", reason, causes), self._seating.champion(name))

    async def _tell_stuck(self) -> None:
        """Tells once a run, at any step of it, that the line learns no more."""
        if self._model.name in self._logs.deployments and (why := self._stuck()) and "data" not in self._logs.history.held:
            await self._skip(WantedRun("data", f"{self._learning.kept:,} outcomes are learned, and no more", [], why))

    def _stuck(self) -> str:
        """Why the line learns no more; empty while it does."""
        if not self._learning.line:
            return f"no version of it goes on learning: run: {self._model.making}"
        told = self._learning.told
        return f"the learner stands still: {told.stopped}; run: {self._model.making}" if told and told.stopped else self._learning.troubled

    # What goes on

    async def _train(self, open_run: OpenRun) -> None:
        """A snapshot becomes a version."""
        made = await self._made(open_run)
        if made is None:
            return
        if made.version and not made.rehearsed.wrong:
            await self._record(open_run, "trained", f"a snapshot is stored; {_left_out(self._learning)}", version=made.version)
        else:
            await self._record(open_run, "rejected", f"snapshot: {made.rehearsed.wrong}", version=made.version)

    async def _made(self, open_run: OpenRun) -> MadeSnapshot | None:
        """The newest snapshot as a version; None while it is made."""
        if not self._learning.line:
            return MadeSnapshot("", Rehearsed(wrong="no version of it goes on learning"))
        command = snapshot_command(open_run.model, self._learning.line, self._seating.champion(open_run.model))
        ended = await self._done(open_run, command, 2 * self._settings.job.rehearsal_seconds)
        return None if ended is None else _read(ended)

    async def _judge(self, open_run: OpenRun, policy: Retrain) -> None:
        if open_run.step == "shadow" and not await self._succession(open_run) and await self._refreshed(open_run):
            return
        await super()._judge(open_run, replace(policy, steps=()) if await self._succession(open_run) else policy)

    async def _decided(self, open_run: OpenRun, policy: Retrain, watched: Watched, now: int) -> Decision:
        if open_run.step == "shadow" and await self._succession(open_run):
            return await asyncio.to_thread(succeeds, open_run, policy, watched.evidence, now)
        return await super()._decided(open_run, policy, watched, now)

    async def _succession(self, open_run: OpenRun) -> bool:
        """Whether the champion that a run is measured by is a snapshot of the same line."""
        champion, version = await self._manifest(open_run.champion), await self._manifest(open_run.version)
        return champion is not None and version is not None and _succeeds(champion.learning, version.learning)

    async def _refreshed(self, open_run: OpenRun) -> bool:
        """Lets the newest snapshot take the seat of the shadow when it is due; whether it did."""
        name, seated = open_run.model, self._seating.shadow(open_run.model)
        if seated not in ("", open_run.version) and await self._of_the_line(
            seated, open_run
        ):  # it was given the seat, and the record is missing
            await self._note_seat(open_run, seated)
            return True
        version = await self._manifest(open_run.version)
        learned = max(self._passed_over, version.learning.learned if version is not None and version.learning else 0)
        rests = 0 <= self._clock.now_ms() - open_run.seated < self._online.policy.rest_ms
        if seated != open_run.version or (self._job is None and (rests or self._learning.kept - learned < self._online.every)):
            return False
        made = await self._made(open_run)
        if made is None:
            return False
        found = await self._manifest(made.version) if made.version else None
        if found is None or found.learning is None or made.rehearsed.wrong:
            self._passed_over = self._learning.kept
            await self._record(open_run, "waiting", f"a newer snapshot cannot take the seat: {made.rehearsed.wrong}")
            return True
        await self._seating.act(name, "shadow", made.version, instead=open_run.version)
        await self._note_seat(open_run, made.version)
        return True

    async def _of_the_line(self, version: str, open_run: OpenRun) -> bool:
        one, other = await self._manifest(version), await self._manifest(open_run.version)
        return bool(one and other and one.learning and other.learning and one.learning.line == other.learning.line)

    async def _note_seat(self, open_run: OpenRun, version: str) -> None:
        if self._watched is not None:
            self._watched.evidence.join(version)
        await self._record(open_run, "shadow", f"a newer snapshot is asked in the place of {open_run.version}", version=version)


def _succeeds(champion: LearnedOnline | None, version: LearnedOnline | None) -> bool:
    return champion is not None and version is not None and champion.line == version.line and champion.learned > 0


def _left_out(learning: Learning) -> str:
    told = learning.told
    return f"{told.left_out:,} outcomes could not be learned" if told else "the learner has not said how far it is"


def _read(ended: Ended) -> MadeSnapshot:
    """What a snapshot's process said; one that did not end well made none."""
    return last_word(ended, MadeSnapshot, lambda why: MadeSnapshot("", Rehearsed(wrong=why)))
