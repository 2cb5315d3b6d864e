"""The models of a world: training sets from its topics, versions from the project's pipelines, and predictions.

Needs the extra `inference`; training needs `training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tidemill.declarations import Model
from tidemill.declarations.models import FeatureInput, RequestInput
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, BadRequest, MissingInputs, NotDeployed, UnknownModel
from tidemill.kernel.served import Served
from tidemill.kernel.view import ViewKernel
from tidemill.models.answers import chosen
from tidemill.models.artifact import Artifact, Manifest, check_manifest, model_as_trained
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.offline.store import OfflineStore
from tidemill.testing.values import FeatureValue, shown
from tidemill.training.dataset import TrainingSet, build


class Prediction(NamedTuple):
    """An answer of inference. `time_ms`: the request's time, epoch ms; `output_name`: "probability", "value" or "probabilities"; `features`: the
    inputs, by name; `degraded`: those that cannot be known, and why; `ignored`: the values of the request that the model does not take;
    `probabilities`: of each of several classes, whose largest is `output`."""

    model: str
    version: str
    time_ms: int
    output_name: str
    output: float
    features: dict[str, FeatureValue]
    degraded: dict[str, str]
    ignored: list[str]
    probabilities: Mapping[str, float] = {}

    @property
    def chosen(self) -> str | None:
        """The answered class, None of a model without several."""
        return chosen(self.probabilities) if self.probabilities else None


class Loaded(NamedTuple):
    """A loaded version. `kernels`: one for each view of `inputs`, as the version was trained on it."""

    model: Model
    manifest: Manifest
    engine: Engine
    inputs: ModelInputs
    kernels: Sequence[ViewKernel]


class Models:
    """Trains and predicts by the declarations that `use` gave last. `archived()` gives an offline store with all events; `served(kernels,
    entities, time_ms)` gives the features from the online store."""

    def __init__(
        self,
        archived: Callable[[], OfflineStore],
        served: Callable[[Sequence[ViewKernel], Sequence[bytes | None], int], list[Served]],
    ) -> None:
        self._archived = archived
        self._served = served
        self._loaded: dict[str, Loaded] = {}

    def use(self, project: Project, kernels: Mapping[str, ViewKernel]) -> None:
        """Work by these declarations from now on. `kernels`: those of all views by name. As in inference, a loaded version reads what is in
        force where that stores what it was trained on, and else goes on as it is."""
        self._project, self._kernels = project, kernels
        for name in self._loaded.keys() & project.models.keys():
            with suppress(ArtifactError):
                self._loaded[name] = self._ready(self._loaded[name].manifest, self._loaded[name].engine)

    def training_set(self, name: str, until_ms: int) -> TrainingSet:
        """See `World.training_set`."""
        return build(self._project, None, self._declared(name), self._archived(), until_ms, lambda _progress: None)

    def train(self, name: str, until_ms: int) -> Manifest:
        """See `World.train`."""
        from tidemill.training.version import make_version  # noqa: PLC0415 - predicting does not need scikit-learn

        version = make_version(self._declared(name), self.training_set(name, until_ms), until_ms, lambda _progress: None)
        self.deploy(version.artifact)
        return version.artifact.manifest

    def deploy(self, artifact: Artifact) -> None:
        """See `World.deploy`."""
        if not self._project.catalogue:
            check_manifest(artifact.manifest, self._declared(artifact.manifest.model), self._kernels)
        self._loaded[artifact.manifest.model] = self._ready(artifact.manifest, load_engine(artifact))

    def _ready(self, manifest: Manifest, engine: Engine) -> Loaded:
        """A version with the views that it reads. Raises ArtifactError, UnknownModel."""
        model = self._declared(manifest.model)
        kernels = [self._kernels[view.name] for view in model.views]
        if self._project.catalogue:
            model, kernels = model_as_trained(manifest, model, self._kernels.values())
        return Loaded(model, manifest, engine, ModelInputs(model, manifest.categories), kernels)

    def predict(self, name: str, given: Mapping[str, Any], time_ms: int) -> Prediction:
        """See `World.predict`. The steps are those of inference: keys, one read, one row, one run."""
        declared = self._declared(name)
        if name not in self._loaded:
            raise NotDeployed(name, declared.making)
        model, manifest, engine, inputs, kernels = self._loaded[name]
        served = self._served(kernels, inputs.keys(given), time_ms)
        contents = inputs.contents(given)
        row, degraded = inputs.row(served, given, contents), inputs.degraded(served, given)
        if degraded and model.on_missing == "refuse":
            raise MissingInputs(name, degraded)
        answer = engine.answer(vector_of(row), contents)
        if not answer.is_finite:
            raise BadRequest(f"model {engine.label} gives no number for these inputs", mend="check the values that come with the request")
        values = {column.name: _shown(column, served, given, time_ms, stands) for column, stands in zip(inputs.plan, row, strict=True)}
        return Prediction(
            manifest.model,
            manifest.version,
            time_ms,
            manifest.output,
            answer.output,
            values,
            degraded,
            inputs.ignored(given),
            answer.probabilities,
        )

    def _declared(self, name: str) -> Model:
        if name not in self._project.models:
            raise UnknownModel(name, list(self._project.models))
        return self._project.models[name]


def _shown(
    column: FeatureInput | RequestInput, served: Sequence[Served], given: Mapping[str, Any], time_ms: int, stands: float
) -> FeatureValue:
    """An input as answers show it. `stands`: the number in the row, which a content is shown by."""
    if isinstance(column, FeatureInput):
        return shown(served[column.view], column.feature, time_ms)
    value = given[column.name]
    if column.request.is_content and value is not None:
        value = stands
    return FeatureValue(value, "NULL_VALUE" if value is None else "PRESENT", None)
