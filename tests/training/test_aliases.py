"""MLflow's aliases follow the deployments: which version carries which, and what becomes of them while MLflow is away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.demo_state import demo

from tidemill.records import DeploymentRecord, OtherVersion
from tidemill.runtime.settings import KafkaSettings
from tidemill_training.aliases import align, align_by_topic, wanted
from tidemill_training.tracking import TAG, Tracker

AWAY = "http://127.0.0.1:1"


def deployment(champion: str, *others: tuple[str, Literal["challenger", "shadow"]], at: int = 0) -> DeploymentRecord:
    """A champion and the versions beside it."""
    seats = [OtherVersion(version, role, "", "", 0.0 if role == "shadow" else 0.1) for version, role in others]
    return DeploymentRecord("m", champion, "", "", at, {}, seats)


@pytest.mark.parametrize(
    ("history", "champion", "challenger"),
    [
        ([deployment("v1")], "v1", None),
        ([deployment("v1", ("v2", "shadow"))], "v1", "v2"),
        ([deployment("v1", ("v2", "challenger"), ("v3", "shadow"))], "v1", "v2"),
        ([deployment("v1", ("v2", "challenger"), ("v3", "challenger"))], "v1", "v3"),
        ([deployment("v1"), deployment("v2", ("v1", "shadow"))], "v2", "v1"),
        ([deployment("v2"), deployment("v1")], "v1", None),
    ],
)
def test_which_versions_carry_the_aliases(history: Sequence[DeploymentRecord], champion: str, challenger: str | None) -> None:
    """By the last deployment; a challenger comes before a shadow, and the newest of a role counts."""
    aim = wanted(history)
    assert (aim.champion, aim.challenger) == (champion, challenger)


def test_a_version_that_never_served_stays_the_challenger() -> None:
    """One that was stored and not deployed keeps the alias while nothing serves beside the champion; one that left loses it."""
    aim = wanted([deployment("v1", ("v2", "shadow")), deployment("v1")])
    assert aim.version("challenger", "v3") == "v3"
    assert aim.version("challenger", "v2") is None
    assert aim.version("challenger", None) is None
    assert aim.version("champion", "v2") == "v1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An offline store with a real MLflow in a database, which has three versions of a model."""
    root = tmp_path_factory.mktemp("offline")

    def registered(client: Any) -> None:
        client.create_registered_model("m")
        for version in ("v1", "v2", "v3"):
            client.create_model_version("m", source=str(root), tags={TAG: version})
        client.set_registered_model_alias("m", "champion", "3")  # as a training left it
        client.set_registered_model_alias("m", "mine", "2")

    Tracker.for_store(str(root)).asked(registered)
    return root


def aliases_of(root: Path) -> dict[str, str]:
    """Those that MLflow has."""
    found = Tracker.for_store(str(root)).asked(lambda client: client.get_registered_model("m").aliases)
    return {alias: f"v{number}" for alias, number in found.items()}


@pytest.mark.slow
def test_aliases_follow_every_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary, a promotion, a rollback and a retirement; a tracker that is away is told and made up for; a version that MLflow lacks is named;
    an alias of somebody else's stays."""
    history, notes = list[DeploymentRecord](), list[str]()

    def aliases(*more: DeploymentRecord) -> dict[str, str]:
        history.extend(more)
        assert align(str(root), "m", lambda: list(history), notes.append)
        return {alias: version for alias, version in aliases_of(root).items() if alias != "mine"}

    assert aliases() == {"champion": "v3"}
    assert aliases(deployment("v1", ("v2", "challenger"))) == {"champion": "v1", "challenger": "v2"}
    assert notes == ["m v1 is the champion in MLflow now", "m v2 is the challenger in MLflow now"]
    assert aliases(deployment("v2")) == {"champion": "v2"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    history.append(deployment("v1"))
    assert not align(str(root), "m", lambda: list(history), notes.append)
    assert notes[-1].startswith("m: what serves is as it was asked for, but MLflow's aliases are not: MLflow at http://127.0.0.1:1 failed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert aliases() == {"champion": "v1"}
    assert aliases(deployment("v9", ("v3", "shadow"))) == {"champion": "v1", "challenger": "v3"}
    assert "m v9 is not in MLflow, so it cannot be the champion there" in notes
    assert aliases_of(root)["mine"] == "v2"


@pytest.mark.slow
def test_the_last_of_several_commands_leaves_what_counts(root: Path) -> None:
    """A deployment that comes while aliases are being moved is seen, and they are moved again."""
    found = [[deployment("v1")], [deployment("v2")], [deployment("v2")]]
    assert align(str(root), "m", lambda: found.pop(0), lambda _: None)
    assert aliases_of(root)["champion"] == "v2"
    assert found == []


def test_without_a_tracker_nothing_is_done(tmp_path: Path) -> None:
    """Nobody's disk gets a database because a role changed."""
    assert align_by_topic(KafkaSettings(bootstrap_servers="127.0.0.1:1"), demo(), str(tmp_path), "m", lambda _: None)
    assert list(tmp_path.iterdir()) == []
