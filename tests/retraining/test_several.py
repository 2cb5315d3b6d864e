"""Two models of one project: one is trained after the other, and both are judged at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.retraining.made import alert, step
from tests.retraining.models import version
from tests.retraining.rig import PROJECT, Rig

from tidemill.kafka.topics import ensure_topics
from tidemill.models.artifact import save_artifact
from tidemill.streams.retraining import append_retraining
from tidemill.streams.topics import retraining_topic, topic_specs
from tidemill_retraining.strays import to_be_followed
from tidemill_retraining.turns import Turn

EARLY = """
early = Model(
    "early", asked, "at", "id", [Request("size")], Outcome(done, "late <= 0", subject="id", within="6h"), lambda: None,
    retrain=Retrain(on=["performance"], rest="1ms", at_most_a_day=20, steps=[0.5], least=60, most=400),
)
"""


@pytest.fixture
def rig(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of its own with two models on the shared broker."""
    made = Rig(topic_prefix, tmp_path, kafka, PROJECT + EARLY)
    first = version("v1")
    save_artifact(str(made.root), msgspec.structs.replace(first.manifest, model="early"), first.onnx)
    asyncio.run(made.deploying.act("early", "deploy", "v1"))
    yield made
    made.stop()


@pytest.mark.integration
def test_a_run_that_is_judged_holds_up_no_other_model(rig: Rig) -> None:
    """The second training begins when the first has ended, and then both versions are asked beside their champions."""
    hold = rig.prepared / "hold"
    hold.touch()
    rig.prepare(order="hold")
    rig.alert(alert("a1"))
    rig.start()
    rig.until(lambda: "training late" in rig.said())
    rig.alert(msgspec.structs.replace(alert("a2"), model="early"))
    assert rig.wait("skipped").reason == "late is in training; auc moved"
    assert "training early" not in rig.said()
    hold.unlink()
    rig.until(lambda: [record.model for record in rig.steps() if record.step == "shadow"] == ["late", "early"])
    assert {name: [item.role for item in records[-1].versions()] for name, records in asyncio.run(rig.deploying.history()).items()} == {
        "late": ["champion", "shadow"],
        "early": ["champion", "shadow"],
    }


@pytest.mark.integration
def test_runs_of_models_that_left(rig: Rig) -> None:
    """Of a model that is not declared any more the open run fails; one that is not to be trained again is followed until its run has ended."""
    topic = retraining_topic(rig.name)
    for name in ("late", "gone"):
        asyncio.run(append_retraining(rig.settings, rig.name, step("begun", 7, 7, name)))
    project = rig.project
    project.models["late"] = replace(project.models["late"], retrain=None)
    asyncio.run(ensure_topics(rig.settings, {topic: topic_specs(project)[topic]}))
    assert [model.name for model in asyncio.run(to_be_followed(rig.settings, project))] == ["late", "early"]
    assert [(record.model, record.step, record.reason) for record in rig.steps()][2:] == [
        ("gone", "failed", "model gone is not declared any more")
    ]
    asyncio.run(append_retraining(rig.settings, rig.name, step("rejected", 9, 7, "late")))
    assert [model.name for model in asyncio.run(to_be_followed(rig.settings, project))] == ["early"]
    assert len(rig.steps()) == 4


def test_one_turn() -> None:
    """Who has it keeps it until he leaves; nobody else can give it back."""
    turn = Turn()
    assert (turn.take("a"), turn.take("a"), turn.take("b"), turn.other("b"), turn.other("a")) == (True, True, False, "a", "")
    turn.leave("b")
    assert not turn.take("b")
    turn.leave("a")
    assert (turn.take("b"), turn.other("a")) == (True, "b")
