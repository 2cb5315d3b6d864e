"""The explainer of a stored version."""

from __future__ import annotations

import hashlib

from msgspec import UnsetType

from tidemill.attribution.explainer import Explainer
from tidemill.attribution.links import scale_of
from tidemill.attribution.stored import FILE, unpacked
from tidemill.errors import ArtifactError, anew
from tidemill.models.artifact import Artifact, beside_artifact
from tidemill.models.engine import load_engine
from tidemill.models.pipelines.courier import Terms

_AT_TIMES = Terms(idle_seconds=60.0)


def load_explainer(offline_root: str, artifact: Artifact) -> Explainer:
    """Makes the explainer of a version. Raises ArtifactError when it was stored without what explains it, or that is damaged."""
    manifest = artifact.manifest
    label = f"{manifest.model} {manifest.version}"
    if isinstance(manifest.explanation_sha256, UnsetType):
        raise ArtifactError(f"{label} has nothing that explains its answers: an earlier tidemill made it", mend=anew(manifest.model))
    content = beside_artifact(offline_root, manifest, FILE)
    if hashlib.sha256(content).hexdigest() != manifest.explanation_sha256:
        raise ArtifactError(f"{FILE} of {label} is not the one that was stored", mend=f"restore the file, or {anew(manifest.model)}")
    return Explainer(
        [item.name for item in manifest.inputs], scale_of(manifest.output), load_engine(artifact, _AT_TIMES), unpacked(label, content)
    )
