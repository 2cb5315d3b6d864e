"""Training sets in files, as `tidemill train-set` writes them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.verify.checks import columns_of

_MEND = "give the .parquet or .csv file that `tidemill train-set` wrote"
_TYPES = {"subject": pa.string(), "time": pa.timestamp("ms", "UTC"), "label": pa.float64()}


def training_file(path: Path, model: Model) -> pa.Table:
    """The rows of a model's training set. Raises TidemillError for a file that is none, or that is not there."""
    if not path.exists():
        raise TidemillError(f"{path} is not there", mend=_MEND)
    try:
        table = _of_csv(path, model) if path.suffix == ".csv" else pq.read_table(path)
        types = _types(model)
        for name in filter(types.__contains__, table.column_names):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(types[name]))
            if table[name].null_count:
                raise pa.ArrowInvalid(f"{name} is null in {table[name].null_count:,} rows")
    except (OSError, pa.ArrowException) as error:
        raise TidemillError(f"{path} cannot be read as a training set: {error}", mend=_MEND) from error
    return table


def _types(model: Model) -> dict[str, pa.DataType]:
    """The types of the columns that every set has."""
    return _TYPES | ({"label": pa.string()} if model.outcome.source.types.get(model.outcome.value) is str else {})


def _of_csv(path: Path, model: Model) -> pa.Table:
    """A column has the type of its feature or request, also where no row has a value; a text is one, whatever it looks like."""
    with pa.csv.open_csv(path) as file:
        names = file.schema.names
    types = _types(model) | {request.name: pa.string() if request.type is str else pa.float64() for request in model.requests}
    for view in model.views:
        texts = {feature.name for feature in view.served if feature.aggregation.gives is str}
        types |= {name: pa.string() if feature in texts else pa.float64() for feature, name in columns_of(view, names).items()}
    options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pa.csv.read_csv(path, convert_options=options)
