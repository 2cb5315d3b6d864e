"""The learner of a line as the loop sees it: a process that is started, listened to, and started again."""

from __future__ import annotations

import asyncio

import msgspec

from tidemill.runtime.logs import get_logger
from tidemill.runtime.service import cancelled
from tidemill_retraining.jobs import Ended, Listening, learner_command, run
from tidemill_retraining.settings import JobSettings
from tidemill_retraining.told import LearnerTold

log = get_logger(__name__)

SILENT_SECONDS = 120.0
PAUSES = (1.0, 5.0, 30.0)
MOST_ENDS = 3
"""So many ends in a row, with nothing learned between, are told."""


class Learning:
    """Of one model. `line`: whose learner runs; `told`: what it said last, None: nothing yet; `troubled`: why it ends again and again; empty while it does not."""

    def __init__(self, model: str, settings: JobSettings) -> None:
        self._model, self._settings = model, settings
        self._task: asyncio.Task[None] | None = None
        self.line, self.told, self.troubled = "", None, ""

    line: str
    told: LearnerTold | None
    troubled: str

    async def follow(self, line: str) -> None:
        """Lets the learner of this line run, and no other; with an empty one none."""
        if line == self.line:
            return
        await self.close()
        self.line = line
        if line:
            self._task = asyncio.create_task(self._run(line))

    async def close(self) -> None:
        """Ends it. It goes on from its newest snapshot when it is started again."""
        task, self._task = self._task, None
        self.line, self.told, self.troubled = "", None, ""
        if task is not None:
            await cancelled(task)

    @property
    def kept(self) -> int:
        """Outcomes in the newest snapshot."""
        return self.told.kept if self.told else 0

    async def _run(self, line: str) -> None:
        ends, before = 0, -1
        while self.told is None or not self.told.stopped:
            listening = Listening(self._heard, SILENT_SECONDS)
            try:
                ended = await run(learner_command(self._model, line), self._settings, None, listening)
            except OSError as error:
                ended = Ended(f"cannot be started: {error}", [])
            ends, before = (ends + 1, before) if self.kept == before else (1, self.kept)
            why = ended.why or "ended"
            log.warning("the learner ended", model=self._model, line=line, reason=why, stopped=self.told.stopped if self.told else "")
            self.troubled = f"the learner {why}, {ends} times" if ends >= MOST_ENDS else ""
            await asyncio.sleep(PAUSES[min(ends, len(PAUSES)) - 1])

    def _heard(self, line: str) -> bool:
        if not line.startswith('{"type":"LearnerTold"'):
            return False
        try:
            told = msgspec.json.decode(line, type=LearnerTold)
        except msgspec.DecodeError:
            return False
        if told.waits and (self.told is None or told.waits != self.told.waits):
            log.warning("the learner waits", model=self._model, line=self.line, reason=told.waits)
        self.told = told
        return True
