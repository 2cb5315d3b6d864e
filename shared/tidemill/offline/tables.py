"""The tables of the offline store: which topic each mirrors, its columns, and how records become rows.

Every mirror has the columns partition, offset, key and proof (`checksums.proof_of`), then those of its record. A record that cannot be
decoded becomes a row whose `time` and other columns are null, so offsets stay dense. A record without a key has the key "".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from tidemill.checksums import proof_of
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.offline.names import view_folder
from tidemill.records import KafkaRecord, PredictionRecord, ResultRecord, Scalar, StampEntry, decoder
from tidemill.streams.topics import predictions_topic, shadows_topic, topic_specs, view_topic
from tidemill.typed_values import absent_fields, view_decoder

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_JSON = msgspec.json.Encoder()
_ENTITIES = msgspec.json.Decoder(dict[str, Scalar])
_STAMP = msgspec.json.Decoder(list[StampEntry])
_PROBABILITIES = msgspec.json.Decoder(dict[str, float])
_CONTENTS = msgspec.json.Decoder(dict[str, str])


class TableColumn(NamedTuple):
    """A column, and how to get its value from a decoded record."""

    name: str
    type: pa.DataType
    get: Callable[[Any], Any]


def _column(name: str, kind: pa.DataType, path: str = "") -> TableColumn:
    return TableColumn(name, kind, attrgetter(path or name))


@dataclass(frozen=True)
class MirrorTable:
    """A table that holds every record of a topic, once. `name`: its folder below the root of the offline store.

    `decode_older`: for a record that `decode` refuses because it is older than a column; missing fields become null.
    """

    name: str
    topic: str
    partitions: int
    decode: Callable[[bytes], Any]
    columns: tuple[TableColumn, ...]
    decode_older: Callable[[bytes], Any] | None = None

    @property
    def schema(self) -> pa.Schema:
        """All columns."""
        own = [("partition", pa.int32()), ("offset", pa.int64()), ("key", pa.string()), ("proof", pa.int64())]
        return pa.schema(own + [(column.name, column.type) for column in self.columns])

    def rows_of(self, read: Mapping[int, Sequence[KafkaRecord]]) -> pa.Table:
        """The rows of several partitions."""
        return pa.Table.from_batches([self.rows(partition, records) for partition, records in sorted(read.items())])

    def rows(self, partition: int, records: Sequence[KafkaRecord]) -> pa.RecordBatch:
        """The rows of consecutive records of one partition. It does not raise, whatever they contain."""
        keys = [record.key for record in records]
        values = [record.value for record in records]
        try:
            decoded = list(map(self.decode, values))  # type: ignore[arg-type]  # no value raises TypeError
            return self._batch(partition, records, keys, [list(map(column.get, decoded)) for column in self.columns])
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, OverflowError, RecursionError, pa.ArrowInvalid):
            decoded = [self._decode_one(key, value) for key, value in zip(keys, values, strict=True)]
            cells = [[None if record is None else column.get(record) for record in decoded] for column in self.columns]
            return self._batch(partition, records, [_text(key) for key in keys], cells)

    def _batch(
        self, partition: int, records: Sequence[KafkaRecord], keys: Sequence[bytes | str | None], cells: list[list[Any]]
    ) -> pa.RecordBatch:
        if None in keys:
            raise TypeError("a record without a key")
        arrays = [
            pa.repeat(pa.scalar(partition, pa.int32()), len(records)),
            pa.array([record.offset for record in records], pa.int64()),
            pa.array(keys, pa.string()),
            pa.array([proof_of(record.key, record.value) for record in records], pa.int64()),
            *(pa.array(column, kind.type) for column, kind in zip(cells, self.columns, strict=True)),
        ]
        return pa.record_batch(arrays, self.schema)

    def _decode_one(self, key: bytes | None, value: bytes | None) -> Any:
        """The decoded record; None when it cannot be decoded or stored."""
        try:
            if key is None or value is None:
                return None
            key.decode()
            record = self._decode_any(value)
            for column in self.columns:
                pa.array([column.get(record)], column.type)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError, pa.ArrowInvalid):
            return None
        return record

    def _decode_any(self, value: bytes) -> Any:
        try:
            return self.decode(value)
        except msgspec.ValidationError:
            if self.decode_older is None:
                raise
            return self.decode_older(value)


def _text(key: bytes | None) -> str:
    """A key as text; bytes that are not UTF-8 are escaped (such a row has no other values)."""
    return (key or b"").decode(errors="backslashreplace")


def view_table(project: Project, view: FeatureView) -> MirrorTable:
    """Rows of a view's topic: time, known, source_partition, source_offset, id, and `v_<field>` per field the view folds.

    A record may be older than a field of the view; then the row has null for it, and `PartitionLog` refuses to fold such rows.
    """
    kinds = {name: view.source.fields[name] for name in view.value_fields}
    columns = (
        _column("time", pa.int64()),
        _column("known", pa.int64()),
        TableColumn("source_partition", pa.int64(), lambda record: record.source[0]),
        TableColumn("source_offset", pa.int64(), lambda record: record.source[1]),
        _column("id", pa.string()),
        *(_column(f"v_{name}", _ARROW[view.source.base_type(name)], f"values.{name}") for name in kinds),
    )
    older = view_decoder({name: kind | None for name, kind in kinds.items()})

    def decode_older(value: bytes) -> Any:
        if not absent_fields(value, kinds):
            raise msgspec.ValidationError("a field is of another type")
        return older.decode(value)

    return MirrorTable(
        view_folder(view.log), view_topic(project.name, view.log), view.partitions, view_decoder(kinds).decode, columns, decode_older
    )


def _entities_json(record: PredictionRecord) -> str:
    return _JSON.encode(record.entities).decode()


def _stamp_json(record: PredictionRecord) -> str:
    return _JSON.encode(record.stamp).decode()


def _probabilities_json(record: PredictionRecord | ResultRecord) -> str | None:
    return _JSON.encode(record.probabilities).decode() if record.probabilities else None


def _contents_json(record: PredictionRecord) -> str | None:
    return _JSON.encode(record.contents).decode() if record.contents else None


def predictions_table(project: Project) -> MirrorTable:
    """Rows of predictions: id, model, version, time, served, inputs (float32 list), output, subject, entities and stamp (JSON), probabilities
    (JSON; null of a model without classes), contents (JSON; null without any).

    Every record is a row, also a repeated one with the same id; `OfflineStore.predictions` gives each prediction once.
    """
    return _predictions_table(project, "predictions", predictions_topic(project.name))


def shadows_table(project: Project) -> MirrorTable:
    """Rows as those of predictions: what shadows would have answered to the predictions of the same ids."""
    return _predictions_table(project, "shadows", shadows_topic(project.name))


def _predictions_table(project: Project, name: str, topic: str) -> MirrorTable:
    columns = (
        _column("id", pa.string()),
        _column("model", pa.string()),
        _column("version", pa.string()),
        _column("time", pa.int64()),
        _column("served", pa.int64()),
        _column("inputs", pa.list_(pa.float32())),
        _column("output", pa.float64()),
        _column("subject", pa.string()),
        TableColumn("entities", pa.string(), _entities_json),
        TableColumn("stamp", pa.string(), _stamp_json),
        TableColumn("probabilities", pa.string(), _probabilities_json),
        TableColumn("contents", pa.string(), _contents_json),
    )
    return _plain_table(project, name, topic, PredictionRecord, columns)


def _plain_table(project: Project, name: str, topic: str, kind: type[msgspec.Struct], columns: tuple[TableColumn, ...]) -> MirrorTable:
    return MirrorTable(name, topic, topic_specs(project)[topic].partitions, decoder(kind).decode, columns)


def mirror_tables(project: Project) -> list[MirrorTable]:
    """Every table that mirrors a topic: of views, of predictions, and of what shadows would have answered."""
    views = [view_table(project, view) for view in project.views.values()]
    return [*views, predictions_table(project), shadows_table(project)]


RESULTS_SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("prediction", pa.string()),
        ("model", pa.string()),
        ("version", pa.string()),
        ("subject", pa.string()),
        ("time", pa.int64()),
        ("output", pa.float64()),
        ("status", pa.string()),
        ("known", pa.int64()),
        ("outcome", pa.float64()),
        ("label", pa.string()),
        ("probabilities", pa.string()),
    ]
)
"""Columns of the table `results`: those of ResultRecord. An outcome that is a text stands in `label`; `probabilities` is JSON."""

_RESULT: dict[str, Callable[[ResultRecord], Any]] = {
    **{name: attrgetter(name) for name in RESULTS_SCHEMA.names if name != "label"},
    "outcome": lambda result: None if isinstance(result.outcome, str) else result.outcome,
    "label": lambda result: result.outcome if isinstance(result.outcome, str) else None,
    "probabilities": _probabilities_json,
}


def results_rows(results: Sequence[ResultRecord]) -> pa.RecordBatch:
    """Rows of the table `results`."""
    arrays = [pa.array(map(_RESULT[field.name], results), field.type) for field in RESULTS_SCHEMA]
    return pa.record_batch(arrays, RESULTS_SCHEMA)


def result_of_row(row: Mapping[str, Any]) -> ResultRecord:
    """The result of a row, also of one that was written before results had classes."""
    fields = {name: row[name] for name in ResultRecord.__struct_fields__ if name not in ("outcome", "probabilities")}
    return ResultRecord(**fields, outcome=outcome_of_row(row), probabilities=probabilities_of_row(row.get("probabilities")))


def outcome_of_row(row: Mapping[str, Any]) -> float | str | None:
    """The outcome of a result, from its columns `outcome` and `label`."""
    label: str | None = row.get("label")
    number: float | None = row["outcome"]
    return number if label is None else label


def probabilities_of_row(probabilities: str | None) -> dict[str, float]:
    """The probability of each class, from the column `probabilities` of a prediction or a result."""
    return {} if probabilities is None else _PROBABILITIES.decode(probabilities)


def entities_of_row(entities: str) -> dict[str, Scalar]:
    """The entities and Request values of a prediction, from its column `entities`."""
    return _ENTITIES.decode(entities)


def contents_of_row(contents: str | None) -> dict[str, str]:
    """The contents of a prediction, from its column `contents`."""
    return {} if contents is None else _CONTENTS.decode(contents)


def stamp_of_row(stamp: str) -> list[StampEntry]:
    """The fences that a prediction saw, from its column `stamp`."""
    return _STAMP.decode(stamp)
