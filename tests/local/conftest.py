"""A data folder after which no process may be left."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.observe import PYTHONPATH, alive


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a data folder whose processes find the stand-in services; none of them may outlive the test."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TIDEMILL_OFFLINE", "TIDEMILL_PROJECT", "TIDEMILL_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "data of #1, (mine)"
    (folder / "run").mkdir(parents=True)
    (folder / "logs").mkdir()
    yield folder
    left = alive(folder)
    for process in left:
        process.kill()
    assert not left
