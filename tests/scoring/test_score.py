"""A row of a table is answered as a request at that moment was: the same inputs, the same output, the same marks, to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tests.demo_state import NOW_MS, demo, trained
from tests.proof.world import World
from tests.training.town import FOLDER, happened, town

from tidemill import FeatureView, Request
from tidemill.errors import ArtifactError, TidemillError, UnknownModel
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import Served, serve
from tidemill.models.artifact import ModelInput
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.scoring.score import Scored, Scorer, ScoreWatch, result_columns
from tidemill.scoring.tables import RequestTable, read_table, write_table
from tidemill.training.dataset import TrainingSet, build
from tidemill.training.version import make_version

pytestmark = pytest.mark.slow
MODEL = demo().models["big_tip"]
VERSION = trained(MODEL)
LATER = NOW_MS + 10**9
Row = dict[str, Any]


class Live(NamedTuple):
    """What a live system answered."""

    output: float
    degraded: dict[str, str]


def asked_rows() -> list[Row]:
    """The town's wishes, and some that live systems get: unknown and null entities, unknown texts, missing numbers, moments long after."""
    wishes = [wish for _, name, wish in happened(60) if name == "asked"]
    rows = [{name: wish[name] for name in (*MODEL.request_fields, "id")} | {"time": wish["at"]} for wish in wishes]
    far = [
        row | {"zone": "north", "time": row["time"] + hours * 3_600_000}
        for row, hours in zip(rows[-6:], (1, 5, 30, 47, 49, 200), strict=True)
    ]
    odd = [rows[30] | {"zone": None}, rows[31] | {"payment": "pearls"}, rows[32] | {"distance": None, "member": None}]
    return [*rows, *far, *odd, rows[5] | {"time": rows[5]["time"] - 10**10}]


def live_answers(rows: list[Row], root: Path) -> list[Live]:
    """Events are applied one by one as they become known; each request asks in between, by kernel, inputs and engine alone."""
    world, inputs, engine = World(demo(), root), ModelInputs(MODEL, VERSION.manifest.categories), load_engine(VERSION)
    waiting, found = happened(60), dict[int, Live]()
    for place in sorted(range(len(rows)), key=lambda i: rows[i]["time"]):
        row = rows[place]
        while waiting and waiting[0][0] <= row["time"]:
            world.publish([waiting.pop(0)])
        served: list[Served] = []
        for (view, _), key in zip(inputs.views, inputs.keys(row), strict=True):
            fold, states = world.fold(view, partition_of(key or b"", view.partitions))
            held = key in states if key is not None else False
            served.append(serve(view, fold.kernel.read(fold.kernel.encode(states[key or b""]), row["time"]) if held else None, row["time"]))
        found[place] = Live(engine.predict(vector_of(inputs.row(served, row))), inputs.degraded(served, row))
    return [found[i] for i in range(len(rows))]


def output_of(scored: Scored) -> float | None:
    """The number that a row is answered."""
    return None if scored.answer is None else scored.answer.output


def table_of(rows: list[Row], path: Path) -> RequestTable:
    """The rows as a file, and read from it."""
    write_table(path, {name: [row[name] for row in rows] for name in rows[0]})
    return read_table(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The town, all of it archived."""
    return town(tmp_path_factory.mktemp("town"), 60)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Live]:
    """The live answers."""
    return live_answers(asked_rows(), tmp_path_factory.mktemp("live"))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_rows_are_answered_as_requests_were(ending: str, world: World, expected: list[Live], tmp_path: Path) -> None:
    """Output and degraded inputs are those of a live system that was asked at that moment, whatever file the rows come in."""
    table = table_of(asked_rows(), tmp_path / f"rows.{ending}")
    done: list[int] = []
    scored = Scorer(demo(), world.store, VERSION).score(table, LATER, ScoreWatch(done=done.append))
    assert [(output_of(found), dict(found.degraded), found.error) for found in scored] == [
        (live.output, live.degraded, "") for live in expected
    ]
    assert len({output_of(found) for found in scored}) > 30
    told = {reason for live in expected for reason in live.degraded.values()}
    assert told == {"NOT_FOUND", "OUTSIDE_MAX_AGE", "UNKNOWN_CATEGORY"}
    assert done[-1] == len(table)


def test_rows_with_inputs_are_answered_by_these(world: World, tmp_path: Path) -> None:
    """A training set as a file is scored as the model answers its rows; missing inputs and unknown texts are borne as in a request."""
    examples = build(demo(), str(FOLDER), MODEL, world.store, LATER, lambda _: None)
    for path in (tmp_path / "set.parquet", tmp_path / "set.csv"):
        examples.write(path)
        scored = Scorer(demo(), world.store, VERSION).score(read_table(path), LATER, ScoreWatch())
        engine = load_engine(VERSION)
        assert [output_of(found) for found in scored] == [engine.predict(row) for row in examples.matrix]
    rows = [dict.fromkeys(MODEL.input_names), dict.fromkeys(MODEL.input_names) | {"payment": "pearls", "member": True, "distance": 2}]
    scored = Scorer(demo(), world.store, VERSION).score(table_of(rows, tmp_path / "rows.jsonl"), LATER, ScoreWatch())
    nothing = np.full(len(MODEL.input_names), math.nan, np.float32)
    some = nothing.copy()
    some[MODEL.input_names.index("member")], some[MODEL.input_names.index("distance")] = 1, 2
    assert scored == [Scored(engine.answer(nothing)), Scored(engine.answer(some), {"payment": "UNKNOWN_CATEGORY"})]


BAD: list[tuple[Row, str]] = [
    ({"distance": "far"}, "entities.distance: 'far' is not a number that float32 can hold"),
    ({"distance": 1e39}, "is not a number that float32 can hold"),
    ({"payment": 5}, "entities.payment: 5 is not text"),
    ({"member": 2}, "entities.member: 2 is not true or false"),
    ({"zone": 1.5}, "entities.zone: 1.5 is not an entity: give text or a whole number"),
    ({"time": "soon"}, "time: 'soon' is not a moment"),
    ({"time": 1_700_000_000}, "are these seconds?"),
]


def test_rows_that_requests_would_be_refused_for(world: World, tmp_path: Path) -> None:
    """A bad row has an error that says why; the rows around it are answered."""
    good = asked_rows()[20]
    table = table_of([good, *(good | bad for bad, _ in BAD), good], tmp_path / "rows.jsonl")
    first, *refused, last = Scorer(demo(), world.store, VERSION).score(table, LATER, ScoreWatch())
    assert first == last
    assert first.answer is not None
    for found, (_, says) in zip(refused, BAD, strict=True):
        assert found.answer is None
        assert says in found.error
    assert [table.where(row) for row in (0, 8)] == ["rows.jsonl:1", "rows.jsonl:9"]
    bad_inputs = [
        dict.fromkeys(MODEL.input_names) | {name: value} for name, value in (("distance", "far"), ("payment", 1), ("distance", 1e39))
    ]
    refused = Scorer(demo(), world.store, VERSION).score(table_of(bad_inputs, tmp_path / "inputs.jsonl"), LATER, ScoreWatch())
    assert [found.error for found in refused] == [
        "distance: 'far' is not a number", "payment: 1 is not text", "distance: 1e+39 is not a number that float32 can hold",
    ]  # fmt: skip


def test_a_model_that_refuses_missing_inputs_refuses_their_rows(world: World, tmp_path: Path) -> None:
    """With on_missing="refuse" a row is refused where a request would be."""
    strict = dataclasses.replace(demo(), models={"big_tip": dataclasses.replace(MODEL, on_missing="refuse")})
    rows = [asked_rows()[20] | {"zone": "north", "driver_id": 1}, asked_rows()[20] | {"zone": "nowhere"}]
    known, unknown = Scorer(strict, world.store, VERSION).score(table_of(rows, tmp_path / "rows.csv"), LATER, ScoreWatch())
    assert (known.answer is None, unknown.answer is None) == (False, True)
    assert "does not answer without these inputs: zones__count_1h (NOT_FOUND)" in unknown.error


def test_the_result_has_the_rows_and_their_answers(world: World, tmp_path: Path) -> None:
    """The result's columns are the table's, then version, output, degraded and error."""
    good = asked_rows()[20]
    table = table_of([good, good | {"payment": "pearls"}, good | {"distance": "far"}], tmp_path / "rows.jsonl")
    scorer = Scorer(demo(), world.store, VERSION)
    scored = scorer.score(table, LATER, ScoreWatch())
    write_table(tmp_path / "out.csv", result_columns(table, scored, scorer.manifest))
    made = read_table(tmp_path / "out.csv")
    assert list(made.columns) == [*good, "version", "probability", "degraded", "error"]
    assert [None if text is None else float(text) for text in made.columns["probability"]] == [output_of(found) for found in scored]
    assert made.columns["version"] == ["v1", "v1", None]
    assert json.loads(made.columns["degraded"][1]) == dict(scored[1].degraded)
    with pytest.raises(TidemillError, match="has a column version, which the result has too"):
        result_columns(made, scored, scorer.manifest)


def test_tables_and_versions_that_do_not_fit(world: World, tmp_path: Path) -> None:
    """Missing columns are named with what to give; another definition of a view, and an unknown model, are refused."""
    table = table_of([{"zone": "north", "driver_id": 1}], tmp_path / "rows.csv")
    with pytest.raises(
        TidemillError, match=r"no column distance, payment, member, .* and no input zones__count_1h; give it the columns zone,"
    ):
        Scorer(demo(), world.store, VERSION).score(table, LATER, ScoreWatch())
    views = {name: dataclasses.replace(view, windows=["2h"]) for name, view in demo().views.items()}
    inputs: list[FeatureView | Request] = [views["zones"], *MODEL.requests]
    other = dataclasses.replace(demo(), views=views, models={"big_tip": dataclasses.replace(MODEL, inputs=inputs)})
    with pytest.raises(ArtifactError, match="another definition of view"):
        Scorer(other, world.store, VERSION)
    with pytest.raises(UnknownModel):
        Scorer(dataclasses.replace(demo(), models={}), world.store, VERSION)


def test_a_model_of_requests_alone_needs_no_archive(tmp_path: Path) -> None:
    """A model without views reads nothing, and a moment is not needed."""
    model = dataclasses.replace(MODEL, inputs=list(MODEL.requests))
    project = dataclasses.replace(demo(), models={"big_tip": model})
    version = trained(model)
    table = table_of([{"distance": 2.5, "payment": "cash", "member": True}], tmp_path / "rows.jsonl")
    (found,) = Scorer(project, World(project, tmp_path / "none").store, version).score(table, LATER, ScoreWatch())
    assert found == Scored(load_engine(version).answer(np.array([2.5, 1, 1], np.float32)))


def ending(rows: Any) -> Any:
    """A step that ends its process for a distance of 103."""
    if (np.asarray(rows)[:, 0] == 103).any():
        os._exit(3)
    return rows


@pytest.mark.filterwarnings("ignore")
def test_a_row_that_ends_its_worker_has_the_error(tmp_path: Path) -> None:
    """The rows beside it are answered, as those beside a request are."""
    requests = [request for request in MODEL.requests if request.name != "payment"]
    pipeline = make_pipeline(FunctionTransformer(ending), KNNImputer(), LogisticRegression())
    model = dataclasses.replace(MODEL, inputs=requests, engine="python", pipeline=lambda: pipeline)
    draw = np.random.default_rng(0)
    values = np.column_stack([draw.normal(size=200), draw.integers(0, 2, 200)])
    inputs = [ModelInput(request.name, "number") for request in requests]
    examples = TrainingSet(values, (values[:, 0] > 0).astype(float), np.arange(200), [*map(str, range(200))], inputs)
    project = dataclasses.replace(demo(), models={"big_tip": model})
    artifact = make_version(model, examples, 0, lambda _: None).artifact
    rows = [{"distance": distance, "member": 1.0} for distance in (0.5, 103.0, -0.5)]
    scored = Scorer(project, World(project, tmp_path / "none").store, artifact).score(
        table_of(rows, tmp_path / "rows.jsonl"), 0, ScoreWatch()
    )
    assert [found.answer is not None for found in scored] == [True, False, True]
    assert "its process ended with code 3" in scored[1].error
