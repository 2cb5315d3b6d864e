"""Typed records of every message between processes. `schemas/` says the same as JSON Schema; contract tests compare the two.

All times are whole epoch milliseconds, UTC. A position is [topic, partition, offset].
"""

from __future__ import annotations

from math import fsum
from typing import Annotated, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from tidemill.errors import BadDeployment
from tidemill.names import LogName

# The decoder checks these bounds, so that no number can overflow a fold, a fence or a column of the offline store.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Scalar = str | Integer | float | bool | None
Position = tuple[str, Natural, Natural]

_ROUNDING = 1e-9  # shares are decimal fractions, whose sum as floats is not exact


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Root of the messages."""


class ViewRecord(Record, frozen=True):
    """The part of one event that one view folds (topic `<project>.view.<view>.p<partitions>`, key = entity).

    `known`: when the event was published; `source`: partition and offset on the application's topic (a partition from 2^32 on is one that
    `tidemill repartition` made); `values`: the fields that the view folds, those of its `erase` included. `typed_values.py` has a faster decoder.
    """

    time: Milliseconds
    known: Milliseconds
    source: tuple[Natural, Natural]
    values: dict[str, Scalar]
    id: str | None = None


_SINCE = b"tidemill:since:"


def since_record(since_ms: int) -> tuple[bytes, bytes]:
    """Key and value of the record that says: events routed before this moment are not in the log.

    Each partition of a view's log begins with it if events had been routed before the view was declared. The moment stands in the key, so
    that a row of the offline store has it too.
    """
    return _SINCE + str(since_ms).encode(), b""


def since_of(key: bytes) -> int | None:
    """The moment in the key of a record that `since_record` made; None for any other key. Only for records without a usable value."""
    digits = key.removeprefix(_SINCE)
    return int(digits) if key.startswith(_SINCE) and digits.isdigit() and len(digits) < 17 else None


class ViewEvent(Protocol):
    """A view record as the fold takes it. `values` has one attribute per field that the view folds, None for null. The rest is as in
    ViewRecord."""

    @property
    def time(self) -> int:
        """When the event happened, in ms."""

    @property
    def known(self) -> int:
        """When the event was published, in ms."""

    @property
    def source(self) -> tuple[int, int]:
        """Partition and offset on the application's topic."""

    @property
    def values(self) -> object:
        """The fields that the view folds."""

    @property
    def id(self) -> str | None:
        """The publisher's id of the event."""


class KafkaRecord(Protocol):
    """A consumed record, for code that needs only its offset and its bytes."""

    @property
    def offset(self) -> int:
        """Where it stands in its partition."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value."""


class OutcomeRecord(Record, frozen=True):
    """The true value for a subject (topic `<project>.outcomes`, key = subject). `value`: 1 or 0 for a condition, else the number or the text; `id`: by
    which a second publication of its event is known; `asks`: of an event that announces a question of the model too, the moment of that
    question: it answers earlier ones only."""

    model: str
    subject: str
    value: float | str
    time: Milliseconds
    known: Milliseconds
    source: Position
    id: str | None = None
    asks: Milliseconds | None = None


class StampEntry(Record, frozen=True, array_like=True):
    """One fence that a prediction saw: the view's log, the partition, the next offset."""

    view: LogName
    partition: Natural
    next: Natural


AlertSource = Literal["drift", "audit"]
Watched = Literal["inputs", "outcomes", "ranking"]
AlertKind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Role = Literal["champion", "challenger", "shadow"]
Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]


class PredictionRecord(Record, frozen=True):
    """A prediction with its inputs and answer (topic `<project>.predictions`, key = id).

    `time`: the request's time; `served`: the wall clock at the answer; `inputs`: the model's float32 columns in order (null: NaN);
    `entities`: the values of the request; `stamp`: the fences that it saw; `output`: a float32 probability or value. A request by tensor
    has no entities and no stamp. `probabilities`: of a model of several classes, the probability of each by its name, in the version's order;
    `output` is the largest then. `contents`: by name the inputs that the model takes whole, a text as it is and a tensor as the base64 of
    little-endian float32; in `inputs` stands a number for each, and a missing text is not there.
    """

    id: str
    model: str
    version: str
    time: Milliseconds
    served: Milliseconds
    inputs: list[float | None]
    output: float
    subject: str | None = None
    entities: dict[str, Scalar] = {}
    stamp: list[StampEntry] = []
    probabilities: dict[str, float] = {}
    contents: dict[str, str] = {}


class ResultRecord(Record, frozen=True):
    """A prediction joined with its outcome, or marked as never answered (topic `<project>.results`, key = prediction). A prediction whose
    outcome says what the absence of an event means is joined with that at the end of the wait.

    `seq` numbers the results of a project from 0, without gaps, so a reader sees when it reads a result twice. `time`: the request's time;
    `known`: when the outcome was published, or the end of the wait. `outcome`: as in OutcomeRecord; `probabilities`: as in PredictionRecord.
    """

    seq: Natural
    prediction: str
    model: str
    version: str
    subject: str
    time: Milliseconds
    output: float
    status: Literal["joined", "never"]
    known: Milliseconds
    outcome: float | str | None = None
    probabilities: dict[str, float] = {}


class AlertRecord(Record, frozen=True):
    """A message to an operator (topic `<project>.alerts`, key = model, or view if the alert is about a view).

    `id`: the same whenever the same alert is computed again. `subject`: the feature, "prediction", or the performance metric. `start`,
    `end`: the window, in event time; `rows`: its size. `statistic` is compared with `threshold`; `effect`: the size of the change, in the
    unit that `test` names; `reference`, `current`: the values that a person compares.

    An alert of the audit (`source`) is about a `partition` of `view` whose stores differ, or whose values SQL gives otherwise (`test` verify;
    for results `view` is `results/<model>`), or of the table `events/<event>` that differs from the event's topic: `subject` names it for a person,
    `model` is empty, `start` and `end` say when it was compared, and `rows` counts the compared values. Old alerts have neither `source`
    nor `partition`; `streams.alerts` fills them in. `reason`: why it is closed, where that is not that it is back as it was.
    """

    id: str
    model: str
    version: str
    kind: AlertKind
    subject: str
    state: Literal["opened", "worsened", "closed"]
    start: Milliseconds
    end: Milliseconds
    test: str
    statistic: float
    threshold: float
    effect: float
    rows: Natural
    message: str
    reference: float | None = None
    current: float | None = None
    view: str = ""
    partition: Natural | None = None
    source: AlertSource | None = None
    reason: Literal["superseded"] | None = None


class JudgementRecord(Record, frozen=True):
    """What drift detection made of a window of a version (topic `<project>.judgements`, key = model); times are event time.

    `what`: inputs and outputs, outcomes, or their ranking (AUC). `state`: waiting: too few rows, which are joined with those of the next window;
    skipped: never judged; `why` in words. `drifted`: of the comparisons; `left_out`: inputs of which something cannot be compared."""

    model: str
    version: str
    what: Watched
    start: Milliseconds
    end: Milliseconds
    rows: Natural
    state: Literal["judged", "waiting", "skipped"]
    why: str = ""
    comparisons: Natural = 0
    drifted: Natural = 0
    left_out: list[str] = []


class NoteRecord(Record, frozen=True):
    """What an operator says about alerts (topic `<project>.notes`, key = model). ack: the episode of `alert` is known; mute: alerts of `model`
    about `subject` (empty: any) are not delivered until the moment `until` (None: until unmute). `time`: the wall clock; `by`: who."""

    kind: Literal["ack", "mute", "unmute"]
    time: Milliseconds
    by: str = ""
    alert: str = ""
    model: str = ""
    subject: str = ""
    until: Milliseconds | None = None
    reason: str = ""


class OtherVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A version beside the champion of a deployment. `share`: its share of the model's requests, from 0 to 1; a shadow answers none."""

    version: str
    role: Literal["challenger", "shadow"]
    artifact: str
    sha256: str
    share: Share = 0.0


class DeploymentRecord(Record, frozen=True):
    """All versions of a model that serve from now on (topic `<project>.deployments`, key = model). Only the newest record counts.

    `version`: the champion; `others`: the versions beside it. The champion answers the requests that their shares leave. `artifact`: folder
    below the offline store with manifest.json and model.onnx; `sha256`: of manifest.json; `metrics`: the champion's; `rolled_back`: whether
    the champion is that of before, in place of the one that came after it.
    """

    model: str
    version: str
    artifact: str
    sha256: str
    deployed: Milliseconds
    metrics: dict[str, float] = {}
    others: list[OtherVersion] = []
    rolled_back: bool = False

    def versions(self) -> list[DeployedVersion]:
        """All versions, the champion first. Raises BadDeployment: one stands twice, a shadow has a share, or the shares exceed 1."""
        others = [
            DeployedVersion(self.model, other.version, other.role, other.share, other.artifact, other.sha256) for other in self.others
        ]
        named = [self.version, *(other.version for other in others)]
        if twice := sorted({version for version in named if named.count(version) > 1}):
            raise BadDeployment(self.model, f"version {', '.join(twice)} stands twice")
        if seen := [other.version for other in others if other.role == "shadow" and other.share]:
            raise BadDeployment(self.model, f"{', '.join(seen)} is a shadow, which answers no requests, and has a share")
        given = fsum(other.share for other in others)
        if given > 1 + _ROUNDING:
            raise BadDeployment(self.model, f"the shares of the challengers add up to {given:g}")
        return [DeployedVersion(self.model, self.version, "champion", max(0.0, 1 - given), self.artifact, self.sha256), *others]


class DeployedVersion(NamedTuple):
    """One version of a deployment, its role and its share of the model's requests."""

    model: str
    version: str
    role: Role
    share: float
    artifact: str
    sha256: str


class LogRecord(Record, frozen=True):
    """The state of a view's logs, from `tidemill repartition` (topic `<project>.logs`, key = view): `log` is being filled with the records
    of `source`; once `filled`, it is the log in use.

    `records`: how many were copied; `undecodable`, `sent_twice`: how many were left out; `moved`: how many of the copied records got a
    source partition of their own.
    """

    view: str
    log: LogName
    source: LogName
    filled: bool
    time: Milliseconds
    records: Natural = 0
    undecodable: Natural = 0
    sent_twice: Natural = 0
    moved: Natural = 0


class DeadLetterRecord(Record, frozen=True):
    """A message that was not used, and why (topic `<project>.dead-letters`, with the message's key).

    `value`: its value in base64, cut at 64 KiB; `size`: the whole length of the value in bytes; `reason`: one of a fixed set of codes;
    `detail`: the cause, for a person; `source`: its position. `view`: the only view that lacks the message; without it, the message is lost
    for all. `origin`: for a view's record, the position of the event from which it was made, if known. `event`: as which event it was read, if
    that is known. A letter may be written twice: the same letter has the same `source` and `view`.
    """

    reason: str
    detail: str
    source: Position
    known: Milliseconds
    size: Natural
    value: str
    key: str | None = None
    view: str | None = None
    origin: Position | None = None
    event: str | None = None


T = TypeVar("T")
_ENCODER = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """JSON bytes of a record."""
    return _ENCODER.encode(record)


BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some programs write before UTF-8. It says nothing."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions of a decoder for bad records."""


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder for one kind of record. Its `decode` raises DECODE_ERRORS (msgspec.ValidationError for a wrong type)."""
    return msgspec.json.Decoder(kind)
