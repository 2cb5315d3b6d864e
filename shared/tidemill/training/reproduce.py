"""Making a version again: from the archive if it still gives the same training set, else from the set that was stored with it.

What cannot be the same is named: data, code, parameters, packages, machine. Then the answers are compared, to the bit.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, TidemillError
from tidemill.models.artifact import Artifact, ModelInput, beside_artifact
from tidemill.models.declared import as_declared
from tidemill.models.engine import load_engine
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.offline.store import OfflineStore
from tidemill.training.dataset import TrainingSet, build
from tidemill.training.made_with import MadeWith, data_digest, machine, stored_made_with
from tidemill.training.stages.chosen import ChosenPipeline, as_chosen
from tidemill.training.stages.keys import described, file_digests, house_digest, packages
from tidemill.training.stages.split import CutSet, cut
from tidemill.training.version import Version, make_version

SET = "training.parquet"
COMPARED_ROWS = 2_000


class Otherwise(NamedTuple):
    """Something that is not as it was."""

    what: str
    then: str
    now: str


class Reproduced(NamedTuple):
    """`otherwise`: what is not as it was; `from_archive`: whether the training set is the archive's of today; `rows`: how many answers were
    compared; `apart`: their largest difference; `allowed`: whether all are within what parity allows."""

    version: Version
    otherwise: list[Otherwise]
    from_archive: bool
    rows: int
    apart: float
    same_file: bool
    allowed: bool

    @property
    def equal(self) -> bool:
        """Whether all answers are the same bits."""
        return self.apart == 0.0


def reproduce(project: Project, spec: str, store: OfflineStore, artifact: Artifact, note: Callable[[str], None]) -> Reproduced:
    """Makes a version again and compares it. Raises UnknownModel, ArtifactError, and what training raises."""
    manifest = artifact.manifest
    model, _ = as_declared(project, manifest)
    model = dataclasses.replace(model, engine="python" if manifest.own_pipeline else "onnx")
    recorded = stored_made_with(store.url, manifest)
    stored = stored_set(store.url, artifact)
    otherwise = _otherwise(recorded, described(model), spec)
    examples, changed = stored, None
    if recorded is not None and not recorded.own_labels:
        try:
            built = build(project, spec, model, store, recorded.until_ms, note)
            rebuilt = CutSet.of(built, cut(model.name, built, model.training.split)).examples
        except TidemillError as error:
            changed = error.message
        else:
            examples, changed = (rebuilt, None) if data_digest(rebuilt) == data_digest(stored) else (stored, difference(stored, rebuilt))
        if changed:
            otherwise.append(Otherwise("data", f"{len(stored):,} rows", f"{changed}; the stored set is used"))
    if recorded is not None and data_digest(stored) != recorded.data:
        otherwise.append(Otherwise(SET, "as recorded", "another content"))
    note(f"training again on {len(examples):,} rows")
    chosen, cuts = (recorded.chosen, recorded.cuts) if recorded else (ChosenPipeline(), [])
    again = make_version(as_chosen(model, examples.inputs, chosen), examples, manifest.created, note, cuts)
    rows = examples.matrix[:: max(1, len(examples) // COMPARED_ROWS)][:COMPARED_ROWS]
    before, after = (load_engine(made).pooled(examples.inputs).each(rows) for made in (artifact, again.artifact))
    apart = np.abs(after - before)
    return Reproduced(
        again,
        otherwise,
        recorded is not None and not recorded.own_labels and not changed,
        len(rows),
        float(apart.max()),
        again.artifact.manifest.file_sha256 == manifest.file_sha256,
        bool(np.all(apart <= manifest.parity.allowed(before))),
    )


def stored_set(offline_root: str, artifact: Artifact) -> TrainingSet:
    """The training set that was stored with a version. Raises ArtifactError."""
    try:
        table = pq.read_table(io.BytesIO(beside_artifact(offline_root, artifact.manifest, SET)))
        inputs = [_with_pool(table, _without_unknown(item)) for item in artifact.manifest.inputs]
        columns = [_numbers(table[item.name], item) for item in inputs]
        labels, texts = _labels(table["label"])
        times_ms = table["time"].cast(pa.int64()).to_numpy()
        return TrainingSet(np.column_stack(columns), labels, times_ms, table["subject"].to_pylist(), inputs, texts)
    except (pa.ArrowException, KeyError) as error:
        raise ArtifactError(f"{SET} of {artifact.manifest.model} {artifact.manifest.version} cannot be read: {error}") from error


def difference(one: TrainingSet, other: TrainingSet) -> str:
    """How two sets of a model differ, in words."""
    if len(one) != len(other):
        return f"the archive gives {len(other):,} rows now"
    if [item.categories for item in one.inputs] != [item.categories for item in other.inputs]:
        return "the archive gives other texts now"
    apart = (one.matrix != other.matrix) & ~(np.isnan(one.matrix) & np.isnan(other.matrix))
    names = [item.name for item, differs in zip(one.inputs, apart.any(axis=0), strict=True) if differs]
    labels = sum(a != b for a, b in zip(one.table()["label"].to_pylist(), other.table()["label"].to_pylist(), strict=True))
    return f"the archive gives other values now, in {int(apart.any(axis=1).sum()):,} rows ({', '.join(names) or 'no input'}), and {labels:,} other labels"


def _labels(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers; of texts their places, and the texts."""
    if not pa.types.is_string(column.type):
        return column.to_numpy(), ()
    texts = sorted(column.unique().to_pylist())
    return np.asarray(pc.index_in(column, value_set=pa.array(texts, pa.string())).to_numpy(), np.float64), tuple(texts)


def _without_unknown(item: ModelInput) -> ModelInput:
    return ModelInput(item.name, item.kind, [text for text in item.categories if text != UNKNOWN_TEXT], item.shape)


def _with_pool(table: pa.Table, item: ModelInput) -> ModelInput:
    """A content has all of the set's as its pool, as when the set was built."""
    if not item.is_content:
        return item
    return ModelInput(item.name, item.kind, sorted(table[item.name].drop_null().unique().to_pylist()), item.shape)


def _numbers(column: pa.ChunkedArray, item: ModelInput) -> np.ndarray:
    numbers = pc.index_in(column, value_set=pa.array(item.categories, pa.string())) if item.has_texts else column
    return np.asarray(numbers.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)


def _otherwise(recorded: MadeWith | None, pipeline: str, spec: str) -> list[Otherwise]:
    if recorded is None:
        return [Otherwise("record", "none: an earlier tidemill made it", "data, code and packages of then are not known")]
    now, then = packages(), recorded.packages
    found = [
        Otherwise(f"package {name}", then.get(name, "none"), now.get(name, "none"))
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]
    if recorded.machine != machine():
        found.append(Otherwise("machine", recorded.machine, machine()))
    if recorded.pipeline != pipeline:
        found.append(Otherwise("pipeline", recorded.pipeline, pipeline))
    files = file_digests(spec)
    found += [
        Otherwise(f"file {name}", recorded.project.get(name, "none")[:12], files.get(name, "none")[:12])
        for name in dict.fromkeys([*recorded.project, *files])
        if recorded.project.get(name) != files.get(name)
    ]
    if recorded.house != house_digest():
        found.append(Otherwise("tidemill", recorded.house[:12], house_digest()[:12]))
    return found
