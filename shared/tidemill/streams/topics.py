"""Names, partitions and settings of a project's topics. No other module contains them."""

from __future__ import annotations

from tidemill.declarations.project import Project
from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.names import LogName

KEPT = TopicSpec(1, {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "1048588"})
"""One partition, kept for ever."""


def view_topic(project: str, log: LogName) -> str:
    """Topic of a view's records."""
    return f"{project}.view.{log}"


def outcomes_topic(project: str) -> str:
    """Topic of outcomes."""
    return f"{project}.outcomes"


def shadows_topic(project: str) -> str:
    """Topic of what shadows would have answered: records as those of predictions, with the same ids."""
    return f"{project}.shadows"


def predictions_topic(project: str) -> str:
    """Topic of predictions."""
    return f"{project}.predictions"


def results_topic(project: str) -> str:
    """Topic of predictions joined with outcomes; one partition, in order of `seq`."""
    return f"{project}.results"


def alerts_topic(project: str) -> str:
    """Topic of alerts."""
    return f"{project}.alerts"


def judgements_topic(project: str) -> str:
    """Topic of what drift detection made of each window."""
    return f"{project}.judgements"


def notes_topic(project: str) -> str:
    """Topic of what operators say about alerts."""
    return f"{project}.notes"


def deployments_topic(project: str) -> str:
    """Topic of model deployments; one partition, kept for ever."""
    return f"{project}.deployments"


def retraining_topic(project: str) -> str:
    """Topic of the steps of retrainings; one partition, kept for ever."""
    return f"{project}.retraining"


def catalogue_topic(project: str) -> str:
    """Topic of the catalogue: the definitions that are in force; one partition, kept for ever."""
    return f"{project}.catalogue"


def logs_topic(project: str) -> str:
    """Topic of the marks of repartition: which log holds the records of a view; one partition, kept for ever."""
    return f"{project}.logs"


def dead_letters_topic(project: str) -> str:
    """Topic of refused events and records."""
    return f"{project}.dead-letters"


def ingestion_group(project: str) -> str:
    """Consumer group of ingestion. All events below its committed offsets are routed."""
    return f"{project}.ingestion"


def topic_specs(project: Project) -> dict[str, TopicSpec]:
    """Every topic of a project. Raises DeclarationError.

    A view's log is the source of truth, so our topics never expire. Events, which the log repeats, are kept for 7 days unless their topic
    has another setting.
    """
    keep = KEPT.config
    specs = {view_topic(project.name, view.log): TopicSpec(view.partitions, keep) for view in project.views.values()}
    for name, partitions in (
        (outcomes_topic(project.name), 4), (predictions_topic(project.name), 4), (shadows_topic(project.name), 4),
        (results_topic(project.name), 1), (alerts_topic(project.name), 1), (judgements_topic(project.name), 1),
        (notes_topic(project.name), 1),
        (deployments_topic(project.name), 1), (logs_topic(project.name), 1), (catalogue_topic(project.name), 1), (dead_letters_topic(project.name), 1),
        (retraining_topic(project.name), 1),
    ):  # fmt: skip
        specs[name] = TopicSpec(partitions, keep)
    ours = set(specs)
    for event in project.events.values():
        if event.topic in ours:
            raise DeclarationError(
                f"topic {event.topic!r} is one of the project's own",
                where=event.declared_at,
                field="topic",
                mend="give the event another topic",
            )
        specs[event.topic] = TopicSpec(event.partitions, {**keep, "retention.ms": str(parse_ms("7d"))}, ours=False)
    return specs
