"""What a version was made with, beside its training set: the moment it knew, packages, code and the pipeline's parameters."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np

from tidemill.declarations import Model
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Manifest, beside_artifact
from tidemill.training.dataset import TrainingSet

FILE = "made_with.json"
PACKAGES = (
    "numpy", "scipy", "pandas", "pyarrow", "scikit-learn", "joblib", "skl2onnx", "onnx", "onnxruntime", "onnxmltools", "lightgbm", "xgboost",
    "xgboost-cpu", "catboost",
)  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_HOUSE = Path(__file__).parents[1]


class MadeWith(msgspec.Struct, frozen=True):
    """`until_ms`: what became known before it was used; `own_labels`: whether labels came from a file; `machine`: processor and system;
    `packages`: versions by name, Python among them; `project`: SHA-256 of each Python file of the project; `house`: of tidemill's own code;
    `pipeline`: what it says of itself, with all parameters, seeds among them; `data`: SHA-256 of the training set."""

    until_ms: int
    own_labels: bool
    machine: str
    packages: dict[str, str]
    project: dict[str, str]
    house: str
    pipeline: str
    data: str


def made_with(model: Model, spec: str, examples: TrainingSet, until_ms: int, *, own_labels: bool) -> MadeWith:
    """What a version is made with now. `spec`: the project's folder, file or module."""
    return MadeWith(
        until_ms, own_labels, machine(), packages(), project_files(spec), house_digest(), described(model), data_digest(examples)
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


def packages() -> dict[str, str]:
    """The versions of what computes, by name."""
    return {"python": platform.python_version()} | dict(_installed())


def _installed() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def project_files(spec: str) -> dict[str, str]:
    """SHA-256 of the Python files beside the project's, by name."""
    path = Path(spec)
    if not path.exists():
        found = importlib.util.find_spec(spec)
        path = Path(found.origin) if found and found.origin else path
    folder = path if path.is_dir() else path.parent
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.py"))} if path.exists() else {}


def house_digest() -> str:
    """SHA-256 over tidemill's own code."""
    found = hashlib.sha256()
    for file in sorted(_HOUSE.rglob("*.py")):
        found.update(f"{file.relative_to(_HOUSE).as_posix()}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def described(model: Model) -> str:
    """What a model's pipeline says of itself: its classes and their parameters, without addresses."""
    pipeline = model.pipeline()
    parameters = pipeline.get_params(deep=True) if hasattr(pipeline, "get_params") else {}
    said = ", ".join(f"{name}={value!r}" for name, value in sorted(parameters.items()))
    return _ADDRESS.sub("", f"{type(pipeline).__module__}.{type(pipeline).__qualname__}({said})")


def data_digest(examples: TrainingSet) -> str:
    """SHA-256 of a training set: what a pipeline gets, and the rows' times and subjects."""
    found = hashlib.sha256()
    matrix = np.where(np.isnan(examples.matrix), np.float32(np.nan), examples.matrix)  # NaN has many bits
    for part in (matrix, examples.times_ms.astype(np.int64)):
        found.update(np.ascontiguousarray(part).tobytes())
    labels = examples.labels.tolist()
    found.update(msgspec.json.encode([examples.texts[int(label)] for label in labels] if examples.texts else labels))
    texts = [(spec.name, spec.kind, [text for text in spec.categories if not text.startswith("\uffff")]) for spec in examples.inputs]
    found.update(msgspec.json.encode([examples.subjects, texts]))
    return found.hexdigest()
