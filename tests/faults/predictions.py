"""Every logged prediction computed again, from the log alone, to the bit; each id once."""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any, NamedTuple

import pyarrow.compute as pc
from aiokafka import TopicPartition
from tests.faults.tally import Tally

from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.kernel.keys import partition_of
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.names import LogName, parse_log
from tidemill.offline import history
from tidemill.offline.history import PartitionLog
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.proof.replay import Replayer, logged, replayer_of
from tidemill.records import PredictionRecord, decoder
from tidemill.streams.topics import predictions_topic, topic_specs

_decode = decoder(PredictionRecord).decode


class Question(NamedTuple):
    """What did a view show of an entity at a time, where its log had come to a position?"""

    prediction: str
    place: int
    log: LogName
    partition: int
    position: int
    key: bytes
    time_ms: int


class _Waiting(NamedTuple):
    record: PredictionRecord
    readings: dict[int, Reading | None]


class Predictions:
    """`records` read from the topic so far, `recomputed` of them. `repeated`: those that were in the log already, byte for byte: a client asked again.
    `pruned`: those that read a version of a view which is gone. `project`: with all versions that are there."""

    def __init__(self, project: Project, store: OfflineStore, tally: Tally) -> None:
        topic = predictions_topic(project.name)
        self.partitions = [TopicPartition(topic, p) for p in range(topic_specs(project)[topic].partitions)]
        self.records = self.recomputed = self.repeated = self.pruned = 0
        self._logged: dict[str, int] = {}
        self.project, self._store, self._tally = project, store, tally
        self._waiting: dict[str, _Waiting] = {}
        self._late: set[str] = set()
        self._replayers: dict[tuple[str, str], Replayer] = {}

    def take(self, message: Any) -> list[Question]:
        """Takes a record of the topic; returns what has to be known to compute it again."""
        record = _decode(message.value)
        self.records += 1
        checksum = zlib.crc32(message.value)
        if record.id in self._logged:
            self.repeated += 1
            if self._logged[record.id] != checksum:
                self._tally.add("predictions_doubled", "another record of a prediction", [record])
            return []
        self._logged[record.id] = checksum
        self._waiting[record.id] = _Waiting(record, {})
        return self._questions(record)

    def _questions(self, record: PredictionRecord) -> list[Question]:
        stamps = {(parse_log(entry.view) or ("", 0))[0]: entry for entry in record.stamp}
        questions = []
        for place, view in enumerate(self.project.models[record.model].views):
            stamp, key = stamps.get(view.name), str(record.entities[view.key.name]).encode()
            if stamp is None or stamp.partition != partition_of(key, view.partitions):
                self._tally.add("different", "predictions without the fence of a view", [record])
                self._waiting.pop(record.id)
                return []
            questions.append(Question(record.id, place, LogName(stamp.view), stamp.partition, stamp.next, key, record.time))
        return questions

    def too_late(self, question: Question) -> None:
        """The fold has passed the question: the prediction is replayed in the end."""
        if self._waiting.pop(question.prediction, None) is not None:
            self._late.add(question.prediction)

    def _forget(self, questions: list[Question]) -> None:
        """The log of a version was pruned: what read it cannot be computed again, as its operator was told."""
        self.pruned += sum(self._waiting.pop(question.prediction, None) is not None for question in questions)

    def answer(self, question: Question, reading: Reading | None) -> None:
        """Takes an answer; the last one of a prediction settles it."""
        waiting = self._waiting.get(question.prediction)
        if waiting is None:
            return
        waiting.readings[question.place] = reading
        if len(waiting.readings) == len(self.project.models[waiting.record.model].views):
            del self._waiting[question.prediction]
            self._compare(waiting)

    def _compare(self, waiting: _Waiting) -> None:
        record, readings = waiting
        try:
            replayer = self._replayers.get((record.model, record.version)) or replayer_of(
                self.project, self._store, record.model, record.version
            )
        except TidemillError:  # the artifact is out of reach for the moment
            self._late.add(record.id)
            return
        self._replayers[record.model, record.version] = replayer
        replayed = replayer.compare(record, [readings[place] for place in range(len(readings))])
        self.recomputed += 1
        if not replayed.equal:
            self._tally.add("different", "predictions computed again", [replayed])

    def finish(self) -> None:
        """Computes what is left from the offline store, in one sweep over each partition: what came too late, or was read last."""
        late = self._late | self._waiting.keys()
        self._late.clear()
        self._waiting.clear()
        records = logged(self._store, sorted(late)) if late else []
        self._tally.add("predictions_missing", "in the offline table", late - {record.id for record in records})
        asked: dict[tuple[LogName, int], list[Question]] = defaultdict(list)
        for record in records:
            self._waiting[record.id] = _Waiting(record, {})
            for question in self._questions(record):
                asked[question.log, question.partition].append(question)
        for (name, partition), questions in asked.items():
            view = next((view for view in self.project.views.values() if view.log == name), None)
            if view is None:
                self._forget(questions)
                continue
            log = PartitionLog(view, self._store.scan(view_folder(name), filters=pc.field("partition") == partition))
            wanted = [history.Question(log.rows_below(question.position), question.key, question.time_ms) for question in questions]
            for question, reading in zip(questions, history.answer(ViewKernel(view), log, wanted), strict=True):
                self.answer(question, reading)
        self._tally.add("predictions_missing", "could not be computed again", self._late | self._waiting.keys())
