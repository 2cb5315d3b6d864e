"""Runs whose model is not declared any more, or no more to be trained again."""

from __future__ import annotations

from tidemill.clock import now_ms
from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.kafka.topics import ensure_topics
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.retraining import append_retraining, read_retraining
from tidemill.streams.topics import retraining_topic, topic_specs
from tidemill_retraining.history import histories


async def to_be_followed(kafka: KafkaSettings, project: Project) -> list[Model]:
    """The models that declare `retrain`, and those of which a run is still open. An open run of a model that is not declared any more is ended here. Raises KafkaUnavailable."""
    topic = retraining_topic(project.name)
    await ensure_topics(kafka, {topic: topic_specs(project)[topic]})
    found = histories(await read_retraining(kafka, project.name))
    open_runs = {name: history.open for name, history in found.items() if history.open is not None}
    for name, run in open_runs.items():
        if name not in project.models:
            why = f"model {name} is not declared any more"
            await append_retraining(
                kafka, project.name, RetrainingRecord(name, run.run, "failed", now_ms(), why, version=run.version, champion=run.champion)
            )
    return [model for name, model in project.models.items() if model.online is None and (model.retrain is not None or name in open_runs)]
