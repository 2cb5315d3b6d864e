"""What the output of a stage depends on beside its inputs: the code, the packages, and what a pipeline says of itself."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from tidemill.declarations import Model
from tidemill.training.stages.files import digest_of

_PACKAGES = (
    "numpy", "pandas", "pyarrow", "scipy", "joblib", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "lightgbm", "xgboost", "xgboost-cpu",
    "catboost", "onnxmltools", "optuna", "river",
)  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_HOME = Path(__file__).parents[2]


def packages() -> dict[str, str]:
    """The versions of what computes, by name: Python, and the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_digest(spec: str) -> str:
    """The digest of tidemill's code and of the project's files. `spec`: its folder, file or module."""
    return _digest([*(("project", path) for path in project_files(spec)), *_house_files()])


def house_digest() -> str:
    """The digest of tidemill's code alone."""
    return _digest(_house_files())


def _house_files() -> list[tuple[str, Path]]:
    return [("tidemill", path) for path in sorted(_HOME.rglob("*.py"))]


def _digest(files: list[tuple[str, Path]]) -> str:
    found = hashlib.sha256()
    for part, path in files:
        found.update(f"{part} {path.name}\n".encode() + _content(path, path.stat().st_mtime_ns))
    return found.hexdigest()


@cache
def _content(path: Path, _changed: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def project_files(spec: str) -> list[Path]:
    """The project's file, and the files and packages beside it that it imports anywhere, or that these import."""
    waiting, reached = [_project_file(spec)], set[Path]()
    while waiting:
        file = waiting.pop()
        if file.is_file() and file not in reached:
            reached.add(file)
            for name in _imported(file):
                waiting += [file.parent / f"{name}.py", *(file.parent / name).glob("**/*.py")]
    return sorted(reached)


def file_digests(spec: str) -> dict[str, str]:
    """SHA-256 of each of the project's files, by its path below the project's folder."""
    folder = _project_file(spec).parent
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in project_files(spec)}


def _project_file(spec: str) -> Path:
    path = Path(spec)
    if not path.exists():
        found = importlib.util.find_spec(spec)
        path = Path(found.origin) if found and found.origin else path
    return path / "project.py" if path.is_dir() else path


def _imported(file: Path) -> set[str]:
    """Every part of every name that a file imports: more than its modules, never fewer. Nothing of a file that is no Python."""
    try:
        nodes = [*ast.walk(ast.parse(file.read_bytes()))]
    except SyntaxError:
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {part for name in names for part in name.split(".")}


def described(model: Model) -> str:
    """What a model's pipeline says of itself: its classes and their parameters, without addresses. Nothing of one that cannot be made."""
    try:
        from tidemill.training.one_by_one import made_pipeline  # noqa: PLC0415 - scikit-learn, which who compares code does not need

        pipeline = made_pipeline(model)
    except Exception:  # the project's own code; it is told where the pipeline is fitted
        return ""
    parameters = pipeline.get_params(deep=True) if hasattr(pipeline, "get_params") else {}
    said = ", ".join(f"{name}={_shown(value)}" for name, value in sorted(parameters.items()))
    return _ADDRESS.sub("", f"{type(pipeline).__module__}.{type(pipeline).__qualname__}({said})")


def _shown(value: object, depth: int = 8) -> str:
    """Its repr; of what has none, as river's own `SelectType(float, int)`, its class and its parts."""
    try:
        return repr(value)
    except Exception:  # anybody's code
        parts = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        said = ", ".join(f"{name}={_shown(part, depth - 1)}" for name, part in parts.items()) if depth else ""
        return f"{type(value).__qualname__}({said})"


def key_of(stage: str, inputs: dict[str, str], parameters: dict[str, Any], code: str, found: dict[str, str]) -> str:
    """The digest of all that a stage's output depends on."""
    return digest_of(msgspec.json.encode([stage, inputs, parameters, code, found], order="sorted", enc_hook=repr))
