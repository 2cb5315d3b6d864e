"""The learner of one line: python -m tidemill_retraining.learner MODEL LINE

It follows the results, learns each outcome with the inputs of its prediction, and keeps a snapshot after so many. LINE is the version that was trained. It reads
the settings of the service that started it, prints how far it is as lines of JSON, and ends when it may learn no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

import msgspec
from aiokafka import TopicPartition

from tidemill.declarations import Online
from tidemill.declarations.project import Project, load_project
from tidemill.errors import ArtifactError, TidemillError, TopicRecreated
from tidemill.kafka.read_to_end import decoded_of, logged
from tidemill.kafka.reader import Reader
from tidemill.models.artifact import Manifest, beside_artifact, keep_beside, stored_artifact
from tidemill.models.incremental import Incremental, Named
from tidemill.models.learned import FILE, Learned, Learner, Lesson, Limits
from tidemill.offline.store import OfflineStore
from tidemill.records import ResultRecord, decoder
from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ProjectSettings
from tidemill.streams.topics import results_topic
from tidemill.tied import tie_as_told
from tidemill.training.made_with import stored_made_with
from tidemill_retraining.lessons import Lessons, ReadResult
from tidemill_retraining.told import LearnerTold

_FETCH_SECONDS, _AT_ONCE, _BEAT_SECONDS, _PAUSE_SECONDS = 0.5, 500, 5.0, 2.0
_decode = decoder(ResultRecord).decode


class LineLearner:
    """Learns until it is ended, or stops."""

    def __init__(self, kafka: KafkaSettings, project: Project, root: str, model: str, line: str) -> None:
        artifact = stored_artifact(root, model, line)
        online = project.models[model].online or Online()
        self._kafka, self._root, self._trained = kafka, root, artifact.manifest
        self._place = TopicPartition(results_topic(project.name), 0)
        made = stored_made_with(root, artifact.manifest)
        until = artifact.manifest.created if made is None else made.until_ms
        self._lessons = Lessons(kafka, project.name, OfflineStore(root), artifact.manifest, until)
        self._limits, self._seconds = Limits(online.every, int(online.megabytes * 1_000_000)), online.seconds
        self._begin = kept_snapshot(root, artifact.manifest) or Learned(line, artifact.file)
        self._beaten = 0.0
        self.learner = self._anew()

    def _anew(self) -> Learner:
        return Learner(self._begin, self._limits, self._learn)

    async def run(self) -> None:
        """Follow; what is away is waited for."""
        begin = self._begin.applied
        while not self._begin.stopped:
            try:
                async with Reader(self._kafka, {self._place: begin}) as reader:
                    await self._read(reader)
                    begin = self._begin.applied
            except TopicRecreated as error:
                begin = 0  # the results are numbered: what was learned is passed over
                self.beat(str(error))
            except TidemillError as error:
                begin = self._begin.applied
                self.beat(str(error))
            if not self._begin.stopped:
                await asyncio.sleep(_PAUSE_SECONDS)
                self.learner = self._anew()
        self.beat()

    async def _read(self, reader: Reader) -> None:
        while not self._begin.stopped:
            if time.monotonic() - self._beaten > _BEAT_SECONDS:
                self.beat()
            fetched = await reader.fetch(_FETCH_SECONDS, _AT_ONCE)
            read = [
                ReadResult(record.offset, decoded)
                for record in fetched.get(self._place, ())
                for decoded in decoded_of({self._place: [record]}, _decode, logged)
            ]
            lessons = await self._with_beats([result for result in read if self._lessons.concern(result.record)])
            for snapshot in self.learner.take(lessons):
                await asyncio.to_thread(keep_beside, self._root, self._trained, FILE, snapshot.encoded())
                self._begin = snapshot
                self.beat()

    async def _with_beats(self, results: list[ReadResult]) -> list[Lesson]:
        waiting = asyncio.ensure_future(self._lessons.of(results))
        try:
            while not (await asyncio.wait({waiting}, timeout=_BEAT_SECONDS))[0]:
                self.beat("the predictions are not in the offline store yet")
        finally:
            waiting.cancel()
        return waiting.result()

    def _learn(self, pipeline: Incremental, row: Named, label: float) -> None:
        """One outcome, within its time."""
        if time.monotonic() - self._beaten > _BEAT_SECONDS:
            self.beat()
        with _within(self._seconds):
            pipeline.learn(row, label)

    def beat(self, waits: str = "") -> None:
        """Says how far it is."""
        kept, left_out = self._begin, self._begin.lost
        self._beaten = time.monotonic()
        print(msgspec.json.encode(LearnerTold(kept.learned, self.learner.learned, left_out, waits, kept.stopped)).decode(), flush=True)


def kept_snapshot(root: str, trained: Manifest) -> Learned | None:
    """The newest snapshot of a line; None without one that can be read: the log has all of it."""
    try:
        return Learned.decoded(beside_artifact(root, trained, FILE))
    except (ArtifactError, msgspec.DecodeError):
        return None


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the midst of Python code that takes longer."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"an outcome took more than {seconds:g} s to learn")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(model: str, line: str) -> None:
    """Learn."""
    tie_as_told()
    project = load_project(ProjectSettings.load().project)
    asyncio.run(LineLearner(KafkaSettings.load(), project, OfflineSettings.load().root, model, line).run())


if __name__ == "__main__":
    main(*sys.argv[1:3])
