"""Typed records of every message that crosses a process; `schemas/` says the same as JSON Schema, and contract tests hold them together.

All times are whole epoch milliseconds, UTC. A position is [topic, partition, offset].
"""

from __future__ import annotations

from math import fsum
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import msgspec

from tidemill.errors import BadDeployment
from tidemill.names import LogName

# Bounds are checked when a message is decoded, so that no number can overflow a fold, a fence or a column of the offline store.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Scalar = str | Integer | float | bool | None
Position = tuple[str, Natural, Natural]

_ROUNDING = 1e-9  # shares are decimal fractions, whose sum is not exact


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


_SINCE = b"tidemill:since:"


def since_record(since_ms: int) -> tuple[bytes, bytes]:
    """Key and value of the record with which each partition of a view's log begins when its event had been routed before the view was declared:
    what was routed before this moment is not in the log. It stands in the key, so that a row of the offline store has it too.
    """
    return _SINCE + str(since_ms).encode(), b""


def since_of(key: bytes) -> int | None:
    """The moment that a record without a usable value tells; None when it is any other."""
    digits = key.removeprefix(_SINCE)
    return int(digits) if key.startswith(_SINCE) and digits.isdigit() and len(digits) < 17 else None


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


AlertSource = Literal["drift", "audit"]
AlertKind = Literal["feature_drift", "prediction_drift", "performance", "data_quality"]
Role = Literal["champion", "challenger", "shadow"]
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

    `id` is the same whenever the same alert is computed again. `subject`: the feature, "prediction", the performance metric, or, for a person,
    the `partition` of `view` that the audit (`source`) found to differ: then `model` is empty, `start` and `end` are when it was compared, `rows`
    the values compared. Old alerts have neither `source` nor `partition`; `streams.alerts` fills them in.
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
    partition: Natural | None = None
    source: AlertSource | None = None


class OtherVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A version that a deployment states beside the champion. `share`: of the model's requests, from 0 to 1; a shadow answers none."""

    version: str
    role: Literal["challenger", "shadow"]
    artifact: str
    sha256: str
    share: Share = 0.0


class DeploymentRecord(Record, frozen=True):
    """What serves a model from now on (topic `<project>.deployments`, key = model): the newest record states all of it.

    `version` is the champion; `others` stand beside it, and what their shares leave of the requests is the champion's.
    `artifact`: folder below the offline store with manifest.json and model.onnx; `sha256` of manifest.json; `metrics`: the champion's.
    """

    model: str
    version: str
    artifact: str
    sha256: str
    deployed: Milliseconds
    metrics: dict[str, float] = {}
    others: list[OtherVersion] = []

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


_ANY_VIEW = decoder(ViewRecord)


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


def absent_fields(value: bytes, fields: dict[str, Any]) -> list[str]:
    """Those of a view's fields that may not be null, and that a record lacks which is whole otherwise: they were not folded when it was written."""
    try:
        record = _ANY_VIEW.decode(value)
    except DECODE_ERRORS:
        return []
    return [name for name, kind in fields.items() if name not in record.values and NoneType not in get_args(kind)]


def _value_field(name: str, kind: Any) -> tuple[str, Any] | tuple[str, Any, None]:
    nullable = NoneType in get_args(kind)
    if int in (kind, *get_args(kind)):
        kind = Integer | None if nullable else Integer
    return (name, kind, None) if nullable else (name, kind)
