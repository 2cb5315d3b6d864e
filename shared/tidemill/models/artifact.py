"""Model artifacts: a folder `models/<model>/<version>/` of the offline store with `manifest.json` and `model.onnx`, or `model.pickle`.

The manifest is written last. The deployment has the SHA-256 of the manifest, and the manifest has that of the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from pyarrow import fs

from tidemill.declarations import Model, Request, Selection, Tensor, Words
from tidemill.declarations.models import FeatureInput, InputPlan, RequestInput
from tidemill.errors import ArtifactError, DeclarationError, NoSuchVersion, anew
from tidemill.kernel.view import ViewKernel
from tidemill.models.files import exists, read_file, store_of, write_file
from tidemill.models.line import LearnedOnline
from tidemill.stats.calibration import Calibrated
from tidemill.stats.histograms import Histogram

Output = Literal["probability", "value", "probabilities"]
"""The output of a model: a classifier's probability of the true class, a regressor's value, or the probability of each of several classes."""

_LAST_DIGITS = 1e-6  # eight steps of float32
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FOLDER = re.compile(r"models/[A-Za-z0-9_]+/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ModelInput(msgspec.Struct, frozen=True):
    """One column of the model's matrix. `kind`: a number or a text of the online store, a number or a text of the request; `categories`: the
    texts seen in training; the number of a text is its place in this list. Or what the model takes whole beside the matrix (`words`, `tensor`): the column
    has a number that stands for it; `shape`: of a tensor. In a training set its `categories` are the pool of all contents, which no manifest keeps."""

    name: str
    kind: Literal["feature", "text", "number", "category", "words", "tensor"]
    categories: list[str] = []
    shape: list[int] | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_content(self) -> bool:
        """Whether the model takes it whole."""
        return self.kind in ("words", "tensor")

    @property
    def lengths(self) -> list[int]:
        """The shape of a tensor; none of another input."""
        return [] if isinstance(self.shape, msgspec.UnsetType) else self.shape

    @property
    def is_category(self) -> bool:
        """Whether it is a text, given to the model as a number."""
        return self.kind in ("text", "category")

    @property
    def has_texts(self) -> bool:
        """Whether, in a training set, its numbers are places among its `categories`."""
        return self.is_category or self.is_content

    @property
    def is_feature(self) -> bool:
        """Whether it comes from the online store."""
        return self.kind in ("feature", "text")


class Parity(msgspec.Struct, frozen=True):
    """How ONNX compares with scikit-learn. `max_abs_diff`: the largest difference on the held-out rows that do not lie on a threshold;
    `rows`: how many were held out; `compared`: those and the rows that tidemill made; `on_threshold`: rows that lie on a threshold, fell on
    its other side, and were borne. `center` and `scale` of the target, by which a difference is judged: see `allowed`."""

    max_abs_diff: float
    rows: int
    tolerance: float
    center: float = 0.0
    scale: float = 1.0
    compared: int = 0
    on_threshold: int = 0

    def allowed(self, answer: Any) -> Any:
        """The difference allowed for an answer, or for each of an array: the tolerance of the scale, or of the answer's distance from the
        centre if that is larger, and the last digits that float32 has for the answer."""
        return self.tolerance * np.maximum(self.scale, np.abs(answer - self.center)) + _LAST_DIGITS * np.abs(answer)


class GoldenRow(msgspec.Struct, frozen=True):
    """The inputs of a row (None: NaN), and the output of the ONNX model for it when the model was made; of several classes the largest
    probability, and `probabilities` of all in order. `contents`: of the inputs that the model takes whole, in order (None: a missing text)."""

    inputs: list[float | None]
    output: float
    probabilities: list[float] | msgspec.UnsetType = msgspec.UNSET
    contents: list[str | None] | msgspec.UnsetType = msgspec.UNSET


class PythonEngine(msgspec.Struct, frozen=True, tag="python", tag_field="kind"):
    """A pipeline that is served by itself, in a worker. `pickle_sha256`: of `model.pickle`; `python`: the version that wrote it, such as 3.11;
    `packages`: the versions of those that the pickle names, by name; `frame`: whether the pipeline gets a data frame; `module`: under which name
    it knows the project's module ("": it needs none)."""

    pickle_sha256: str
    python: str
    packages: dict[str, str]
    frame: bool
    module: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a model version that is not in its ONNX file. Times are epoch ms.

    `definitions`: fingerprint of each view that the model reads (`ViewKernel.definition`). `reference`: distribution of each input and of
    "prediction" on the held-out rows (an older version: of each input on all rows); of several classes "prediction" is the place of the answered one in `classes`, which are in the order of the
    model's probabilities (unset without several). `golden`: rows that are run again before the model serves. `feature_importance`: the share of
    each input in the absolute contributions to the answers to held-out rows; `explanation_sha256`: of the file that explains answers (unset without it).
    `calibration`: of the held-out rows, of "outcome" or of each class; empty for a value, and in an older version.
    `engine`: of a version that is served by its own pipeline (unset: by ONNX); then `onnx_sha256` is "". `online`: of one that goes on learning (unset without).
    """

    model: str
    version: str
    created: int
    inputs: list[ModelInput]
    output: Output
    definitions: dict[str, str]
    trained_from: int
    trained_until: int
    rows: int
    metrics: dict[str, float]
    parity: Parity
    reference: dict[str, Histogram]
    onnx_sha256: str
    golden: list[GoldenRow] = []
    feature_importance: dict[str, float] = {}
    classes: list[str] | msgspec.UnsetType = msgspec.UNSET
    explanation_sha256: str | msgspec.UnsetType = msgspec.UNSET
    calibration: dict[str, Calibrated] = {}
    engine: PythonEngine | msgspec.UnsetType = msgspec.UNSET
    online: LearnedOnline | msgspec.UnsetType = msgspec.UNSET

    @property
    def learning(self) -> LearnedOnline | None:
        """What it has learned since its line was trained; None of a version that does not go on learning."""
        return None if isinstance(self.online, msgspec.UnsetType) else self.online

    @property
    def own_pipeline(self) -> PythonEngine | None:
        """How it is served by its own pipeline; None of a version that ONNX serves."""
        return None if isinstance(self.engine, msgspec.UnsetType) else self.engine

    @property
    def file_name(self) -> str:
        """The file of the model beside the manifest."""
        return "model.pickle" if self.own_pipeline else "model.onnx"

    @property
    def file_sha256(self) -> str:
        """The SHA-256 of that file."""
        return self.own_pipeline.pickle_sha256 if self.own_pipeline else self.onnx_sha256

    @property
    def class_names(self) -> list[str]:
        """The classes of a model of several, in the order of its probabilities; none for another model."""
        return [] if isinstance(self.classes, msgspec.UnsetType) else self.classes

    @property
    def categories(self) -> dict[str, list[str]]:
        """The known values of each category, by the name of its input."""
        return {item.name: item.categories for item in self.inputs if item.is_category}


class Artifact(NamedTuple):
    """A stored model version. `file`: the ONNX file, or the pickle of one that is served by its own pipeline."""

    manifest: Manifest
    file: bytes

    @property
    def onnx(self) -> bytes:
        """The ONNX file. Raises ArtifactError when its own pipeline serves it."""
        if self.manifest.own_pipeline:
            raise ArtifactError(
                f"{self.manifest.model} {self.manifest.version} has no ONNX file: its own pipeline serves it", mend="use a version with one"
            )
        return self.file


def inputs_of(plan: InputPlan, categories: Mapping[str, list[str]]) -> list[ModelInput]:
    """The manifest's entries for the inputs of a model. `categories`: the known values of each category, by the name of its input."""
    return [ModelInput(column.name, column.kind, categories.get(column.name, []), _shape(column)) for column in plan]


def without_pools(inputs: Sequence[ModelInput]) -> list[ModelInput]:
    """The inputs of a training set as a manifest has them."""
    return [replace(item, categories=[]) if item.is_content else item for item in inputs]


def _shape(column: FeatureInput | RequestInput) -> list[int] | msgspec.UnsetType:
    if isinstance(column, RequestInput) and isinstance(column.request, Tensor):
        return list(column.request.shape)
    return msgspec.UNSET


def folder_of(model: str, version: str) -> str:
    """The folder of a version below the offline store."""
    return f"models/{model}/{version}"


def save_artifact(offline_root: str, manifest: Manifest, file: bytes, beside: Mapping[str, bytes] | None = None) -> tuple[str, str]:
    """Writes a model version and returns its folder below the offline store and the SHA-256 of manifest.json.

    `offline_root`: a folder or an object-store URL; `beside`: further files, by name. Raises ArtifactError when the version exists with
    other content.
    """
    if not _VERSION.fullmatch(manifest.version):
        raise ArtifactError(f"{manifest.version!r} is not a usable version", mend="use letters, digits, dots, dashes and underscores")
    if hashlib.sha256(file).hexdigest() != manifest.file_sha256:
        raise ArtifactError(
            f"the manifest of {manifest.model} {manifest.version} is for another {manifest.file_name}",
            mend="give it the digest of the file",
        )
    folder = folder_of(manifest.model, manifest.version)
    content = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    digest = hashlib.sha256(content).hexdigest()
    store = store_of(offline_root)
    found = read_file(store, f"{folder}/manifest.json") if exists(store, f"{folder}/manifest.json") else content
    if found != content:
        raise ArtifactError(f"{folder} exists with another content", mend="give each version its own name")
    store.create_dir(folder, recursive=True)
    for name, data in {manifest.file_name: file, **(beside or {})}.items():
        write_file(store, f"{folder}/{name}", data)
    write_file(store, f"{folder}/manifest.json", content)
    return folder, digest


def load_artifact(offline_root: str, artifact: str, sha256: str) -> Artifact:
    """Reads a model version. Nothing of it is run. Raises ArtifactError when it is missing or damaged, or does not match the digest."""
    if not _FOLDER.fullmatch(artifact):
        raise ArtifactError(f"{artifact!r} is not a folder of a model", mend="deploy what save_artifact returned")
    away = "check TIDEMILL_OFFLINE, or deploy another version: tidemill models deploy"
    content = _read_or(offline_root, f"{artifact}/manifest.json", f"{artifact} cannot be read", away)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(
            f"{artifact}/manifest.json is not the one that was deployed", mend="restore the file, or deploy the model again"
        )
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{artifact}/manifest.json: {error}", mend="make the version again with this tidemill") from error
    file = _read_or(offline_root, f"{artifact}/{manifest.file_name}", f"{artifact} cannot be read", away)
    if hashlib.sha256(file).hexdigest() != manifest.file_sha256:
        raise ArtifactError(
            f"{artifact}/{manifest.file_name} is not the one that was trained", mend="restore the file, or deploy the model again"
        )
    return Artifact(manifest, file)


def _read_or(offline_root: str, path: str, cannot: str, mend: str) -> bytes:
    """A file of the offline store. Raises ArtifactError."""
    try:
        return read_file(store_of(offline_root), path)
    except OSError as error:
        raise ArtifactError(f"{cannot}: {error}", mend=mend) from error


def stored_versions(offline_root: str, model: str) -> list[str]:
    """The versions of a model that are stored, by name. Raises ArtifactError when the offline store does not answer."""
    try:
        store = store_of(offline_root)
        found = store.get_file_info(fs.FileSelector(f"models/{model}", recursive=True, allow_not_found=True))
    except OSError as error:
        raise ArtifactError(f"models/{model} cannot be read: {error}", mend="check TIDEMILL_OFFLINE") from error
    return sorted(info.path.split("/")[-2] for info in found if info.path.endswith("/manifest.json"))


def stored_manifest(offline_root: str, model: str, version: str) -> tuple[Manifest, str]:
    """The manifest of a stored version, and its SHA-256. Raises NoSuchVersion, and ArtifactError when it cannot be read."""
    path = f"{folder_of(model, version)}/manifest.json"
    try:
        content = read_file(store_of(offline_root), path)
        return msgspec.json.decode(content, type=Manifest), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise NoSuchVersion(model, version, stored_versions(offline_root, model)) from error
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path}: {error}", mend="make the version again with this tidemill") from error


def stored_artifact(offline_root: str, model: str, version: str) -> Artifact:
    """Reads a model version by the names in a logged prediction. Raises ArtifactError when it is missing or damaged."""
    artifact = folder_of(model, version)
    try:
        content = read_file(store_of(offline_root), f"{artifact}/manifest.json")
    except OSError as error:
        raise ArtifactError(
            f"{artifact} cannot be read: {error}", mend="check TIDEMILL_OFFLINE: predictions can be replayed while their model is kept"
        ) from error
    return load_artifact(offline_root, artifact, hashlib.sha256(content).hexdigest())


def beside_artifact(offline_root: str, manifest: Manifest, name: str) -> bytes:
    """A further file of a stored version. Raises ArtifactError when it is not there."""
    path = f"{folder_of(manifest.model, manifest.version)}/{name}"
    try:
        return read_file(store_of(offline_root), path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}", mend=f"check TIDEMILL_OFFLINE, or {anew(manifest.model)}") from error


def keep_beside(offline_root: str, manifest: Manifest, name: str, content: bytes) -> None:
    """Writes a further file of a stored version, whole or not at all, over the one of before. Raises ArtifactError."""
    path = f"{folder_of(manifest.model, manifest.version)}/{name}"
    try:
        write_file(store_of(offline_root), path, content)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error}", mend="check TIDEMILL_OFFLINE, rights and space") from error


def check_manifest(manifest: Manifest, model: Model, kernels: Mapping[str, ViewKernel]) -> None:
    """Raises ArtifactError unless a model version was made for the present declarations. The error names the difference."""
    mend = f"run: {model.making}"
    declared = {view.name: kernels[view.name].definition for view in model.views}
    changed = [name for name, definition in declared.items() if manifest.definitions.get(name) != definition]
    if changed:
        raise ArtifactError(f"{model.name} {manifest.version} was trained on another definition of view {', '.join(changed)}", mend=mend)
    if [(item.name, item.kind, item.shape) for item in manifest.inputs] != [
        (column.name, column.kind, _shape(column)) for column in model.plan
    ]:
        raise ArtifactError(f"{model.name} {manifest.version} was trained on other inputs than those declared", mend=mend)


def model_as_trained(manifest: Manifest, model: Model, kernels: Iterable[ViewKernel]) -> tuple[Model, list[ViewKernel]]:
    """The model over those versions of views that a model version was trained on, and the kernels of its `views`.

    `model`: as the catalogue has it now; `kernels`: of all versions of views. Of versions that store the same, the one in force is taken.
    Raises ArtifactError when no version of a view is what it was, or a value of the request is declared no more.
    """
    mend = f"run: {model.making}"
    of_view: dict[str, ViewKernel] = {}
    for kernel in sorted(kernels, key=lambda kernel: (kernel.view.in_force, kernel.view.version)):
        if manifest.definitions.get(kernel.view.plain_name) == kernel.definition:
            of_view[kernel.view.plain_name] = kernel
    gone = sorted(manifest.definitions.keys() - of_view.keys())
    if gone:
        raise ArtifactError(
            f"{model.name} {manifest.version} was trained on a definition of view {', '.join(gone)} that is gone", mend=mend
        )
    try:
        inputs = [_input(item, model, of_view) for item in manifest.inputs]
        made = dataclasses.replace(model, inputs=inputs)
        if [column.name for column in made.plan] != [item.name for item in manifest.inputs]:
            raise KeyError("the order of its inputs")
    except (DeclarationError, KeyError) as error:
        raise ArtifactError(
            f"{model.name} {manifest.version} was trained on other inputs than those declared: {error}", mend=mend
        ) from error
    by_view = {kernel.view: kernel for kernel in of_view.values()}
    return made, [by_view[view] for view in made.views]


def _input(item: ModelInput, model: Model, of_view: Mapping[str, ViewKernel]) -> Selection | Request:
    """An input of a manifest. Raises DeclarationError for a feature that the view does not serve, KeyError for an unknown name."""
    if not item.is_feature:
        return next((request for request in model.requests if request.name == item.name and _alike(request, item)), None) or _request(item)
    view, feature = next((view, item.name[len(view) + 2 :]) for view in _longest_first(of_view) if item.name.startswith(f"{view}__"))
    return of_view[view].view.select(feature)


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)


def _alike(request: Request, item: ModelInput) -> bool:
    """Whether a version takes a value of the request as it is declared now: whole, and of the same shape, or in its matrix."""
    if not (request.is_content or item.is_content):
        return True
    return request.kind == item.kind and (list(request.shape) if isinstance(request, Tensor) else []) == item.lengths


def _request(item: ModelInput) -> Request:
    """A value of the request as a manifest has it."""
    if item.kind == "tensor":
        return Tensor(item.name, shape=item.lengths)
    return Words(item.name) if item.kind == "words" else Request(item.name, _KINDS[item.kind])


_KINDS: dict[str, type] = {"category": str, "number": float}
