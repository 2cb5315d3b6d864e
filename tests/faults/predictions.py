"""Every logged prediction computed again, from the log alone, to the bit; each id once."""

from __future__ import annotations

import zlib
from collections import Counter
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from tests.faults.tally import Tally

from tidemill.errors import TidemillError
from tidemill.kernel import Reading
from tidemill.names import LogName, parse_log
from tidemill.offline_store import OfflineStore
from tidemill.project import Project
from tidemill.proof.replay import Replayer, logged, replay
from tidemill.records import PredictionRecord, decoder
from tidemill.topics import partition_of, predictions_topic, topic_specs

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
    """`records` read from the topic so far, `recomputed` of them. `repeated`: those that were in the log already, byte for byte: a client asked again."""

    def __init__(self, project: Project, store: OfflineStore, tally: Tally) -> None:
        topic = predictions_topic(project.name)
        self.partitions = [TopicPartition(topic, p) for p in range(topic_specs(project)[topic].partitions)]
        self.records = self.recomputed = self.repeated = 0
        self._logged: dict[str, int] = {}
        self._project, self._store, self._tally = project, store, tally
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
        stamps = {(parse_log(entry.view) or ("", 0))[0]: entry for entry in record.stamp}
        questions = []
        views = self._project.models[record.model].views
        for place, view in enumerate(views):
            stamp, key = stamps.get(view.name), str(record.entities[view.key.name]).encode()
            if stamp is None or stamp.partition != partition_of(key, view.partitions):
                self._tally.add("different", "predictions without the fence of a view", [record])
                return []
            questions.append(Question(record.id, place, LogName(stamp.view), stamp.partition, stamp.next, key, record.time))
        self._waiting[record.id] = _Waiting(record, {})
        return questions

    def too_late(self, question: Question) -> None:
        """The fold has passed the question: the prediction is replayed in the end."""
        if self._waiting.pop(question.prediction, None) is not None:
            self._late.add(question.prediction)

    def answer(self, question: Question, reading: Reading | None) -> None:
        """Takes an answer; the last one of a prediction settles it."""
        waiting = self._waiting.get(question.prediction)
        if waiting is None:
            return
        waiting.readings[question.place] = reading
        if len(waiting.readings) == len(self._project.models[waiting.record.model].views):
            del self._waiting[question.prediction]
            self._compare(waiting)

    def _compare(self, waiting: _Waiting) -> None:
        record, readings = waiting
        try:
            replayer = self._replayers.get((record.model, record.version)) or Replayer(
                self._project, self._store, record.model, record.version
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
        """Computes what is left by tidemill's own replay from the offline store."""
        left = sorted(self._late | self._waiting.keys())
        records = logged(self._store, left) if left else []
        found = Counter(record.id for record in records)
        self._tally.add("predictions_missing", "in the offline table", [id for id in left if not found[id]])
        self._tally.add("different", "replayed", [item for item in replay(self._project, self._store, records) if not item.equal])
        self.recomputed += len(records)
