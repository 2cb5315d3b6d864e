"""Model artifacts on disk: whole, checked, never written over; and whether they fit the project."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.demo_state import demo, saved, trained

from tidemill import FeatureView, count
from tidemill.errors import ArtifactError, NoSuchVersion
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import (
    Artifact,
    Manifest,
    ModelInput,
    check_manifest,
    load_artifact,
    model_as_trained,
    save_artifact,
    stored_manifest,
    stored_versions,
)

ARTIFACT = trained(demo().models["big_tip"])
KERNELS = {name: ViewKernel(view) for name, view in demo().views.items()}


def changed(**changes: Any) -> Manifest:
    """The manifest with other fields."""
    return msgspec.structs.replace(ARTIFACT.manifest, **changes)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Manifest and model come back as they were, from a path and from a URL; the digest is that of the file."""
    for root in (str(tmp_path / "offline"), f"file://{tmp_path}/other"):
        folder, digest = save_artifact(root, ARTIFACT.manifest, ARTIFACT.onnx)
        assert folder == "models/big_tip/v1"
        assert load_artifact(root, folder, digest) == ARTIFACT
    files = sorted(path.name for path in (tmp_path / "offline" / folder).iterdir())
    assert files == ["manifest.json", "model.onnx"]
    assert hashlib.sha256((tmp_path / "offline" / folder / "manifest.json").read_bytes()).hexdigest() == digest


def test_saving_again_is_harmless_and_another_content_is_refused(tmp_path: Path) -> None:
    """A save that is repeated gives the same answer; a version is never written over."""
    record = saved(str(tmp_path), ARTIFACT)
    assert saved(str(tmp_path), ARTIFACT) == record
    with pytest.raises(ArtifactError, match="another content"):
        save_artifact(str(tmp_path), changed(rows=1), ARTIFACT.onnx)
    assert load_artifact(str(tmp_path), record.artifact, record.sha256) == ARTIFACT


def test_a_save_that_was_cut_short_is_finished_by_the_next(tmp_path: Path) -> None:
    """Without its manifest a version does not exist: it cannot be loaded, and saving writes it whole."""
    record = saved(str(tmp_path), ARTIFACT)
    (tmp_path / record.artifact / "manifest.json").unlink()
    (tmp_path / record.artifact / "model.onnx").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_artifact(str(tmp_path), record.artifact, record.sha256)
    assert saved(str(tmp_path), ARTIFACT) == record
    assert load_artifact(str(tmp_path), record.artifact, record.sha256) == ARTIFACT


def test_stored_versions_are_found(tmp_path: Path) -> None:
    """Those with a manifest, by name; another name is told with them, and nothing at all with what makes one."""
    root = str(tmp_path)
    assert stored_versions(root, "big_tip") == []
    with pytest.raises(
        NoSuchVersion,
        match="no version v1 of big_tip is stored; make a new version, by the command that `tidemill models list big_tip` shows",
    ):
        stored_manifest(root, "big_tip", "v1")
    _, digest = save_artifact(root, ARTIFACT.manifest, ARTIFACT.onnx)
    save_artifact(root, changed(version="v2"), ARTIFACT.onnx)
    (tmp_path / "models/big_tip/v3").mkdir()
    assert stored_versions(root, "big_tip") == ["v1", "v2"]
    assert stored_manifest(root, "big_tip", "v1") == (ARTIFACT.manifest, digest)
    with pytest.raises(NoSuchVersion, match="choose one of: v1, v2"):
        stored_manifest(root, "big_tip", "v3")
    (tmp_path / "models/big_tip/v3/manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"v3/manifest\.json: .*make the version again"):
        stored_manifest(root, "big_tip", "v3")


@pytest.mark.parametrize("version", ["", ".", "..", "a/b", "-x", "v 1", "x" * 101, "ü"])
def test_versions_that_are_no_folder_names_are_refused(tmp_path: Path, version: str) -> None:
    """A version becomes a folder and a part of URLs."""
    with pytest.raises(ArtifactError, match="not a usable version"):
        save_artifact(str(tmp_path), changed(version=version), ARTIFACT.onnx)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["", "/etc", "models/../../etc", "models/a/..", "models/big_tip", "models/big_tip/v1/x", "other/a/b"])
def test_only_folders_of_models_are_read(tmp_path: Path, folder: str) -> None:
    """A deployment cannot point outside the models."""
    with pytest.raises(ArtifactError, match="not a folder of a model"):
        load_artifact(str(tmp_path), folder, "")


def test_a_manifest_for_another_file_is_refused(tmp_path: Path) -> None:
    """The manifest vouches for the ONNX file, when saving and when loading."""
    with pytest.raises(ArtifactError, match=r"another model\.onnx"):
        save_artifact(str(tmp_path), ARTIFACT.manifest, b"other")
    record = saved(str(tmp_path), ARTIFACT)
    (tmp_path / record.artifact / "model.onnx").write_bytes(ARTIFACT.onnx + b"x")
    with pytest.raises(ArtifactError, match="not the one that was trained"):
        load_artifact(str(tmp_path), record.artifact, record.sha256)


def test_a_manifest_of_another_form_says_what_is_wrong(tmp_path: Path) -> None:
    """A manifest that a deployment vouches for, but this version cannot read, names the field."""
    record = saved(str(tmp_path), ARTIFACT)
    file = tmp_path / record.artifact / "manifest.json"
    content = json.dumps(json.loads(file.read_bytes()) | {"output": "poem"}).encode()
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: .*output"):
        load_artifact(str(tmp_path), record.artifact, hashlib.sha256(content).hexdigest())


def test_a_version_must_fit_the_declarations() -> None:
    """Views of another definition and other inputs are named with the mend; what fits passes."""
    model = demo().models["big_tip"]
    check_manifest(ARTIFACT.manifest, model, KERNELS)
    with pytest.raises(ArtifactError, match="another definition of view drivers; run: tidemill train big_tip"):
        check_manifest(changed(definitions=ARTIFACT.manifest.definitions | {"drivers": "x"}), model, KERNELS)
    with pytest.raises(ArtifactError, match="other inputs"):
        check_manifest(changed(inputs=list(reversed(ARTIFACT.manifest.inputs))), model, KERNELS)
    other = FeatureView("zones", demo().events["trips"], entity="zone", features=[count()], windows=["2h"])
    with pytest.raises(ArtifactError, match="definition of view zones"):
        check_manifest(ARTIFACT.manifest, model, KERNELS | {"zones": ViewKernel(other)})


def test_categories_are_those_of_the_inputs() -> None:
    """A vector is made with the categories of the version that serves."""
    assert ARTIFACT.manifest.categories == {"payment": ["card", "cash"]}
    assert Artifact(*ARTIFACT).manifest.output == "probability"


def test_a_version_reads_the_views_that_it_was_trained_on() -> None:
    """Whichever is in force now; of two that store the same, the one in force. Inputs are those of the manifest, not those declared now."""
    model = demo().models["big_tip"]
    manifest, zones = ARTIFACT.manifest, demo().views["zones"]
    other = FeatureView("zones", zones.source, "zone", [count()], windows=["1h"])
    old, new = zones.as_version(1, in_force=False), other.as_version(2, in_force=True)
    drivers = [demo().views["drivers"].as_version(n, in_force=n == 2) for n in (1, 2, 3)]
    narrower = dataclasses.replace(model, inputs=[new, *model.requests])
    kernels = [ViewKernel(view) for view in (new, old, *drivers)]
    found, read = model_as_trained(manifest, narrower, kernels)
    assert [kernel.view.name for kernel in read] == ["zones@v1", "drivers"]
    assert read[1].view.version == 2
    assert [(column.name, column.kind) for column in found.plan] == [(item.name, item.kind) for item in manifest.inputs]
    assert found.views == tuple(kernel.view for kernel in read)


def test_a_version_whose_view_is_gone_is_refused() -> None:
    """The error names the view, or the input, and the mend."""
    model, manifest = demo().models["big_tip"], ARTIFACT.manifest
    kernels = [ViewKernel(view) for view in demo().views.values()]
    with pytest.raises(ArtifactError, match="definition of view zones that is gone") as caught:
        model_as_trained(manifest, model, kernels[1:])
    assert "tidemill train big_tip" in caught.value.mend
    unknown = msgspec.structs.replace(manifest, inputs=[*manifest.inputs, ModelInput("weather", "number")])
    with pytest.raises(ArtifactError, match=r"other inputs than those declared.*weather"):
        model_as_trained(unknown, model, kernels)
