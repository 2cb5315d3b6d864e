"""What a version was made with, beside its training set: the moment it knew, packages, code and the pipeline's parameters."""

from __future__ import annotations

import hashlib
import platform

import msgspec
import numpy as np

from tidemill.declarations import Model
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Manifest, beside_artifact
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import TrainingSet
from tidemill.training.stages.chosen import ChosenPipeline
from tidemill.training.stages.keys import described, file_digests, house_digest, packages
from tidemill.training.stages.split import CutSet

FILE = "made_with.json"


class MadeWith(msgspec.Struct, frozen=True):
    """`until_ms`: what became known before it was used; `own_labels`: whether labels came from a file; `machine`: processor and system;
    `packages`: versions by name, Python among them; `project`: SHA-256 of each Python file of the project; `house`: of tidemill's own code;
    `pipeline`: what it says of itself as declared, with all parameters, seeds among them; `data`: SHA-256 of the training set in the order of
    its cuts; `cuts`: see `fit`; `chosen`: what a choice of inputs and a search gave."""

    until_ms: int
    own_labels: bool
    machine: str
    packages: dict[str, str]
    project: dict[str, str]
    house: str
    pipeline: str
    data: str
    cuts: list[int]
    chosen: ChosenPipeline


def made_with(model: Model, spec: str, rows: CutSet, until_ms: int, chosen: ChosenPipeline, *, own_labels: bool) -> MadeWith:
    """What a version is made with now. `model`: as declared; `spec`: the project's folder, file or module."""
    return MadeWith(
        until_ms,
        own_labels,
        machine(),
        packages(),
        file_digests(spec),
        house_digest(),
        described(model),
        data_digest(rows.examples),
        list(rows.cuts),
        chosen,
    )


def stored_made_with(offline_root: str, manifest: Manifest) -> MadeWith | None:
    """What a stored version was made with; None when an earlier tidemill made it, or the file cannot be read by this one."""
    try:
        return msgspec.json.decode(beside_artifact(offline_root, manifest, FILE), type=MadeWith)
    except (ArtifactError, msgspec.DecodeError):
        return None


def machine() -> str:
    """Processor and system: the last bits of a number may depend on them."""
    return f"{platform.machine()} {platform.system()}"


def data_digest(examples: TrainingSet) -> str:
    """SHA-256 of a training set: what a pipeline gets, and the rows' times and subjects."""
    found = hashlib.sha256()
    matrix = np.where(np.isnan(examples.matrix), np.float32(np.nan), examples.matrix)  # NaN has many bits
    for part in (matrix, examples.times_ms.astype(np.int64)):
        found.update(np.ascontiguousarray(part).tobytes())
    labels = examples.labels.tolist()
    found.update(msgspec.json.encode([examples.texts[int(label)] for label in labels] if examples.texts else labels))
    texts = [(spec.name, spec.kind, [text for text in spec.categories if text != UNKNOWN_TEXT]) for spec in examples.inputs]
    found.update(msgspec.json.encode([examples.subjects, texts]))
    return found.hexdigest()
