"""What is wrong with a training set is told before anything is fitted, by the name of the input and with the mend."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.demo_state import NOW_MS, demo
from tests.proof.world import World
from tests.training.test_train import LATER, MODEL, PROJECT
from tests.training.town import FOLDER, happened, town

from tidemill import Expect, FeatureView, Training, count
from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import Manifest, ModelInput, save_artifact, stored_manifest, stored_versions
from tidemill.records import PredictionRecord
from tidemill.training.dataset import TrainingSet, build
from tidemill.training.stages.check import alone, check, stability
from tidemill.training.stages.findings import CheckFinding
from tidemill.training.stages.serving import seen_differently
from tidemill.training.version import make_version
from tidemill_training.app import train

ROWS = 600
DRAW = np.random.default_rng(0)
LABELS = (DRAW.random(ROWS) < 0.4).astype(np.float64)
NOISE = DRAW.normal(size=ROWS)


def examples(labels: Any = LABELS, **columns: Any) -> TrainingSet:
    """A set with these inputs; a column of texts is a category."""
    inputs, values = list[ModelInput](), list[Any]()
    for name, column in columns.items():
        texts = np.asarray(column).dtype.kind == "U"
        categories = sorted(set(map(str, column))) if texts else []
        inputs.append(ModelInput(name, "category" if texts else "feature", categories))
        values.append([categories.index(str(text)) for text in column] if texts else column)
    return TrainingSet(np.stack(values, axis=1), labels, np.arange(len(labels)), ["s"] * len(labels), inputs)


def found(data: TrainingSet, before: Manifest | None = None, model: Model = MODEL, **training: Any) -> list[CheckFinding]:
    """What a check finds."""
    with_training = dataclasses.replace(model)
    object.__setattr__(with_training, "training", Training(**training))  # the inputs of these sets are not those of the model
    return check(with_training, data, before, "probability" if np.isin(data.labels, (0, 1)).all() else "value").found


def told(findings: list[CheckFinding]) -> list[str]:
    """Each in one line."""
    assert all("\n" not in str(one) for one in findings)
    return [f"{one.level}: {one}" for one in findings]


def test_a_good_set_has_nothing() -> None:
    """Numbers that help a little, some missing, a few texts."""
    texts = np.array(["a", "b", "c"])[np.arange(ROWS) % 3]
    assert found(examples(speed=NOISE + LABELS, load=np.where(NOISE > 1, np.nan, NOISE), kind=texts)) == []


@pytest.mark.parametrize(
    "leak",
    [
        LABELS * 7 + 1,  # the label itself
        np.where(LABELS > 0, NOISE, np.nan),  # known only after one outcome
        np.where(LABELS > 0, np.abs(NOISE) + 9, NOISE) * np.where(NOISE > 0, 1, -1),  # far on either side
        np.where(LABELS > 0, "paid", "open"),  # a text that is written later
    ],
)
def test_an_input_that_knows_the_label(leak: Any) -> None:
    """It is refused, whatever the way in which it knows; one that is trusted is not."""
    (finding,) = found(examples(speed=NOISE, leak=leak))
    assert finding.level == "error"
    assert str(finding).startswith("'leak' alone tells the label: an AUC of ")
    assert str(finding).endswith("write training=tm.Training(trusted=['leak'])")
    assert found(examples(speed=NOISE, leak=leak), trusted=["leak"]) == []


def test_an_input_that_nearly_knows_the_label() -> None:
    """It is told, and not refused; a good input is neither; of a value the share of its variance counts."""
    near = np.where(DRAW.random(ROWS) < 0.985, LABELS, 1 - LABELS)
    assert [one.level for one in found(examples(near=near))] == ["warning"]
    assert found(examples(good=np.where(DRAW.random(ROWS) < 0.8, LABELS, 1 - LABELS))) == []
    (finding,) = found(examples(labels=np.round(NOISE * 10), leak=np.round(NOISE * 10) / 3))
    assert (finding.level, "a share of its variance of " in finding.what) == ("error", True)


def test_an_input_that_knows_the_class() -> None:
    """Of several classes, by one against the rest; a text that is the class is one, and a good input is none."""
    classes = (np.arange(ROWS) * 7 % 13 % 3).astype(np.float64)
    texts = np.array(["late", "early", "never"])[classes.astype(int)]
    data = examples(labels=classes, leak=texts, good=classes + 2 * NOISE)
    lines = [str(one) for one in check(dataclasses.replace(MODEL, training=Training()), data, None, "probabilities").found]
    assert [line.partition(" on rows")[0] for line in lines] == ["'leak' alone tells the label: an AUC of 1"]


def test_few_rows_prove_no_leak() -> None:
    """With a handful of held-out rows anything may fit by chance."""
    assert alone(np.arange(60, dtype=np.float32), (np.arange(60) % 2).astype(float), "probability") == (0.0, 0.0)
    assert found(examples(labels=LABELS[:100], leak=LABELS[:100])) == []


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.full(ROWS, np.nan), "warning: no row has a 'x'; see that its events arrive before the questions, or leave it out"),
        (
            np.where(np.arange(ROWS) < 599, np.nan, 1.0),
            "warning: 99.8% of the rows have no 'x'; leave it out, or give its view a longer window",
        ),
        (np.full(ROWS, 3.0), "warning: 'x' is 3 in every row; leave it out"),
        (np.full(ROWS, "cash"), "warning: 'x' is cash in every row; leave it out"),
        (
            np.array([f"t{i // 3}" for i in range(ROWS)]),
            "warning: 'x' has 200 texts in 600 rows, so most are seen once or twice; leave it out, or publish a coarser one",
        ),
    ],
)
def test_inputs_that_say_nothing(column: Any, says: str) -> None:
    """Each is told with what to do."""
    assert told(found(examples(speed=NOISE, x=column))) == [says]


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (Expect(low=-1.0), "rows have a 'x' below -1, such as -"),
        (Expect(high=1.0), "rows have a 'x' above 1, such as "),
        (Expect(missing=0.05), "10.0% of the rows have no 'x', 5.0% are expected"),
        (Expect(low=-9.0, high=9.0, missing=0.2), None),
    ],
)
def test_what_is_expected_of_a_number(expect: Expect, says: str | None) -> None:
    """A set that is otherwise is refused; both bounds are allowed values."""
    findings = found(examples(x=np.where(np.arange(ROWS) % 10 == 0, np.nan, NOISE)), expect={"x": expect})
    assert [says in one.what for one in findings if says] == ([True] if says else [])
    assert all(one.level == "error" and one.mend == "correct the events, or the Expect of 'x' in training=" for one in findings)


def test_what_is_expected_of_a_text() -> None:
    """Others are named."""
    texts = np.array(["card", "cash", "coin"])[np.arange(ROWS) % 3]
    assert found(examples(pay=texts), expect={"pay": Expect(among=["card", "cash", "coin"])}) == []
    (finding,) = found(examples(pay=texts), expect={"pay": Expect(among=["card"])})
    assert finding.what == "'pay' has texts that are not expected: 'cash', 'coin'"


def version_of(data: TrainingSet) -> Manifest:
    """The manifest of a version that was trained on a set."""
    return make_version(MODEL, data, NOW_MS, lambda _: None).artifact.manifest


def test_what_is_not_as_in_the_version_before() -> None:
    """A unit that changed, values that no longer come, texts that grow; the same data again is silent."""
    many = np.array([f"t{i % 110}" for i in range(ROWS)])
    before = version_of(examples(speed=NOISE + LABELS, load=NOISE[::-1], kind=many))
    assert found(examples(speed=NOISE + LABELS, load=NOISE[::-1], kind=many), before) == []
    more = np.array([f"t{i % 110}" if i < 300 else f"u{i}" for i in range(ROWS)])
    small = msgspec.structs.replace(before, inputs=[msgspec.structs.replace(one, categories=one.categories[:40]) for one in before.inputs])
    lines = told(found(examples(speed=(NOISE + LABELS) * 1000, load=np.where(NOISE > 0, NOISE, np.nan), kind=many), small))
    assert [line.partition(" (")[0] for line in lines] == [
        f"warning: 'speed' is distributed otherwise than in version {before.version}",
        f"warning: {np.mean(NOISE <= 0):.1%} of the rows have no 'load', 0.0% in version {before.version}; see that its events still arrive in time",
        f"warning: 'load' is distributed otherwise than in version {before.version}",
        "warning: 'kind' has 110 texts, 40 in the version before; see what writes them: a category should not grow with the data",
    ]
    assert "seen once or twice" in told(found(examples(kind=more), before))[0]


def test_classes_that_are_not_those_of_before() -> None:
    """A label that came by mistake, or is lacking, is told beside the version before."""
    data = examples(speed=NOISE)
    named = dataclasses.replace(data, texts=("large", "none"))
    before = msgspec.structs.replace(version_of(examples(speed=NOISE)), classes=["large", "small"])
    assert told(found(named, before))[-2:] == [
        f"warning: classes came beside version {before.version}: 'none'; see whether the labels are right; Outcome(classes=[...]) refuses others",
        f"warning: classes went beside version {before.version}: 'small'; see whether the labels are right; Outcome(classes=[...]) refuses others",
    ]


def test_the_index_of_stability() -> None:
    """Nothing between equal shares, whatever the counts; the textbook's sum otherwise."""
    assert stability([10, 20, 30], [20, 40, 60]) == 0
    assert stability([50, 50], [25, 75]) == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5))
    assert np.isfinite(stability([0, 5], [5, 0]))


def test_a_view_of_the_event_that_asks() -> None:
    """It is told: a request sees the event once it is published."""
    own = FeatureView("own", MODEL.on, "zone", [count()], windows=["1h"])
    model = dataclasses.replace(MODEL, inputs=[*MODEL.inputs, own])
    (finding,) = found(examples(speed=NOISE), model=model)
    assert str(finding).startswith("view 'own' reads 'asked', the event that asks: a request that comes after it sees it")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A town with a version."""
    made = town(tmp_path_factory.mktemp("offline"), 150)
    data = build(PROJECT, None, MODEL, made.store, LATER, lambda _: None)
    save_artifact(str(made.root), *make_version(MODEL, data, NOW_MS, lambda _: None).artifact)
    return made


def test_what_serving_saw(world: World) -> None:
    """An input that is another in the log of predictions is told by its name; what agrees, and what few questions show, is not."""
    data = build(PROJECT, None, MODEL, world.store, LATER, lambda _: None)
    assert seen_differently(world.store, "big_tip", data) == []
    (version,) = stored_versions(str(world.root), "big_tip")
    place = [spec.name for spec in data.inputs].index("zones__age")
    for i in range(len(data)):
        row = [None if np.isnan(value) else float(value) for value in data.matrix[i]]
        row[place] = 900.0 if i % 2 else row[place]
        record = PredictionRecord(f"p{i}", "big_tip", version, int(data.times_ms[i]), NOW_MS, row, 0.5, data.subjects[i])
        other = msgspec.structs.replace(record, id=f"q{i}", version="gone", inputs=[7.0])
        world.predict([record, other])
    world.write()
    (finding,) = seen_differently(world.store, "big_tip", data)
    assert (finding.level, finding.input) == ("warning", "zones__age")
    assert "'zones__age' was another when it was served, in " in finding.what
    assert finding.what.endswith("in training, 900 served")


@pytest.mark.slow
def test_a_leak_stops_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored, and the error is one line; trusted, it is trained, and what is only told is noted."""
    events = [
        (known, name, data | ({"distance": float((data.get("tip") or 0) > 2)} if name == "asked" else {}))
        for known, name, data in happened(400)
    ]
    tips = {data["id"]: (data["tip"] or 0) > 2 for _, name, data in events if name == "trips"}
    known = [(at, name, data | {"distance": float(tips[data["id"]])} if name == "asked" else data) for at, name, data in events]
    world = World(demo(), tmp_path)
    world.publish(known)
    world.write()
    with pytest.raises(
        TidemillError, match=r"model 'big_tip': the training set is refused: 'distance' alone tells the label: an AUC of 1 "
    ):
        train(PROJECT, str(FOLDER), MODEL, str(tmp_path), LATER, lambda _: None)
    assert not (tmp_path / "models").exists()
    notes = list[str]()
    trusted = dataclasses.replace(MODEL, training=Training(trusted=["distance"]))
    made = train(PROJECT, str(FOLDER), trusted, str(tmp_path), LATER, notes.append)
    assert stored_manifest(str(tmp_path), "big_tip", made.manifest.version)[0].metrics["auc"] > 0.99
