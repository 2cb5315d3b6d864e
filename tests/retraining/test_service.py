"""The service as a process on a real broker: from an alert to a new champion through kills, and everything that must not touch the champion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.ask import get
from tests.retraining.made import alert
from tests.retraining.rig import Rig

pytestmark = pytest.mark.integration

WAY = ["begun", "trained", "rehearsed", "shadow", "canary", "promoted", "kept"]


@pytest.fixture
def rig(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of its own on the shared broker."""
    made = Rig(topic_prefix, tmp_path, kafka)
    yield made
    made.stop()


def roles(rig: Rig, name: str) -> list[str]:
    """The roles that a version had in each deployment, - for none."""
    return [next((item.role for item in record.versions() if item.version == name), "-") for record in rig.deployments()]


@pytest.mark.share(3, 1)
def test_an_alert_makes_a_better_champion_through_kills(rig: Rig) -> None:
    """Killed after each step, it takes every step once: the version is a shadow, answers a share, and is the champion; nobody else did anything."""
    rig.alert(alert("a1"))
    rig.prepare(order="sleep")
    rig.start()
    rig.wait("begun")
    rig.until(lambda: "training late" in rig.said())
    rig.kill()
    rig.start()
    new = rig.wait("shadow").version
    rig.kill()
    better = {new: 0.02, "v1": 0.5}
    rig.traffic(300, better)
    rig.start()
    canary = rig.wait("canary")
    rig.kill()
    assert canary.share == 0.5
    assert {finding.verdict for finding in canary.evidence} == {"for"}
    rig.traffic(300, better)
    rig.start()
    rig.wait("promoted")
    rig.kill()
    rig.traffic(100, better)
    rig.start()
    rig.wait("kept")
    assert rig.taken() == WAY
    assert roles(rig, new) == ["-", "shadow", "challenger", "champion", "champion"]
    assert roles(rig, "v1") == ["champion", "champion", "champion", "shadow", "-"]
    (begun,) = [record for record in rig.steps() if record.step == "begun"]
    assert (begun.trigger, begun.causes, begun.reason) == ("performance", ["a1"], "auc moved")
    shown = rig.tidemill("retraining", "show", f"late@{begun.run}")
    assert "begun by performance (a1)" in shown
    assert "canary 50%: loses 0." in shown
    (listed,) = [json.loads(line) for line in rig.tidemill("retraining", "list", "--json").splitlines()]
    assert (listed["step"], listed["version"]) == ("kept", new)
    assert f"{len(rig.steps()):,} steps" in rig.tidemill("retraining", "table", str(rig.folder / "runs.parquet"))
    rows = pq.read_table(rig.folder / "runs.parquet").to_pylist()
    assert [(row["step"], row["share"]) for row in rows if row["step"] == "canary"] == [("canary", 0.5)]
    assert json.loads(rows[-1]["evidence"])[0]["name"] == "loss"
    assert 'tidemill_retraining_open_seconds{model="late"} 0.0' in get(f"http://127.0.0.1:{rig.port}/metrics").text


@pytest.mark.share(3, 2)
def test_the_champion_is_never_touched(rig: Rig) -> None:
    """Trainings that find no memory or make nothing; versions that hang, are worse or leave requests out: each is said, and nothing else happens."""
    rig.start()
    for kind, order, step, said in (
        ("good", "memory", "failed", "MemoryError"),
        ("good", "nothing", "failed", "there is no version"),
        ("hang", "", "rejected", "not done after 5 s"),
    ):
        rig.prepare(kind, order)
        rig.ask()
        assert said in rig.wait(step).reason
    assert len(rig.deployments()) == 1
    rig.prepare()
    rig.ask()
    worse = rig.wait("shadow").version
    rig.traffic(300, {worse: 1.0, "v1": 0.02})
    assert "the champion 0." in rig.wait("rejected").reason
    rig.ask()
    rig.wait("shadow")
    rig.traffic(300, {}, answers=0.1)
    assert "answered 30 of 300 requests" in rig.wait("rejected").reason
    assert {record.version for record in rig.deployments()} == {"v1"}
    assert [item.version for item in rig.deployments()[-1].versions()] == ["v1"]
    assert rig.process is not None
    assert rig.process.poll() is None


@pytest.mark.share(3, 2)
def test_a_worse_champion_is_rolled_back(rig: Rig) -> None:
    """Better as a shadow, worse once it answers: the former champion answers again, by itself, and says why; what somebody deploys by hand ends a run."""
    rig.start()
    assert "no retraining yet" in rig.tidemill("retraining", "list")
    assert "asked for a retraining of late" in rig.tidemill("retrain", "late")
    new = rig.wait("shadow").version
    rig.traffic(300, {new: 0.02, "v1": 0.5})
    rig.wait("canary")
    rig.traffic(200, {new: 0.02, "v1": 0.5})
    rig.wait("promoted")
    rig.traffic(300, {new: 1.0, "v1": 0.02})
    back = rig.wait("rolled back")
    assert back.evidence[0].verdict == "against"
    assert [item.version for item in rig.deployments()[-1].versions()] == ["v1"]
    rig.ask()
    again = rig.wait("shadow").version
    asyncio.run(rig.deploying.act("late", "retire", again))
    assert rig.wait("rejected").reason == "somebody took it away"
    assert "rolled back" in rig.tidemill("retraining", "list", "late")
    assert "unknown retraining 'late@7'" in rig.tidemill("retraining", "show", "late@7", code=1)
