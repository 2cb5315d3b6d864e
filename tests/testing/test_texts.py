"""Text features in a world: served as texts, in a changed view, and as what a model is trained on and predicts from."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.demo_state import NOW_MS, saved
from tests.proof.world import World as StoredWorld

import tidemill as tm
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError
from tidemill.kernel.keys import entity_key, partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import ModelInput, check_manifest, model_as_trained
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.proof.replay import logged, replay
from tidemill.records import PredictionRecord, StampEntry
from tidemill.stats.histograms import held_out_reference
from tidemill.streams.topics import view_topic
from tidemill.testing import World
from tidemill.training.fitting import outputs
from tidemill.training.version import Version, make_version
from tidemill_drift.monitor import PredictionRow, compare_predictions

MINUTE = 60_000
STATUSES = ["new", "paid", "late", "é", "x" * 300]
MOVED = tm.Event("moved", {"at": int, "shop": str, "status": str | None, "amount": float}, time="at")
ASKED = tm.Event("asked", {"order": str, "at": int, "shop": str, "amount": float}, time="at", id="order")
PAID = tm.Event("paid", {"order": str, "at": int, "late": bool}, time="at", id="order")
SHOPS = tm.FeatureView(
    "shops",
    MOVED,
    "shop",
    [tm.count(), tm.last("status"), tm.first("status", windows=["10m"]), tm.distinct("status")],
    windows=["1h"],
    ttl="1d",
)


def boosted() -> Any:
    """Takes missing values as they are."""
    return HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=5, random_state=0)


def one_hot() -> Any:
    """The column of the status as one column for each text."""
    each = make_pipeline(SimpleImputer(strategy="constant", fill_value=-1), OneHotEncoder(handle_unknown="ignore"))
    return make_pipeline(make_column_transformer((each, [0]), remainder="drop"), LogisticRegression())


def by_name() -> Any:
    """The texts and the numbers, each chosen by name; a missing text is a category of its own."""
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["shops__last_status", "shops__first_status_10m"]),
        (SimpleImputer(strategy="constant", fill_value=-1), ["amount", "shops__count_1h"]),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500))


def project(pipeline: Any = boosted, view: tm.FeatureView = SHOPS) -> Project:
    """Will an order be paid late? From the newest status of its shop."""
    outcome = tm.Outcome(PAID, "late", "order", within="1h")
    inputs: list[Any] = [view.select("last_status", "count_1h", "first_status_10m"), tm.Request("amount")]
    model = tm.Model("late", ASKED, "at", "order", inputs, outcome, pipeline)
    return Project("corner", {"moved": MOVED, "asked": ASKED, "paid": PAID}, {"shops": view}, {"late": model})


def happened(orders: int, seed: int = 1) -> list[tuple[int, str, dict[str, Any]]]:
    """Shops change their status, an order is late if its shop was late; in the order of known."""
    draw, events, status = random.Random(seed), list[tuple[int, str, dict[str, Any]]](), dict[str, str]()
    for i in range(orders):
        at, shop = NOW_MS + i * MINUTE, draw.choice("abc")
        moved = draw.choice([None, *STATUSES])
        status[shop] = moved or status.get(shop, "")
        events.append((at, "moved", {"at": at - draw.choice([0, 0, 30_000]), "shop": shop, "status": moved, "amount": 1.0}))
        asked = at + 1_000
        events.append(
            (asked, "asked", {"order": f"o{i}", "at": asked, "shop": draw.choice([shop, shop, "unknown"]), "amount": draw.random()})
        )
        late = status[shop] == "late" or draw.random() < 0.1
        events.append((asked + 10_000, "paid", {"order": f"o{i}", "at": asked + 10_000, "late": late}))
    return events


def lived(of: Project, orders: int = 150) -> World:
    """A world in which all this happened."""
    world = World(of)
    for known_ms, name, data in happened(orders):
        world.publish(name, data, at=known_ms)
    return world


def move(world: World, minute: float, status: str | None, known: float | None = None) -> None:
    """A shop moves."""
    at = NOW_MS + int(minute * MINUTE)
    known_ms = at if known is None else NOW_MS + int(known * MINUTE)
    world.publish("moved", {"at": at, "shop": "a", "status": status, "amount": 1.0}, at=known_ms)


def values(world: World, minute: float, view: str = "shops", shop: str = "a") -> dict[str, Any]:
    """The texts of a shop, or why there is none."""
    found = world.features(view, shop, at=NOW_MS + int(minute * MINUTE))
    return {name: one.value if one.status == "PRESENT" else one.status for name, one in found.items() if "status" in name}


def test_the_newest_text_is_served() -> None:
    """Present, null while no event has one, expired by `ttl`, not found; a late event is not the newest, an empty text is a text."""
    world = World(Project("corner", {"moved": MOVED}, {"shops": SHOPS}))
    assert values(world, 0, shop="b") == dict.fromkeys(["last_status", "first_status_10m", "distinct_status_1h"], "NOT_FOUND")
    move(world, 0, None)
    assert values(world, 0) == {"last_status": "NULL_VALUE", "first_status_10m": "NULL_VALUE", "distinct_status_1h": 0}
    move(world, 2, "paid")
    move(world, 1, "new", known=3)
    assert values(world, 3) == {"last_status": "paid", "first_status_10m": "new", "distinct_status_1h": 2}
    move(world, 4, "")
    assert values(world, 4) == {"last_status": "", "first_status_10m": "new", "distinct_status_1h": 3}
    assert values(world, 70) == {"last_status": "", "first_status_10m": "NULL_VALUE", "distinct_status_1h": 0}
    assert set(values(world, 4 + 1_441).values()) == {"OUTSIDE_MAX_AGE"}
    move(world, 5, "\N{WATER WAVE}" * 256 + "and more")
    assert values(world, 5)["last_status"] == "\N{WATER WAVE}" * 256


def test_a_text_that_is_added_to_a_view_has_its_past() -> None:
    """The new version is filled from the archive; the old one goes on without it."""
    numbers = tm.FeatureView("shops", MOVED, "shop", [tm.count()], windows=["1h"])
    world = World(Project("corner", {"moved": MOVED}, {"shops": numbers}))
    move(world, 0, "new")
    move(world, 1, "paid")
    added = tm.FeatureView("shops", MOVED, "shop", [tm.count(), tm.last("status")], windows=["1h"])
    (change,) = world.apply(Project("corner", {"moved": MOVED}, {"shops": added}))
    assert (change.kind, change.name, change.version) == ("changed", "shops", 2)
    assert values(world, 1) == {"last_status": "paid"}
    move(world, 2, "late")
    assert (values(world, 2), values(world, 2, "shops@v1")) == ({"last_status": "late"}, {})


def test_a_training_set_has_the_text_that_a_request_would_have_seen() -> None:
    """Row by row what was served at that moment, null where nothing was; the categories are the texts of the rows."""
    world, model = lived(project()), project().models["late"]
    table, then = world.training_set("late").table(), World(project())
    rows = {row["subject"]: row for row in table.to_pylist()}
    assert len(rows) == 150
    for known_ms, name, data in happened(150):
        then.publish(name, data, at=known_ms)
        if name == "asked":
            row, found = rows[data["order"]], then.features("shops", data["shop"], at=data["at"])
            assert {f"shops__{name}": one.value for name, one in found.items() if name in model.selections[0].names} == {
                name: value for name, value in row.items() if name.startswith("shops__")
            }
    inputs = {spec.name: spec for spec in world.training_set("late").inputs}
    seen = {text for text in table["shops__last_status"].to_pylist() if text is not None}
    assert inputs["shops__last_status"] == ModelInput("shops__last_status", "text", sorted(seen))
    assert "x" * 256 in seen
    assert [spec.kind for spec in inputs.values()] == ["text", "feature", "text", "number"]


def trained(world: World) -> Version:
    """A version, deployed."""
    version = make_version(world.project.models["late"], world.training_set("late"), NOW_MS + 10**8, lambda _: None)
    world.deploy(version.artifact)
    return version


@pytest.mark.parametrize("pipeline", [boosted, one_hot])
def test_a_model_predicts_from_a_text(pipeline: Any) -> None:
    """The answer is the pipeline's for the number of the text; a missing text and one that was not there in training are missing."""
    world = lived(project(pipeline))
    version = trained(world)
    categories = version.artifact.manifest.categories["shops__last_status"]
    for minute, text, degraded in [
        (200, "late", {}),
        (201, "new", {}),
        (202, "never seen", {"shops__last_status": "UNKNOWN_CATEGORY"}),
        (203, None, {"shops__last_status": "UNKNOWN_CATEGORY"}),
    ]:
        move(world, minute, text)
        answer = world.predict("late", {"shop": "a", "amount": 0.5}, at=NOW_MS + minute * MINUTE)
        shown = answer.features["shops__last_status"]
        assert (shown.value, shown.status) == (text or "never seen", "PRESENT")
        assert {name: why for name, why in answer.degraded.items() if name == "shops__last_status"} == degraded
        first = answer.features["shops__first_status_10m"].value
        number = {name: float(i) for i, name in enumerate(categories)}.get(text or "", np.nan)
        others = version.artifact.manifest.categories["shops__first_status_10m"]
        first_number = float(others.index(first)) if first in others else np.nan
        count = answer.features["shops__count_1h"].value
        row = np.array([[number, count, first_number, 0.5]], np.float32)
        assert answer.output == pytest.approx(float(outputs(version.fitted.pipeline, row, probability=True)[0]), abs=1e-6)
    nobody = world.predict("late", {"shop": None, "amount": 0.5}, at=NOW_MS + 204 * MINUTE)
    assert nobody.degraded == dict.fromkeys(["shops__last_status", "shops__count_1h", "shops__first_status_10m"], "NOT_FOUND")


def test_a_pipeline_that_names_its_columns_gets_the_texts_themselves() -> None:
    """The answer is the pipeline's for a data frame of what the answer shows, with a text that was never there and with none."""
    world = lived(project(by_name))
    version = trained(world)
    for minute, text in [(200, "late"), (201, "new"), (202, "never seen"), (203, "x" * 300)]:
        move(world, minute, text)
        shops = ["a", None] if text == "late" else ["a"]
        for shop in shops:
            answer = world.predict("late", {"shop": shop, "amount": 0.5}, at=NOW_MS + minute * MINUTE)
            shown = {name: one.value for name, one in answer.features.items()}
            assert shown["shops__last_status"] == (text[:256] if shop else None)
            assert ("shops__last_status" in answer.degraded) == (shop is None or text == "never seen")
            row = pd.DataFrame({name: pd.Series([np.nan if value is None else value], dtype=object) for name, value in shown.items()})
            row = row.astype({name: "float32" for name in row.columns if "status" not in name})
            assert answer.output == pytest.approx(version.fitted.pipeline.predict_proba(row)[0, 1], abs=1e-6)


def test_a_late_shop_is_told_apart_by_its_text() -> None:
    """What the model learnt is in the text alone."""
    world = lived(project(one_hot), 300)
    trained(world)
    move(world, 400, "late")
    late = world.predict("late", {"shop": "a", "amount": 0.5}, at=NOW_MS + 400 * MINUTE).output
    move(world, 401, "paid")
    assert late > 0.5 > world.predict("late", {"shop": "a", "amount": 0.5}, at=NOW_MS + 401 * MINUTE).output


def test_drift_watches_a_text_as_a_category() -> None:
    """A finding names the text whose share moved; the same shares are no finding."""
    manifest = trained(lived(project(), 400)).artifact.manifest
    inputs = manifest.inputs
    draw = np.random.default_rng(1)
    rows = lived(project(), 400).training_set("late").matrix
    same = [PredictionRow(rows[i], 0.1) for i in draw.integers(0, len(rows), 400)]
    moved = [PredictionRow(np.array([inputs[0].categories.index("late"), *row.inputs[1:]], np.float32), 0.1) for row in same]
    told = [finding for finding in compare_predictions(manifest, same, 0.01) if finding.subject == "shops__last_status"]
    assert not told or max(abs(finding.effect) for finding in told) < 0.2
    found = [finding for finding in compare_predictions(manifest, moved, 0.01) if finding.subject == "shops__last_status"]
    assert [finding.what for finding in found if finding.drifted] == ["share of rare texts"], found  # half of them were new, or missing


def test_drift_tells_new_texts_from_missing_ones() -> None:
    """The reference of new texts is their share among the rows that were held out; more of them are a finding of their own."""
    manifest = trained(lived(project(by_name), 400)).artifact.manifest
    spec, histogram = manifest.inputs[0], manifest.reference["shops__last_status"]
    assert (histogram.rows, len(histogram.counts)) == (80, len(spec.categories) + 1)
    rows = lived(project(by_name), 400).training_set("late").matrix[-80:]
    same = [PredictionRow(row, 0.1) for row in rows] * 4
    unknown = float(len(spec.categories) - 1)
    new = [PredictionRow(np.array([unknown, *row.inputs[1:]], np.float32), 0.1) if i % 2 else row for i, row in enumerate(same)]
    assert not [finding for finding in compare_predictions(manifest, same, 0.01) if finding.subject == spec.name and finding.drifted]
    (found,) = [finding for finding in compare_predictions(manifest, new, 0.01) if finding.subject == spec.name and finding.drifted]
    assert found.what == "share never seen in training"


@pytest.mark.parametrize(
    ("numbers", "held_out", "counts", "missing", "unseen"),
    [
        ([0, 1, 0, 1, 2], 1, [0, 0, 0, 1, 0], 0, 1),
        ([0, 1, 2, np.nan, 2], 2, [0, 0, 0, 1, 0], 1, 0),
        ([0, 1, 2, 0, 1], 2, [0, 1, 1, 0, 0], 0, 0),
    ],
)
def test_a_text_of_held_out_rows_alone_counts_as_new(
    numbers: list[float], held_out: int, counts: list[int], missing: int, unseen: int
) -> None:
    """Each text has its bin; how many no row before had is counted beside them, and how many are missing."""
    histogram = held_out_reference(np.array(numbers, np.float32), held_out, 3)
    assert (histogram.counts, histogram.missing, histogram.unseen, histogram.rows) == (counts, missing, unseen, held_out)


@pytest.mark.parametrize("pipeline", [boosted, by_name])
def test_predictions_from_texts_are_recomputed_bit_for_bit(tmp_path: Path, pipeline: Any) -> None:
    """From the log alone: known texts, unknown ones, none, and entities that nobody knows."""
    declared = project(pipeline)
    world, model, version = StoredWorld(declared, tmp_path), declared.models["late"], trained(lived(declared))
    events = happened(60, seed=2)
    events[90:90] = [(events[90][0], "moved", {"at": events[90][0], "shop": "c", "status": "never seen", "amount": 1.0})]
    world.publish(events)
    saved(str(tmp_path), version.artifact)
    inputs, engine, records = ModelInputs(model, version.artifact.manifest.categories), load_engine(version.artifact), []
    for i, shop in enumerate(["a", "b", "c", "nobody"] * 5):
        given: dict[str, Any] = {"shop": shop, "amount": i / 20}
        partition = partition_of(entity_key(shop), SHOPS.partitions)
        fence = (i + 1) * len(world.logs[view_topic("corner", SHOPS.log), partition]) // 20
        fold, states = world.fold(SHOPS, partition, fence)
        time_ms = NOW_MS + 60 * MINUTE
        reading = fold.kernel.read_state(states[shop.encode()], time_ms) if shop.encode() in states else None
        vector = vector_of(inputs.row([serve(SHOPS, reading, time_ms)], given))
        stamp = [StampEntry(SHOPS.log, partition, fence)]
        records.append(PredictionRecord(f"p{i}", "late", version.artifact.manifest.version, time_ms, time_ms, vector.tolist(), engine.predict(vector), f"s{i}", given, stamp))  # fmt: skip
    world.predict(records)
    world.write()
    results = replay(declared, world.store, logged(world.store))
    assert (len(results), [result for result in results if not result.equal]) == (20, [])
    assert len({result.prediction.inputs[0] for result in results}) > 3


def test_a_version_goes_with_the_texts_it_was_trained_on() -> None:
    """It is found again among the versions of its view, and one whose input was a number then is refused."""
    declared = project()
    manifest, model, kernels = trained(lived(declared)).artifact.manifest, declared.models["late"], {"shops": ViewKernel(SHOPS)}
    check_manifest(manifest, model, kernels)
    read, (kernel,) = model_as_trained(manifest, model, kernels.values())
    assert (read.plan, kernel) == (model.plan, kernels["shops"])
    first, *others = manifest.inputs
    number = msgspec.structs.replace(manifest, inputs=[ModelInput(first.name, "feature"), *others])
    with pytest.raises(ArtifactError, match="trained on other inputs"):
        check_manifest(number, model, kernels)
