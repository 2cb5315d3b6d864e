"""A learner that nobody ends: python -m tests.retraining.again KAFKA PROJECT OFFLINE LINE EVERY OUTCOMES OUT

It learns the whole log of results, and writes its snapshot after so many outcomes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tidemill.kafka.read_to_end import logged, read_topic
from tidemill.models.artifact import stored_artifact
from tidemill.models.learned import Learned, Learner, Limits
from tidemill.offline.store import OfflineStore
from tidemill.records import ResultRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import results_topic
from tidemill_retraining.lessons import Lessons, ReadResult


async def main(servers: str, project: str, root: str, line: str, every: int, outcomes: int) -> bytes:
    """The snapshot."""
    kafka, trained = KafkaSettings(bootstrap_servers=servers), stored_artifact(root, "late", line)
    lessons = Lessons(kafka, project, OfflineStore(root), trained.manifest, trained.manifest.created)
    results = await read_topic(kafka, results_topic(project), decoder(ResultRecord).decode, logged)
    read = [ReadResult(offset, record) for offset, record in enumerate(results) if lessons.concern(record)]
    taken = Learner(Learned(line, trained.file), Limits(every, 10**7)).take(await lessons.of(read))
    return next(snapshot.encoded() for snapshot in taken if snapshot.learned == outcomes)


if __name__ == "__main__":
    _, servers, project, root, line, every, outcomes, out = sys.argv
    Path(out).write_bytes(asyncio.run(main(servers, project, root, line, int(every), int(outcomes))))
