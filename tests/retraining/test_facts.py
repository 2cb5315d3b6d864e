"""What changed since a version was made: the project's files, and the views that it reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from tests.retraining.models import version
from tests.retraining.rig import PROJECT

from tidemill.declarations.project import load_project
from tidemill.models.artifact import save_artifact
from tidemill.runtime.settings import KafkaSettings
from tidemill_retraining.facts import ModelFacts


def test_changed_files_are_named(tmp_path: Path) -> None:
    """Files that differ from those that the champion was made with, and new ones; of a version that does not say, nothing is known to have changed."""
    project = tmp_path / "project"
    project.mkdir()
    text = PROJECT.format(name="facts").replace('on=["performance"]', 'on=["code"]')
    (project / "project.py").write_text(text)
    loaded = load_project(project)
    facts = ModelFacts(loaded, str(project), KafkaSettings(bootstrap_servers="127.0.0.1:1"), str(tmp_path / "lake"))
    made = {"project": {"project.py": hashlib.sha256(text.encode()).hexdigest()}}
    told, silent = version("told"), version("silent")
    save_artifact(str(tmp_path / "lake"), told.manifest, told.onnx, {"made_with.json": msgspec.json.encode(made)})
    save_artifact(str(tmp_path / "lake"), silent.manifest, silent.onnx)
    model = loaded.models["late"]
    said, code = facts.compare(model, told.manifest)
    assert said == ""
    (project / "helper.py").write_text("a = 1")
    (project / "project.py").write_text(text + "\nimport helper\n")
    changed, other = facts.compare(model, told.manifest)
    assert changed == "changed since told was made: helper.py, project.py"
    assert other != code
    assert facts.compare(model, silent.manifest) == ("", other)
