"""`tidemill ui mlflow`: the very command that shows the pages, or that installs them."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest
from tests.training.town import FOLDER
from typer.testing import CliRunner

from tidemill.cli import app
from tidemill.cli.ui import check_pages, command_of, local_uri
from tidemill.errors import TidemillError


def test_the_pages_of_the_local_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the database in which training records; without one nothing is shown."""
    with pytest.raises(
        TidemillError, match=r"mlflow/mlflow\.db; make a version of a model first, by a command that `tidemill models list` shows"
    ):
        local_uri(str(tmp_path))
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").touch()
    assert local_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert command_of("sqlite:///x", 5001)[1:] == [
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        "sqlite:///x",
        "--host",
        "127.0.0.1",
        "--port",
        "5001",
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tidemill").mkdir()
    (tmp_path / "mlflow").rename(tmp_path / ".tidemill" / "mlflow")
    assert local_uri("s3://bucket/x") == f"sqlite:///{tmp_path}/.tidemill/mlflow/mlflow.db"


def test_a_server_has_its_own_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address is said."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert CliRunner().invoke(app, ["ui", "mlflow"]).output.strip() == "MLflow runs at http://there:5000"


def test_pages_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training needs the small MLflow alone; the error is the command that installs the whole one, of the same version."""
    if "mlflow" in {found.metadata["Name"] for found in importlib.metadata.distributions()}:
        check_pages()
        return
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TIDEMILL_PROJECT", str(FOLDER))
    result = CliRunner().invoke(app, ["ui", "mlflow"])
    version = importlib.metadata.version("mlflow-skinny")
    assert str(result.exception) == f"mlflow-skinny has no pages; run: {sys.executable} -m pip install mlflow=={version}"
