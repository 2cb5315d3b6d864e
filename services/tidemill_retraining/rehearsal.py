"""A version answers for the first time, in a process of its own: python -m tidemill_retraining.rehearsal OFFLINE MODEL VERSION CHAMPION

What hangs, takes all memory or answers NaN does so here, and not where requests are answered. It prints one line of JSON.
"""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np

from tidemill.errors import ArtifactError
from tidemill.models.artifact import Artifact, stored_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import vector_of
from tidemill_retraining.told import Rehearsed

RUNS = 300


def rehearse(offline_root: str, model: str, version: str, champion: str) -> Rehearsed:
    """Loads a version, which answers its golden rows, as inference would; then it is timed beside the champion."""
    try:
        took = _timed(stored_artifact(offline_root, model, version))
    except ArtifactError as error:
        return Rehearsed(wrong=error.message)
    try:
        return Rehearsed(took, _timed(stored_artifact(offline_root, model, champion)))
    except ArtifactError as error:
        return Rehearsed(took, unlike=error.message)


def _timed(artifact: Artifact) -> float:
    """The median time of an answer in ms. Raises ArtifactError when an answer is no number, or not the golden one."""
    manifest, engine = artifact.manifest, load_engine(artifact)
    rows = [(vector_of(row.inputs), row.contents or ()) for row in manifest.golden]
    rows = rows or [(vector_of([0.0] * len(manifest.inputs)), [None for item in manifest.inputs if item.is_content])]
    times = []
    for place in range(RUNS):
        began = time.perf_counter()
        answer = engine.answer(*rows[place % len(rows)])
        times.append(time.perf_counter() - began)
        if not answer.is_finite:
            raise ArtifactError(f"{manifest.model} {manifest.version} answers NaN to row {place % len(rows)} of its golden rows")
    return float(np.median(times)) * 1000


if __name__ == "__main__":
    print(msgspec.json.encode(rehearse(*sys.argv[1:5])).decode())
