"""A version of what a line has learned: python -m tidemill_retraining.snapshot MODEL LINE CHAMPION

It stores the newest snapshot as a version, and rehearses it beside the champion. The same snapshot is the same version, byte for byte. It prints one line of JSON.
"""

from __future__ import annotations

import hashlib
import pickle
import sys

import msgspec
import numpy as np
from msgspec.structs import replace

from tidemill.attribution.stored import FILE as EXPLANATION
from tidemill.declarations.project import load_project
from tidemill.errors import ArtifactError, NoSuchVersion
from tidemill.models.answers import ModelAnswer, answer_of
from tidemill.models.artifact import (
    Artifact,
    GoldenRow,
    Manifest,
    beside_artifact,
    save_artifact,
    stored_artifact,
    stored_manifest,
)
from tidemill.models.incremental import Incremental
from tidemill.models.inputs import vector_of
from tidemill.models.learned import Learned
from tidemill.models.line import LearnedOnline
from tidemill.runtime.settings import OfflineSettings, ProjectSettings
from tidemill.stats.calibration import calibrated
from tidemill.stats.histograms import count, places_ruler, reference
from tidemill.training.fitting import score
from tidemill.training.made_with import FILE as MADE_WITH
from tidemill.training.pickled import modules_of, packages_of
from tidemill_retraining.learner import kept_snapshot
from tidemill_retraining.rehearsal import rehearse
from tidemill_retraining.told import MadeSnapshot, Rehearsed

_BESIDE = (EXPLANATION, MADE_WITH)
"""What holds of the whole line."""


def version_name(found: Learned) -> str:
    """Names of a line sort as it learns."""
    return f"{found.line}-{found.learned:08d}"


def make(root: str, model: str, line: str, champion: str) -> MadeSnapshot:
    """Stores and rehearses the newest snapshot. Raises ArtifactError when the line's trained version cannot be read."""
    trained = stored_artifact(root, model, line)
    found = kept_snapshot(root, trained.manifest)
    if found is None or not found.learned:
        return MadeSnapshot("", Rehearsed(wrong="there is no snapshot"))
    name = version_name(found)
    try:
        stored_manifest(root, model, name)
    except NoSuchVersion:
        try:
            store(root, trained, found)
        except ArtifactError as error:
            return MadeSnapshot("", Rehearsed(wrong=error.message))
    return MadeSnapshot(name, rehearse(root, model, name, champion))


def store(root: str, trained: Artifact, found: Learned) -> None:
    """Stores a snapshot as a version. Raises ArtifactError when it cannot be loaded, or answers a golden row with NaN."""
    beside = {}
    for name in _BESIDE:
        try:
            beside[name] = beside_artifact(root, trained.manifest, name)
        except ArtifactError:
            continue  # the trained version has none
    save_artifact(root, manifest_of(trained.manifest, found), found.pipeline, beside)


def manifest_of(trained: Manifest, found: Learned) -> Manifest:
    """The manifest of a snapshot: that of its line, with what is of now. Raises ArtifactError."""
    own = trained.own_pipeline
    assert own is not None, "only a pipeline that serves itself goes on learning"
    own = replace(
        own, pickle_sha256=hashlib.sha256(found.pipeline).hexdigest(), packages=packages_of(modules_of(found.pipeline), frame=False)
    )
    made = replace(
        trained, version=version_name(found), created=found.known, engine=own, rows=trained.rows + found.learned, golden=[],
        online=LearnedOnline(found.line, found.learned, found.lost, found.applied),
    )  # fmt: skip
    pipeline: Incremental = pickle.loads(found.pipeline)  # noqa: S301 - this process is there for it; the rehearsal asks a worker for the same bits
    golden = [_golden(pipeline, made, row) for row in trained.golden]
    if wrong := [row for row in golden if not np.isfinite(row.output)]:
        raise ArtifactError(
            f"{made.version} answers NaN to {len(wrong)} of its golden rows", mend="see what the pipeline does with such rows"
        )
    return _measured(replace(made, golden=golden), found)


def _golden(pipeline: Incremental, made: Manifest, row: GoldenRow) -> GoldenRow:
    rows = vector_of(row.inputs).reshape(1, -1)
    numbers = np.asarray(pipeline.predict(rows) if made.output == "value" else pipeline.predict_proba(rows), np.float32).reshape(-1)
    answer = answer_of(made.class_names, numbers.tolist()) if made.class_names else ModelAnswer(float(numbers[-1]))
    return GoldenRow(row.inputs, answer.output, list(answer.probabilities.values()) or msgspec.UNSET)


def _measured(made: Manifest, found: Learned) -> Manifest:
    """With what was measured on the newest outcomes, each answered just before it was learned."""
    labels = np.array([one.label for one in found.tail], np.float64)
    answers = np.array([one.answer for one in found.tail], np.float64)
    several, probability = made.output == "probabilities", made.output == "probability"
    output = answers if several else answers[:, -1]
    seen = count(places_ruler(len(made.class_names)), output.argmax(axis=1).astype(np.float64)) if several else reference(output)
    made = replace(made, reference={**made.reference, "prediction": seen})
    if len(np.unique(labels)) < 2:
        return made  # of one class alone nothing can be measured
    by_class = {name: (labels == i, output[:, i]) for i, name in enumerate(made.class_names)} if several else {"outcome": (labels, output)}
    metrics = {**score(labels, output.astype(np.float32), probability=probability), "examples": float(len(labels))}
    calibration = (
        {}
        if made.output == "value"
        else {name: calibrated(np.asarray(came, np.float64), given) for name, (came, given) in by_class.items()}
    )
    return replace(made, metrics=metrics, calibration=calibration)


def main(model: str, line: str, champion: str) -> None:
    """Make a version, and say what became of it."""
    load_project(ProjectSettings.load().project)
    print(msgspec.json.encode(make(OfflineSettings.load().root, model, line, champion)).decode())


if __name__ == "__main__":
    main(*sys.argv[1:4])
