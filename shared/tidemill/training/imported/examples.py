"""Rows with the answers that must be served for them: the proof that a contract says what the file's author meant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import TidemillError
from tidemill.models.inputs import within_float32
from tidemill.training.imported.contract import Contract
from tidemill.training.imported.elements import Elements
from tidemill.training.imported.labels import text_numbers

EXPECTED = "expected"


class ExpectedRows(NamedTuple):
    """Rows of the matrix, and the answer for each: a number, or one for each class in the order of the contract."""

    rows: npt.NDArray[np.float32]
    answers: npt.NDArray[np.float64]


def read_examples(path: Path, contract: Contract, elements: Elements) -> ExpectedRows:
    """Reads a Parquet file with a column for each input that the file takes and `expected`, or a JSON file with a list of such rows. A tensor is
    nested lists or base64, as in a request. Raises TidemillError."""
    table = _table(path)
    if lacking := [name for name in (*contract.taken, EXPECTED) if name not in table.column_names]:
        raise TidemillError(
            f"{path} has no column {lacking[0]!r}",
            mend=f"it needs the inputs by name, {', '.join(contract.taken[:8])}, and {EXPECTED!r}",
        )
    if not len(table):
        raise TidemillError(f"{path} has no rows", mend="give rows with what must be served for them")
    order = elements.order
    matrix = np.full((len(table), len(order)), math.nan)
    for name in contract.taken:
        if name in elements.names:
            matrix[:, [order.index(one) for one in elements.names[name]]] = elements.rows(name, table[name].to_pylist())
        else:
            matrix[:, order.index(name)] = _numbers(path, name, table[name].to_pylist(), contract)
    return ExpectedRows(within_float32(matrix), _expected(path, table[EXPECTED].to_pylist(), len(contract.classes)))


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix != ".json":
            return pq.read_table(path)
        return pa.Table.from_pylist(msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]]))
    except (OSError, pa.ArrowException, msgspec.DecodeError) as error:
        raise TidemillError(
            f"examples {path} cannot be read: {' '.join(str(error).split())[:200]}",
            mend="name a Parquet file, or a JSON file with a list of rows",
        ) from error


def _numbers(path: Path, name: str, values: list[Any], contract: Contract) -> Any:
    try:
        if name not in contract.categories:
            return np.array([math.nan if value is None else float(value) for value in values])
        if wrong := [value for value in values if not isinstance(value, str | None)]:
            raise TypeError(f"{wrong[0]!r} is no text")
        texts = text_numbers(["" if value is None else value for value in values], contract.texts(name))
        return np.where([value is None for value in values], math.nan, texts)
    except (TypeError, ValueError) as error:
        raise TidemillError(f"{path}: column {name!r}: {error}", mend="write numbers, or texts for a category") from error


def _expected(path: Path, values: list[Any], classes: int) -> npt.NDArray[np.float64]:
    try:
        found = np.array(values, np.float64)
        if found.shape == ((len(values), classes) if classes else (len(values),)) and np.isfinite(found).all():
            return found
        reason = f"shape {list(found.shape)}, or not finite"
    except (TypeError, ValueError) as error:
        reason = str(error)
    wanted = f"a list of {classes} numbers, in the order of the classes" if classes else "one number"
    raise TidemillError(f"{path}: {EXPECTED!r} cannot be used: {reason}", mend=f"write {wanted} for each row")
