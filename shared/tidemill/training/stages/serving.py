"""Inputs that training and serving see differently: rows of the training set beside logged predictions of the same subjects and moments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import ArtifactError, UnknownTable
from tidemill.models.artifact import ModelInput, stored_manifest
from tidemill.offline.store import OfflineStore
from tidemill.training.dataset import TrainingSet
from tidemill.training.stages.findings import CheckFinding

NEWEST_ROWS, FEWEST_PAIRS, DIFFERING = 5_000, 40, 0.05
_NEAR = 1e-5

Matrix = npt.NDArray[np.float32]


def seen_differently(store: OfflineStore, model: str, examples: TrainingSet) -> list[CheckFinding]:
    """The inputs that differ for more than 5 % of the questions that were asked of the running system too, among the newest rows of the set.

    Late and lagging events make a few differ. Raises OfflineUnavailable, TornTable.
    """
    try:
        trained, served = _pairs(store, model, examples)
    except UnknownTable:
        return []
    return list(_differing(examples.inputs, trained, served))


def _pairs(store: OfflineStore, model: str, examples: TrainingSet) -> tuple[Matrix, Matrix]:
    """The inputs of the same questions, in training and in serving. Raises UnknownTable."""
    newest = slice(max(0, len(examples) - NEWEST_ROWS), None)
    times = examples.times_ms[newest]
    asked = (pc.field("model") == model) & (pc.field("time") >= int(times.min())) & (pc.field("time") <= int(times.max()))
    rows = store.scan("predictions", ["version", "subject", "time", "inputs"], asked & pc.field("subject").is_valid())
    same = [version for version in rows["version"].unique().to_pylist() if _reads(store.url, model, version, examples.inputs)]
    rows = rows.filter(pc.is_in(rows["version"], value_set=pa.array(same, pa.string())))
    places = {(subject, time): i for i, (subject, time) in enumerate(zip(examples.subjects[newest], times.tolist(), strict=True))}
    found = [places.get(key, -1) for key in zip(rows["subject"].to_pylist(), rows["time"].to_pylist(), strict=True)]
    chosen = np.flatnonzero(np.array(found, np.int64) >= 0)
    served = np.array(rows["inputs"].take(pa.array(chosen, pa.int64())).to_pylist(), np.float32).reshape(len(chosen), len(examples.inputs))
    logged = np.stack([examples.numbers(i)[newest] for i in range(len(examples.inputs))], axis=1)
    return logged[np.array(found, np.int64)[chosen]], served


def _reads(root: str, model: str, version: str, inputs: list[ModelInput]) -> bool:
    """Whether a version reads the same inputs in the same order."""
    try:
        manifest, _ = stored_manifest(root, model, version)
    except ArtifactError:
        return False
    return [item.name for item in manifest.inputs] == [spec.name for spec in inputs]


def _differing(inputs: list[ModelInput], trained: Matrix, served: Matrix) -> Iterator[CheckFinding]:
    if len(trained) < FEWEST_PAIRS:
        return
    for i, spec in enumerate(inputs):
        if spec.is_category:  # each version numbers its texts anew
            continue
        one, two = trained[:, i], served[:, i]
        same = np.isclose(one, two, rtol=_NEAR, atol=_NEAR, equal_nan=True)
        if (share := 1 - same.mean()) > DIFFERING:
            first = int(np.argmin(same))
            yield CheckFinding(
                "warning", spec.name,
                f"{spec.name!r} was another when it was served, in {share:.0%} of {len(one):,} questions that were asked of both: {one[first]:g} in training, {two[first]:g} served",
                "ask before the event is published (docs/models.md); if its values come late, see `tidemill status` for what lags",
            )  # fmt: skip
