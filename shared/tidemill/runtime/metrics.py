"""Every metric of tidemill. No other module defines a metric.

A name ends in its unit; a counter in `_total`. Durations are seconds, sizes bytes, positions Kafka offsets. Labels stay few and bounded:
names from declarations, partitions and short reason codes, never an entity or an id. `catalogue()` lists them all for documents and tests.
The word after `tidemill_` names the service. A service exposes only its own metrics (`shown_by`), so a counter at 0 belongs to a service
that counts.

    EVENTS_IN.labels(topic).inc()       # on a hot path keep the child: events_in = EVENTS_IN.labels(topic)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric as Family

Kind = Literal["counter", "gauge", "histogram"]

REQUEST_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
BATCH_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
FRESHNESS_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)

LATENESS_BUCKETS: Final = (1, 10, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)


class Metric(NamedTuple):
    """One line of the catalogue."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_CATALOGUE: list[Metric] = []


def _listed(kind: Kind, name: str, meaning: str, labels: tuple[str, ...]) -> str:
    _CATALOGUE.append(Metric(f"tidemill_{name}", kind, labels, meaning))
    return f"tidemill_{name}"


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(_listed("counter", name, meaning, labels), meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(_listed("gauge", name, meaning, labels), meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(_listed("histogram", name, meaning, labels), meaning, labels, buckets=buckets)


# Every process
PROCESS_EXITS = _counter(
    "process_exits_total",
    "Times the process ended without a request to end, earlier runs included: stuck (ended by its watchdog), failed (by an error), killed",
    "reason",
)
DEPENDENCY_UP = _gauge(
    "dependency_up", "1 while the check of /health/ready holds (kafka, redis, offline, partitions ...), else 0", "dependency"
)
CATALOGUE_RECORDS = _gauge("catalogue_records", "Records of the catalogue that the process has followed; 0: it works by the project's file")

# Workers with batched delivery
DELIVERY_GAPS = _counter("delivery_gaps_total", "Times Kafka's client left out records and the partition was placed again", "topic")

# Ingestion
EVENTS_IN = _counter("ingestion_events_in_total", "Events read from an application topic", "topic")
EVENTS_OUT = _counter(
    "ingestion_records_out_total", "Records acknowledged on a topic of the project, one per view or model that an event feeds", "topic"
)
DEAD_LETTERS = _counter("ingestion_dead_letters_total", "Events written to the dead letters, by reason code", "topic", "reason")
INGESTION_WAVE_SECONDS = _histogram(
    "ingestion_wave_seconds", "Time from the first record of a wave to the acknowledgement of its last", buckets=BATCH_BUCKETS
)
UNKEYED = _counter(
    "ingestion_unkeyed_total", "Records that were not made because the key of that view or model was null in the event", "topic"
)
PASSED_OVER = _counter(
    "ingestion_passed_over_total", "Records that were not made because the `where` of that view was false or null for the event", "topic"
)
NO_EVENT = _counter(
    "ingestion_no_event_total",
    "Records that are no event of the project, rightly: without a value, of another type, a deleted row",
    "topic",
    "why",
)
EVENTS_REFUSED = _counter("ingestion_events_refused_total", "Events refused over HTTP, by reason code", "reason")
EVENTS_EXPIRED = _counter(
    "ingestion_events_expired_total", "Events that retention removed from an application topic before they were routed", "topic"
)
INGESTION_REQUEST_SECONDS = _histogram("ingestion_request_seconds", "Time to answer a request to publish events", buckets=REQUEST_BUCKETS)
INGESTION_RESPONSES = _counter("ingestion_responses_total", "Answers to requests to publish events by HTTP status", "status")
INGESTION_LAG = _gauge("ingestion_lag_records", "Records of an application topic not yet routed", "topic", "partition")

# Feature computation
EVENTS_FOLDED = _counter("features_events_folded_total", "Events folded into the online store", "view")
EVENTS_DUPLICATE = _counter("features_events_duplicate_total", "Events skipped because their publisher had sent them before", "view")
EVENTS_RESENT = _counter("features_events_resent_total", "Records skipped because ingestion had sent them before", "view")
EVENTS_LATE = _counter(
    "features_events_late_total",
    "Events refused because they are too much older than the newest event of their entity; each is a dead letter",
    "view",
)
EVENTS_POISON = _counter("features_events_poison_total", "Records refused because they cannot be decoded; each is a dead letter", "view")
LATENESS_SECONDS = _histogram(
    "features_lateness_seconds",
    "How much older late events, corrected or refused, were than the newest event of their entity",
    "view",
    buckets=LATENESS_BUCKETS,
)
FOLD_BATCH_SECONDS = _histogram(
    "features_batch_seconds", "Time to read, fold and write one batch, retries included", "view", buckets=BATCH_BUCKETS
)
REWINDS = _counter("features_rewinds_total", "Times a partition went back to the store's fence, by reason code", "view", "reason")
PARTITIONS_STOPPED = _counter("features_partitions_stopped_total", "Times a partition stopped at damaged state or a replaced topic", "view")
FEATURES_LAG = _gauge("features_lag_records", "Records of a view topic not yet folded", "view", "partition")
FENCE_POSITION = _gauge("features_fence_offset", "Next offset the online store expects", "view", "partition")
FRESHNESS_SECONDS = _histogram(
    "features_freshness_seconds",
    "Time from the moment an event became known until it can be read in the online store, sampled once per batch (its oldest event)",
    "view",
    buckets=FRESHNESS_BUCKETS,
)

# Offline writer
OFFLINE_ROWS = _counter("offline_rows_total", "Rows committed to a Delta table", "table")
OFFLINE_COMMIT_SECONDS = _histogram("offline_commit_seconds", "Time of one Delta commit", "table", buckets=BATCH_BUCKETS)
OFFLINE_LAG = _gauge("offline_lag_records", "Records not yet in the Delta table", "table", "partition")
OFFLINE_EXPIRED = _counter(
    "offline_events_expired_total", "Events that retention removed from an application topic before they were archived", "topic"
)

# Feature serving
SERVING_REQUEST_SECONDS = _histogram("serving_request_seconds", "Time to answer a feature request", "route", buckets=REQUEST_BUCKETS)
SERVING_RESPONSES = _counter("serving_responses_total", "Answers to feature requests by HTTP status", "route", "status")

# Inference
INFERENCE_REQUEST_SECONDS = _histogram(
    "inference_request_seconds", "Time to answer a prediction request, logging included", "model", buckets=REQUEST_BUCKETS
)
INFERENCE_RESPONSES = _counter("inference_responses_total", "Answers to prediction requests by HTTP status", "model", "status")
PREDICTIONS = _counter("inference_predictions_total", "Predictions made and logged", "model", "version")
PREDICTIONS_DEGRADED = _counter("inference_degraded_total", "Predictions of which inputs could not be known", "model")
PREDICTIONS_REPEATED = _counter(
    "inference_predictions_repeated_total", "Requests answered with the prediction of an earlier one of the same id", "model"
)
SHADOWS = _counter("inference_shadows_total", "Predictions of shadows that were logged", "model", "version")
SHADOWS_LEFT_OUT = _counter("inference_shadows_left_out_total", "Predictions of shadows that were not made or not logged", "model")
DEPLOYMENT_FAILURES = _counter("inference_deployment_failures_total", "Deployments that could not be loaded, retries included", "model")
ENGINE_FAILURES = _counter(
    "inference_engine_failures_total",
    "Workers of models with their own pipeline that were lost: hangs (gave no answer in time), ended, memory (needed too much)",
    "model", "version", "kind",
)  # fmt: skip
MODELS_LOADED = _gauge("inference_model_loaded_info", "1 for each model version that is loaded", "model", "version")

# Prediction logging
PREDLOG_PREDICTIONS = _counter("predlog_predictions_total", "Predictions with a subject taken up by the join, each once", "model")
PREDLOG_JOINED = _counter("predlog_joined_total", "Predictions joined with their outcome", "model")
PREDLOG_NEVER = _counter("predlog_never_total", "Predictions whose outcome did not arrive in time", "model")
PREDLOG_PENDING = _gauge("predlog_pending_predictions", "Predictions still waiting for an outcome", "model")
PREDLOG_LATE = _counter("predlog_late_outcomes_total", "Outcomes that came after their prediction was given up", "model")
PREDLOG_OVERDUE = _counter("predlog_overdue_predictions_total", "Predictions that were logged after the end of their own wait", "model")
PREDLOG_LAG = _gauge("predlog_lag_records", "Records of a topic that the join has not read yet", "topic", "partition")

# Drift detection
DRIFT_WINDOWS = _counter("drift_windows_total", "Windows compared with their reference", "model")
DRIFT_IGNORED = _counter(
    "drift_ignored_total", "Records that came after their window was closed, or whose time lies in the future", "model"
)
DRIFT_ALERTS = _counter("drift_alerts_total", "Alerts raised, by what drifted", "model", "kind")
ALERTS_DELIVERED = _counter("alerts_delivered_total", "Alerts that a sink took", "sink")
ALERTS_REFUSED = _counter("alerts_refused_total", "Messages with alerts that a sink did not take; they are sent again", "sink")

# Retraining
RETRAINING_RUNS = _counter("retraining_runs_total", "Runs begun, by what began them", "model", "trigger")
RETRAINING_STEPS = _counter(
    "retraining_steps_total", "Steps recorded, by step: trained, shadow, promoted, rejected, failed and so on", "model", "step"
)
RETRAINING_OPEN = _gauge("retraining_open_seconds", "Time since the run began that is open; 0 without one", "model")

# Audit
AUDIT_ROUNDS = _counter("audit_rounds_total", "Times every partition of every view was looked at")
AUDIT_COMPARED = _counter("audit_values_compared_total", "Values of the online store compared with the offline rows", "view")
AUDIT_DIFFERING = _gauge(
    "audit_differing_values", "Values that were not what the log says when the partition was last compared", "view", "partition"
)
AUDIT_ARCHIVED = _counter("audit_archived_events_compared_total", "Archived events compared with the events that Kafka holds", "event")
AUDIT_ARCHIVE_DIFFERING = _gauge(
    "audit_differing_archived_events",
    "Archived events that were not what the topic says when they were last compared",
    "event",
    "partition",
)
AUDIT_LEFT_OUT = _counter("audit_partitions_left_out_total", "Partitions not compared because they were being rebuilt", "view")
AUDIT_VERIFIED = _counter(
    "audit_verified_values_total",
    "Served values, logged inputs and results compared with SQL over the archive, by view or results/<model>",
    "view",
)
AUDIT_VERIFY_DIFFERING = _gauge(
    "audit_differing_verified_values",
    "Values that were not what SQL makes of the archived events when the partition was last verified",
    "view",
    "partition",
)
AUDIT_VERIFY_UNDECIDED = _counter("audit_undecided_verified_values_total", "Values of which SQL cannot tell whether they are right", "view")
AUDIT_VERIFY_LEFT_OUT = _counter(
    "audit_verify_left_out_total",
    "Entities, predictions and results that were drawn and not verified: lags (the archive or the rows did not catch up in time), rebuilding, definition, damaged,"
    " large, erased, forgotten (older than the archive keeps events), failed (a round; the log says why)",
    "view",
    "reason",
)
AUDIT_VERIFY_SECONDS = _counter("audit_verify_cpu_seconds_total", "Processor time of the process while it verified")


def catalogue() -> Iterator[Metric]:
    """All metrics in the order they are declared."""
    yield from _CATALOGUE


_OF_EVERY_PROCESS: Final = ("process", "dependency", "catalogue")
_OF_SEVERAL: Final = {
    "alerts": ("drift",),
    "delivery": ("features",),
    "offline": ("offline", "predlog"),
}  # prediction logging mirrors a topic, as the offline writer does
_service: str | None = None  # a process is one service


def shown_by(name: str) -> tuple[str, ...] | None:
    """The services that expose a metric (None: all)."""
    system, _, rest = name.partition("_")
    whose = rest.partition("_")[0]
    if system != "tidemill" or whose in _OF_EVERY_PROCESS:
        return None
    return _OF_SEVERAL.get(whose, (whose,))


def begin(service: str | None) -> None:
    """From now on `exposition` has the metrics of this service only (None: of all services)."""
    global _service  # noqa: PLW0603
    _service = service


class _Shown:
    """The registered metrics that this process exposes."""

    def collect(self) -> Iterator[Family]:
        """The families, as the registry gives them."""
        for family in REGISTRY.collect():
            services = shown_by(family.name)
            if services is None or _service is None or _service in services:
                yield family


def exposition() -> tuple[str, bytes]:
    """The content type and body of a `/metrics` answer."""
    return CONTENT_TYPE_LATEST, generate_latest(_Shown())  # all that it needs from a registry is `collect`
