"""Labels of one's own: a file with one row for each question, instead of events that announce it and bring its outcome."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tidemill.archive.columns import ARROW
from tidemill.archive.moments import moments_of
from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.timestamps import check_moment
from tidemill.training.spine import Spine, no_examples, numbered

TIME, LABEL, SUBJECT = "time", "label", "subject"
_MS = pa.timestamp("ms", tz="UTC")


def read_labels(model: Model, path: Path, until_ms: int) -> Spine:
    """The rows of a Parquet or CSV file before `until_ms`, in order of time.

    Columns: `time` (a timestamp, without a zone in UTC; epoch ms; or RFC 3339 text), `label` (a number or a truth value; a text where the outcome
    is one), the model's
    `request_fields` by name, with the types of the announcing event, and perhaps `subject`. Raises TidemillError, which names the column.
    """
    table = _read(model, path)
    missing = [name for name in (TIME, LABEL, *model.request_fields) if name not in table.column_names]
    if missing:
        raise TidemillError(
            f"{path} has no column {', '.join(missing)}", mend=f"give it the columns {', '.join((TIME, LABEL, *model.request_fields))}"
        )
    times_ms, labels = _times(path, table[TIME], model.on.earliest_ms), _cast(path, LABEL, table[LABEL], _label_type(model))
    for name, column in ((TIME, times_ms), (LABEL, labels)):
        if column.null_count:
            raise _wrong(
                path,
                name,
                f"row {pc.index(column.is_null(), True).as_py() + 1} has no usable value: {_told(name, _first(table[name], column), model.on.earliest_ms)}",
            )
    given = {name: _cast(path, name, table[name], ARROW[model.on.base_type(name)]) for name in model.request_fields}
    subjects = table[SUBJECT].cast(pa.string()) if SUBJECT in table.column_names else pa.array(map(str, range(1, len(table) + 1)))
    texts = dict[str, int]()
    whole = Spine(
        _one(subjects),
        times_ms.to_numpy(),
        numbered(labels, texts) if model.outcome.is_text else labels.to_numpy(),
        {name: _one(column) for name, column in given.items()},
        np.full(len(table), -1),
        tuple(texts),
    )
    order = np.argsort(whole.times_ms, kind="stable")
    rows = whole.take(order[whole.times_ms[order] < until_ms])
    if not len(rows):
        raise no_examples(model, f"{path} has no row before the given moment")
    return rows


def _read(model: Model, path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            types = {name: ARROW[model.on.base_type(name)] for name in model.request_fields} | {SUBJECT: pa.string()}
            types |= {LABEL: pa.string()} if model.outcome.is_text else {}
            return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True))
    except (OSError, pa.ArrowException) as error:
        raise TidemillError(
            f"{path} cannot be read: {error}", mend="give a Parquet or CSV file; the columns of a CSV file are named in its first line"
        ) from error
    raise TidemillError(f"{path} is neither .parquet nor .csv", mend="give a file of one of these kinds")


def _label_type(model: Model) -> pa.DataType:
    return pa.string() if model.outcome.is_text else pa.float64()


def _times(path: Path, column: pa.ChunkedArray, earliest_ms: int) -> pa.ChunkedArray:
    """Epoch ms; null where a value is no moment that anybody can mean."""
    if pa.types.is_timestamp(column.type):
        zoned = column if column.type.tz else pc.assume_timezone(column, "UTC")
        column = zoned.cast(_MS, safe=False).cast(pa.int64())
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        return moments_of(column.cast(pa.int64()) if pa.types.is_integer(column.type) else column, earliest_ms)
    raise _wrong(path, TIME, f"its type is {column.type}")


def _cast(path: Path, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise _wrong(path, name, str(error)) from error


def _wrong(path: Path, name: str, why: str) -> TidemillError:
    return TidemillError(
        f"{path}: column {name!r} cannot be used: {why}", mend="correct the column; times are timestamps, epoch ms or RFC 3339 with a zone"
    )


def _told(name: str, value: object, earliest_ms: int) -> str:
    """A value that cannot be used; of a time, why nobody can mean it."""
    if name != TIME or not isinstance(value, int | datetime):
        return str(value)
    if isinstance(value, datetime):
        value = round(value.replace(tzinfo=value.tzinfo or UTC).timestamp() * 1000)
    try:
        return str(check_moment(value, earliest_ms))
    except ValueError as error:
        return str(error)


def _first(column: pa.ChunkedArray, converted: pa.ChunkedArray) -> object:
    return column.filter(converted.is_null())[0].as_py()


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
