"""A prediction says from which inputs it came, if it is asked; what cannot be explained is answered all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.test_answers import valid
from tests.demo_state import NOW_MS, demo, saved, trained
from tests.inference.conftest import ENTITIES, Service
from tests.proof.world import World
from tests.training.test_explained import version_of
from tests.training.zoo import boosted

from tidemill.attribution.loading import load_explainer
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Artifact, save_artifact
from tidemill.models.inputs import vector_of
from tidemill.training.version import Version

MODEL = demo().models["big_tip"]


def explained_version() -> Version:
    """A version of boosted trees, on the rows of the zoo."""
    return version_of(boosted, classes=True)


async def deployed(service: Service, version: Version) -> None:
    """Stores it with what explains it, and lets it serve."""
    save_artifact(service.settings.offline.root, *version.artifact, version.beside)
    await service.deploy(version.artifact)


@pytest.mark.integration
async def test_a_prediction_is_explained(service: Service) -> None:
    """The explanation is that of the logged inputs, for one, for a repeated one, and for each of a batch; it adds up to the answer."""
    version = explained_version()
    await deployed(service, version)
    explainer = load_explainer(service.settings.offline.root, version.artifact)
    body = {"entities": ENTITIES, "time": NOW_MS, "id": "e1", "explain": True}
    first, again = await service.predict(body), await service.predict(body)
    answer = valid("predict_response", first.content)
    assert first.content == again.content
    (record, *_) = (await service.logged())["e1"]
    found = explainer.explain(vector_of(record.inputs))
    shown = answer["explanation"]
    assert (shown["method"], shown["scale"], shown["standard_error"]) == ("trees", "log_odds", None)
    assert shown["contributions"] == found.contributions
    assert shown["answer"] - shown["base"] == pytest.approx(sum(shown["contributions"].values()))
    bad = {"entities": {"zone": "north"}}
    batch = {
        "instances": [{"entities": ENTITIES, "time": NOW_MS}, bad, {"entities": ENTITIES | {"zone": "nowhere"}}],
        "explain": True,
        "features": False,
    }
    one, error, other = valid("predict_response", (await service.predict(batch)).content)["predictions"]
    assert one["explanation"] == shown
    assert "error" in error
    assert other["explanation"]["contributions"] != shown["contributions"]
    assert "explanation" not in (await service.predict({"entities": ENTITIES})).json()
    many = await service.predict({"instances": [{"entities": ENTITIES}] * 101, "explain": True})
    assert (many.status_code, many.json()["error"]) == (400, "101 instances with explain; 1 to 100 are possible")

    unknown = await service.http.get("/predictions/e1/explanation")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "unknown prediction 'e1'")
    past = World(service.project, Path(service.settings.offline.root))
    past.predict([record])
    past.write()
    later = valid("predict_response", (await service.http.get("/predictions/e1/explanation")).content)
    assert later == {name: value for name, value in answer.items() if name != "features"}


@pytest.mark.integration
async def test_an_older_version_answers_without_an_explanation(service: Service) -> None:
    """The answer is there, and in place of the explanation the reason and the mend."""
    answer = await service.predict({"entities": ENTITIES, "explain": True})
    assert answer.status_code == 200
    shown = valid("predict_response", answer.content)
    assert shown["explanation"]["error"].startswith("big_tip v1 has nothing that explains its answers: an earlier tidemill made it")
    assert "`tidemill models list big_tip`" in shown["explanation"]["mend"]


def test_files_that_do_not_explain(tmp_path: Path) -> None:
    """A lost, another and a damaged file, and a version of before, are told apart, each with its mend."""
    version, root = explained_version(), str(tmp_path)
    folder = tmp_path / "models" / "big_tip" / version.artifact.manifest.version
    save_artifact(root, *version.artifact)
    with pytest.raises(ArtifactError, match=r"explanation\.npz cannot be read"):
        load_explainer(root, version.artifact)
    (folder / "explanation.npz").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="is not the one that was stored; restore the file, or make a new version"):
        load_explainer(root, version.artifact)
    old = trained(MODEL)
    saved(root, old)
    with pytest.raises(ArtifactError, match="has nothing that explains its answers"):
        load_explainer(root, old)


def test_damaged_content_is_told(tmp_path: Path) -> None:
    """Any file that is no recipe, even one with the right digest, is an error of ours."""
    import hashlib

    import msgspec

    version, root = explained_version(), str(tmp_path)
    content = version.beside["explanation.npz"]
    for damaged in (b"", b"nothing", content[: len(content) // 2], content[:-30]):
        manifest = msgspec.structs.replace(
            version.artifact.manifest, version=f"v{len(damaged)}", explanation_sha256=hashlib.sha256(damaged).hexdigest()
        )
        artifact = Artifact(manifest, version.artifact.onnx)
        save_artifact(root, *artifact, {"explanation.npz": damaged})
        with pytest.raises(ArtifactError, match=r"explanation\.npz of big_tip .* is damaged"):
            load_explainer(root, artifact)
