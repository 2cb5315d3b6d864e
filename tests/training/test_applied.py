"""Training by what is in force, and by nothing else."""

from __future__ import annotations

import dataclasses

import pytest
from tests.demo_state import demo

from tidemill import FeatureView, count
from tidemill.catalogue.definitions import NOTHING, Definitions
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill_training.applied import check_applied

APPLIED = plan_of(NOTHING, demo(), 5, Surroundings()).first
MODEL = demo().models["big_tip"]


def said(definitions: Definitions, declared: Project) -> list[str]:
    """The notes of a check that passes."""
    notes = list[str]()
    check_applied(definitions, declared, declared.models["big_tip"], notes.append)
    return notes


def test_what_is_applied_is_trained() -> None:
    """Without a catalogue too; what the model does not read is only noted."""
    other = FeatureView("other", demo().events["trips"], "zone", [count()])
    more: Project = dataclasses.replace(demo(), views=demo().views | {"other": other})
    assert said(NOTHING, more) == []
    assert said(APPLIED, demo()) == []
    assert said(APPLIED, more) == ["project.py differs from what is in force: run tidemill plan"]


def test_what_is_not_applied_is_not_trained() -> None:
    """A new model, and one whose outcome, inputs or view are declared otherwise, name what differs."""
    without: Project = dataclasses.replace(demo(), models={"fare": demo().models["fare"]})
    with pytest.raises(TidemillError, match=r"model big_tip is new in project\.py; run: tidemill apply"):
        said(plan_of(NOTHING, without, 5, Surroundings()).first, demo())
    asked = dataclasses.replace(MODEL, outcome=dataclasses.replace(MODEL.outcome, within="1h"))
    with pytest.raises(TidemillError, match=r"model big_tip is changed in project\.py .*1h"):
        said(APPLIED, dataclasses.replace(demo(), models=demo().models | {"big_tip": asked}))
    zones = dataclasses.replace(demo().views["zones"], dedupe=9)
    with pytest.raises(TidemillError, match=r"view zones is changed in project\.py \(dedupe: 30m -> 9\)"):
        said(APPLIED, dataclasses.replace(demo(), views=demo().views | {"zones": zones}))
