"""A model version beside the declarations of now: the model that it answers for, and the views that it reads."""

from __future__ import annotations

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import UnknownModel
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest, check_manifest, model_as_trained


def as_declared(project: Project, manifest: Manifest) -> tuple[Model, list[ViewKernel]]:
    """The model as the version was trained, and the kernels of its `views`. Raises UnknownModel, ArtifactError."""
    if manifest.model not in project.models:
        raise UnknownModel(manifest.model, list(project.models))
    model = project.models[manifest.model]
    if project.catalogue:
        return model_as_trained(manifest, model, map(ViewKernel, project.views.values()))
    kernels = [ViewKernel(view) for view in model.views]
    check_manifest(manifest, model, {kernel.view.name: kernel for kernel in kernels})
    return model, kernels
