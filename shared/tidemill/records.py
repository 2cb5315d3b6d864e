"""Typed records of every message that crosses a process; `schemas/` says the same as JSON Schema, and contract tests hold them together.

All times are whole epoch milliseconds, UTC. A position is [topic, partition, offset].
"""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args

import msgspec

from tidemill.names import LogName

# Bounds are checked when a message is decoded, so that no number can overflow a fold, a fence or a column of the offline store.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Scalar = str | Integer | float | bool | None
Position = tuple[str, Natural, Natural]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Root of the messages."""


class ViewRecord(Record, frozen=True):
    """One event as one view sees it (topic `<project>.view.<view>.p<partitions>`, key = entity). Ingestion's answer to "which view needs what".

    `known`: when the event was published; `source`: partition and offset on the application's topic (a partition from 2^32 on is one that
    `tidemill repartition` made); `values`: the fields the view folds. `view_decoder` makes a faster decoder with typed values for one view.
    """

    time: Milliseconds
    known: Milliseconds
    source: tuple[Natural, Natural]
    values: dict[str, Scalar]
    id: str | None = None


class ViewEvent(Protocol):
    """A view record as the fold takes it, whoever made it: `values` has one attribute per field the view folds, null being None. The rest is as
    in ViewRecord."""

    @property
    def time(self) -> int:
        """When it happened, in ms."""

    @property
    def known(self) -> int:
        """When it was published, in ms."""

    @property
    def source(self) -> tuple[int, int]:
        """Partition and offset on the application's topic."""

    @property
    def values(self) -> object:
        """The fields."""

    @property
    def id(self) -> str | None:
        """What its publisher calls it."""


class KafkaRecord(Protocol):
    """A consumed record, as far as anyone looks who needs no more than its place and its bytes."""

    @property
    def offset(self) -> int:
        """Where it stands in its partition."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value."""


class RequestRecord(Record, frozen=True):
    """A subject announced for a model (topic `<project>.requests`, key = subject): the spine of training sets.

    `time`: the moment of the request; `entities`: keys of the views and request values by name.
    """

    model: str
    subject: str
    time: Milliseconds
    known: Milliseconds
    source: Position
    entities: dict[str, Scalar]


class OutcomeRecord(Record, frozen=True):
    """The true value for a subject (topic `<project>.outcomes`, key = subject). `value`: 1 or 0 for a condition, else the number."""

    model: str
    subject: str
    value: float
    time: Milliseconds
    known: Milliseconds
    source: Position


class StampEntry(Record, frozen=True, array_like=True):
    """One fence a prediction saw: the view's log, partition, next offset."""

    view: LogName
    partition: Natural
    next: Natural


AlertKind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]


class PredictionRecord(Record, frozen=True):
    """A prediction as it was answered (topic `<project>.predictions`, key = id).

    `time`: the request's time; `served`: wall clock; `inputs`: the model's float32 columns in order (null: NaN);
    `entities`: what the request gave; `stamp`: the fences seen; `output`: float32 probability or value.
    A request by tensor has no entities and no stamp.
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


class ResultRecord(Record, frozen=True):
    """A prediction joined with its outcome, or marked as never answered (topic `<project>.results`, key = prediction).

    `seq` counts the results of a project without gaps, from 0: whoever reads a result twice knows it. `time`: the request's
    time; `known`: when the outcome was published, or the end of the wait.
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
    outcome: float | None = None


class AlertRecord(Record, frozen=True):
    """Something an operator should know (topic `<project>.alerts`, key = model, or view where it is about one).

    `id` is the same whenever the same alert is computed again. `subject`: the feature, "prediction", the performance metric, or a partition of
    `view`, which the audit (`test`) found to differ: then `model` is empty, `start` and `end` are when it was compared, `rows` the values compared.
    `start`, `end`: the window, event time. `statistic` is compared with `threshold`; `effect` is the size of the change in the
    unit named by `test`; `reference` and `current` are the values a person compares; `rows` is the window's size.
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


class DeploymentRecord(Record, frozen=True):
    """A model version to serve from now on (topic `<project>.deployments`, key = model; the newest wins).

    `artifact`: folder below the offline store with manifest.json and model.onnx; `sha256` of manifest.json.
    """

    model: str
    version: str
    artifact: str
    sha256: str
    deployed: Milliseconds
    metrics: dict[str, float] = {}


class LogRecord(Record, frozen=True):
    """What `tidemill repartition` told of a view's logs (topic `<project>.logs`, key = view): `log` is being filled with the records of `source`,
    or, once `filled`, is the one in use.

    `records`: copied; `undecodable`, `sent_twice`: left out; `moved`: of those copied, the ones that have a source of their own.
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
    """A message that was not used, and why (topic `<project>.dead-letters`, key as it came). `value`: what came, base64, cut at 64 KiB.

    `size`: its whole length in bytes; `detail`: for a person; `reason`: one of a fixed set of codes; `source`: where it stands. `view`: the
    only view it is lost for; without it, it is lost as a whole. `origin`: of a view's record, the event on the application's topic it
    was made from, where that is known. A letter may be written twice: it is known by `source` and `view`.
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


T = TypeVar("T")
_ENCODER = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """JSON bytes of a record."""
    return _ENCODER.encode(record)


DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for one bad record or another."""


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder of one kind of record; its `decode` raises msgspec.DecodeError (ValidationError for a wrong type)."""
    return msgspec.json.Decoder(kind)


def view_decoder(fields: dict[str, Any]) -> msgspec.json.Decoder[ViewEvent]:
    """A decoder of view records whose `values` have one attribute per field of the view.

    `fields`: name -> type as declared (`float`, `str | None`, ...); one that may be null may be left out, the others must be there.
    """
    values = msgspec.defstruct("Values", [_value_field(name, kind) for name, kind in fields.items()], frozen=True, gc=False, kw_only=True)
    record = msgspec.defstruct(
        "TypedViewRecord",
        [
            ("time", Milliseconds),
            ("known", Milliseconds),
            ("source", tuple[Natural, Natural]),
            ("values", values),
            ("id", str | None, None),
        ],
        frozen=True,
        gc=False,
    )
    return msgspec.json.Decoder(record)


def _value_field(name: str, kind: Any) -> tuple[str, Any] | tuple[str, Any, None]:
    nullable = NoneType in get_args(kind)
    if int in (kind, *get_args(kind)):
        kind = Integer | None if nullable else Integer
    return (name, kind, None) if nullable else (name, kind)
