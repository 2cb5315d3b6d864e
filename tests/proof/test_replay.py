"""Replay says "equal" exactly when every bit can be recomputed, and names what cannot."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn.impute import KNNImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tests.demo_state import HOUR_MS, NOW_MS, demo, saved, trained, trip
from tests.proof.world import World

from tidemill import Event, FeatureView, Model, Outcome, Request
from tidemill.declarations import Selection
from tidemill.errors import ArtifactError, TidemillError, UnknownModel
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import Reading
from tidemill.models.artifact import Artifact, ModelInput, inputs_of
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.proof.replay import Replayed, logged, replay
from tidemill.records import PredictionRecord, StampEntry
from tidemill.streams.topics import view_topic
from tidemill.training.dataset import TrainingSet
from tidemill.training.version import make_version

MODEL = demo().models["big_tip"]
ZONES = ["north", "süd", "nowhere", None]


@cache
def model_version() -> Artifact:
    """A version of the model."""
    return trained(MODEL)


@cache
def model_inputs() -> ModelInputs:
    """Its inputs."""
    return ModelInputs(MODEL, model_version().manifest.categories)


def trips(count: int, seed: int = 1) -> list[tuple[int, str, dict[str, Any]]]:
    """Trips one after another, some of them late."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        known = NOW_MS + 60_000 * i
        at = known - draw.choice([0, 0, HOUR_MS, 30 * HOUR_MS])
        tip = draw.choice([None, 1.0, 3.5])
        made.append((known, "trips", trip(at, draw.choice(["north", "süd"]), draw.random(), tip, draw.randrange(3), f"t{i}")))
    return made


def seen_at(world: World, view: FeatureView, key: bytes, fence: int, time_ms: int) -> Reading | None:
    """What a reader of the online store sees at a fence."""
    fold, states = world.fold(view, partition_of(key, view.partitions), fence)
    return fold.kernel.read(fold.kernel.encode(states[key]), time_ms) if key in states else None


def predicted(world: World, i: int, share: float) -> PredictionRecord:
    """A prediction as inference makes it, when the online store had applied a share of each log."""
    given = {
        "zone": ZONES[i % 4],
        "driver_id": i % 5,
        "distance": i / 7,
        "payment": ["card", "cash", "pearls"][i % 3],
        "member": i % 2 == 0,
    }
    time_ms, stamp, served = NOW_MS + int(share * 120 * 60_000), [], []
    for (view, _), key in zip(model_inputs().views, model_inputs().keys(given), strict=True):
        reading = None
        if key is not None:
            partition = partition_of(key, view.partitions)
            fence = int(share * len(world.logs[view_topic(world.project.name, view.log), partition]))
            stamp.append(StampEntry(view.log, partition, fence))
            reading = seen_at(world, view, key, fence, time_ms)
        served.append(serve(view, reading, time_ms))
    vector = vector_of(model_inputs().row(served, given))
    output = load_engine(model_version()).predict(vector)
    return PredictionRecord(f"p{i}", MODEL.name, "v1", time_ms, time_ms, vector.tolist(), output, f"s{i}", given, stamp)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of trips, a model, and predictions made while the log grew, all in the offline store."""
    made = World(demo(), tmp_path_factory.mktemp("offline"))
    made.publish(trips(120))
    made.append(MODEL.views[0], b"north", b"poison")
    saved(str(made.root), model_version())
    made.predict(predicted(made, i, i / 20) for i in range(21))
    made.write()
    return made


def differences(results: Sequence[Replayed]) -> dict[str, list[str]]:
    """What differs, by prediction."""
    return {result.prediction.id: [found.name for found in result.differences] for result in results if not result.equal}


def test_what_was_served_is_recomputed_bit_for_bit(world: World) -> None:
    """All predictions of a growing log, with unknown entities, null ones and unknown categories, come out equal."""
    predictions = logged(world.store)
    notes: list[str] = []
    results = replay(world.project, world.store, predictions, notes.append)
    assert [result.prediction for result in results] == predictions
    assert (len(results), differences(results)) == (21, {})
    assert notes == ["big_tip v1: 21 predictions"]


def test_predictions_from_before_another_partition_count(world: World) -> None:
    """A stamp names the log it was read from, so what was served before a view was repartitioned is still found and equal."""
    views = {name: replace(view, partitions=7) for name, view in world.project.views.items()}
    inputs = [replace(item, view=views[item.view.name]) if isinstance(item, Selection) else item for item in MODEL.inputs]
    model = replace(MODEL, inputs=[views[item.name] if isinstance(item, FeatureView) else item for item in inputs])
    changed = replace(world.project, views=views, models={MODEL.name: model})
    results = replay(changed, world.store, logged(world.store))
    assert (len(results), differences(results)) == (21, {})


def test_ids_and_samples(world: World) -> None:
    """Predictions are found by id, spread over the log by a sample, and each is given once."""
    everything = logged(world.store)
    assert sorted(p.id for p in logged(world.store, ids=["p3", "p7", "p99"])) == ["p3", "p7"]
    assert [p.id for p in logged(world.store, sample=3)] == [everything[i].id for i in (0, 10, 20)]
    assert logged(world.store, sample=500) == everything
    assert replay(world.project, world.store, []) == []


class Counting(OfflineStore):
    """An offline store that notes how many predictions it gave, and of which columns; and which tables were opened."""

    given: ClassVar[list[tuple[int, Sequence[str] | None]]] = []
    opened: ClassVar[list[str]] = []

    def snapshot(self, folder: str) -> Snapshot:
        """As ever."""
        self.opened.append(folder)
        return super().snapshot(folder)

    def predictions(self, columns: Sequence[str] | None = None, ids: Collection[str] | None = None, *, shadows: bool = False) -> pa.Table:
        """As ever."""
        table = super().predictions(columns, ids, shadows=shadows)
        self.given.append((len(table), columns))
        return table


def test_a_sample_reads_no_other_prediction(world: World) -> None:
    """Of predictions outside the sample the id is all that is read."""
    Counting.given.clear()
    assert len(logged(Counting(world.root), sample=4)) == 4
    assert Counting.given == [(21, ["id"]), (4, None)]


def test_versions_of_a_model_read_its_views_once(copy: World) -> None:
    """Each prediction is recomputed by the version that answered, and what they saw is folded once for all versions."""
    artifact = model_version()
    saved(str(copy.root), artifact._replace(manifest=msgspec.structs.replace(artifact.manifest, version="v2")))
    predictions = [msgspec.structs.replace(one, version=f"v{1 + place % 2}") for place, one in enumerate(logged(copy.store))]
    tables, notes = [], list[str]()
    for some in ([one for one in predictions if one.version == "v1"], predictions):
        Counting.opened.clear()
        results = replay(copy.project, Counting(copy.root), some, notes.append)
        assert ([result.prediction for result in results], differences(results)) == (some, {})
        tables.append(list(Counting.opened))
    assert len(tables[0]) == len(tables[1]) > 0
    assert notes == ["big_tip v1: 11 predictions", "big_tip v1: 11 predictions", "big_tip v2: 10 predictions"]
    wrong = msgspec.structs.replace(predictions[1], output=predictions[1].output / 2)
    assert differences(replay(copy.project, copy.store, [predictions[0], wrong])) == {wrong.id: ["output"]}


def test_a_changed_input_and_a_changed_output_are_named(world: World) -> None:
    """A log that says something else than what was computed is found, with both numbers."""
    first, second, *_ = logged(world.store, ids=["p4", "p5"])
    inputs = list(first.inputs)
    place = MODEL.input_names.index("distance")
    inputs[place] = 99.0
    (altered,) = replay(world.project, world.store, [msgspec.structs.replace(first, inputs=inputs)])
    (found,) = altered.differences
    assert (found.name, found.logged, found.recomputed) == ("distance", 99.0, first.inputs[place])
    (wrong,) = replay(world.project, world.store, [msgspec.structs.replace(second, output=second.output / 2)])
    assert [(d.name, d.logged, d.recomputed) for d in wrong.differences] == [("output", second.output / 2, second.output)]


def test_a_null_where_a_number_was_computed_is_a_difference(world: World) -> None:
    """A missing input is not taken for equal, in neither direction."""
    (prediction,) = logged(world.store, ids=["p19"])
    inputs = [0.0 if value is None else None for value in prediction.inputs]
    (altered,) = replay(world.project, world.store, [msgspec.structs.replace(prediction, inputs=inputs)])
    assert [d.name for d in altered.differences] == MODEL.input_names


def test_a_stamp_of_another_moment_gives_other_features(world: World) -> None:
    """Replay reads the log up to the stamp and no further: an earlier stamp no longer gives what was logged."""
    (prediction,) = logged(world.store, ids=["p20"])
    earlier = [StampEntry(entry.view, entry.partition, 0) for entry in prediction.stamp]
    (altered,) = replay(world.project, world.store, [msgspec.structs.replace(prediction, stamp=earlier)])
    assert {"zones__count_1h", "zones__age", "drivers__max_fare"} <= set(differences([altered])["p20"])


def test_another_history_gives_other_features(world: World, tmp_path: Path) -> None:
    """One fare altered in the offline rows shows in the predictions that had seen it, by the name of the feature."""
    other = World(world.project, tmp_path)
    other.logs |= world.logs
    topic = view_topic(world.project.name, world.project.views["drivers"].log)
    for partition in range(4):
        log = other.logs[topic, partition] = list(other.logs[topic, partition])
        if log:
            log[0] = (log[0][0], (log[0][1] or b"").replace(b'"fare":0.', b'"fare":7.'))
    saved(str(tmp_path), model_version())
    found = differences(replay(world.project, other.write(), logged(world.store)))
    assert found
    assert {name for names in found.values() for name in names} <= {"drivers__max_fare", "output"}


def test_each_probability_of_several_classes_is_recomputed(tmp_path: Path) -> None:
    """One that differs in its last bit is named, and so is a class that the version does not have, or that the log lacks."""
    texts, draw = ("on time", "late", "cancelled"), np.random.default_rng(1)
    rows = draw.normal(size=(200, len(MODEL.plan))).astype(np.float32)
    places = draw.integers(0, 3, 200).astype(np.float64)
    inputs = inputs_of(MODEL.plan, {"payment": ["card"]})
    data = TrainingSet(rows, places, np.arange(200), [str(i) for i in range(200)], inputs, texts=texts)
    ended = Event("ended", {"at": int, "id": str, "how": str}, "at")
    model = replace(MODEL, outcome=Outcome(ended, "how", "id", classes=texts))
    project = replace(demo(), models={"big_tip": model}, events={**demo().events, "ended": ended})
    version = make_version(model, data, NOW_MS, lambda _: None).artifact
    saved(str(tmp_path), version)
    answer = load_engine(version).answer(rows[0])
    given = dict(answer.probabilities)
    told = [
        given,
        given | {"late": float(np.nextafter(np.float32(given["late"]), np.float32(1)))},
        given | {"diverted": 0.0},
        {name: given[name] for name in texts[:2]},
    ]
    records = [
        PredictionRecord(f"p{i}", "big_tip", version.manifest.version, 5, 6, rows[0].tolist(), answer.output, probabilities=one)
        for i, one in enumerate(told)
    ]
    found = replay(project, OfflineStore(tmp_path), records)
    assert [one.equal for one in found] == [True, False, False, False]
    assert [[difference.name for difference in one.differences] for one in found[1:]] == [
        ["probability of late"], ["probability of diverted"], ["probability of cancelled"]
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_version_that_serves_itself_is_recomputed(tmp_path: Path) -> None:
    """By a worker of its own, to the last bit; an answer that differs is named."""
    draw, inputs = np.random.default_rng(1), [Request("distance"), Request("member", bool)]
    model = replace(MODEL, inputs=inputs, engine="python", pipeline=lambda: make_pipeline(KNNImputer(), LogisticRegression()))
    rows = np.column_stack([draw.normal(size=200), draw.integers(0, 2, 200)]).astype(np.float32)
    data = TrainingSet(
        rows, (rows[:, 0] > 0).astype(float), np.arange(200), [*map(str, range(200))], [ModelInput(one.name, "number") for one in inputs]
    )
    version = make_version(model, data, NOW_MS, lambda _: None).artifact
    saved(str(tmp_path), version)
    given: list[dict[str, Any]] = [{"distance": 1.5, "member": None}, {"distance": -0.25, "member": True}]
    vectors = [vector_of(ModelInputs(model, {}).row([], one)) for one in given]
    outputs = [load_engine(version).predict(vector) for vector in vectors]
    outputs[1] = float(np.nextafter(np.float32(outputs[1]), np.float32(1)))
    records = [
        PredictionRecord(
            f"p{i}", "big_tip", version.manifest.version, 5, 6,
            [None if math.isnan(value) else value for value in vectors[i].tolist()], outputs[i], entities=given[i],
        )
        for i in range(2)
    ]  # fmt: skip
    found = replay(replace(demo(), models={"big_tip": model}), OfflineStore(tmp_path), records)
    assert [[difference.name for difference in one.differences] for one in found] == [[], ["output"]]


def test_a_prediction_by_tensor_has_its_output_recomputed(world: World) -> None:
    """Without entities there are only the inputs as logged, and the output."""
    (prediction,) = logged(world.store, ids=["p6"])
    tensor = msgspec.structs.replace(prediction, entities={}, stamp=[])
    (equal,) = replay(world.project, world.store, [tensor])
    assert equal.equal
    (altered,) = replay(world.project, world.store, [msgspec.structs.replace(tensor, inputs=[5.0] * len(tensor.inputs))])
    assert [d.name for d in altered.differences] == ["output"]


def test_a_prediction_without_any_entity_has_its_inputs_recomputed(world: World) -> None:
    """When a request says that none of its entities exists there is no stamp, but its own values are still compared."""
    given = {"zone": None, "driver_id": None, "distance": 1.5, "payment": "cash", "member": True}
    vector = vector_of(model_inputs().row([serve(view, None, NOW_MS) for view, _ in model_inputs().views], given))
    record = PredictionRecord(
        "q", MODEL.name, "v1", NOW_MS, NOW_MS, vector.tolist(), load_engine(model_version()).predict(vector), "s", given, []
    )
    (equal,) = replay(world.project, world.store, [record])
    assert equal.equal
    (altered,) = replay(world.project, world.store, [msgspec.structs.replace(record, entities=given | {"distance": 2.5})])
    assert "distance" in differences([altered])["q"]


@pytest.mark.parametrize("given", [{"distance": 1.5, "payment": "cash"}, {"distance": None, "payment": None}])
def test_a_model_without_views(tmp_path: Path, given: dict[str, Any]) -> None:
    """A model of Request values alone is replayed like any other, and a changed input or output is named."""
    model = replace(MODEL, name="plain", inputs=[Request("distance"), Request("payment", str)])
    project = replace(demo(), models={**demo().models, "plain": model})
    artifact, world = trained(model), World(project, tmp_path)
    saved(str(tmp_path), artifact)
    vector = vector_of(ModelInputs(model, artifact.manifest.categories).row([], given))
    output = load_engine(artifact).predict(vector)
    world.predict([PredictionRecord("a", "plain", "v1", NOW_MS, NOW_MS, vector.tolist(), output, "s", given, [])])
    predictions = logged(world.write())
    assert differences(replay(project, world.store, predictions)) == {}
    altered = msgspec.structs.replace(predictions[0], id="b", entities={"distance": 7.0, "payment": "cash"})
    wrong = msgspec.structs.replace(predictions[0], id="c", output=output / 2)
    results = replay(project, world.store, [*predictions, altered, wrong])
    assert (len(results), differences(results[:1]), differences(results[2:])) == (3, {}, {"c": ["output"]})
    assert "distance" in differences(results)["b"]


def test_models_with_and_without_views_together(world: World, tmp_path: Path) -> None:
    """Predictions of several models come back in their order."""
    model = replace(MODEL, name="plain", inputs=[Request("distance")])
    project = replace(demo(), models={**demo().models, "plain": model})
    mixed = World(project, tmp_path)
    mixed.logs |= {place: list(log) for place, log in world.logs.items()}
    saved(str(tmp_path), model_version())
    artifact = trained(model)
    saved(str(tmp_path), artifact)
    output = load_engine(artifact).predict(vector_of([2.0]))
    mixed.predict([PredictionRecord("plain1", "plain", "v1", NOW_MS, NOW_MS, [2.0], output, "s", {"distance": 2.0}, [])])
    first, second, third = logged(mixed.write(), ids=["p3", "p4", "plain1"])
    results = replay(project, mixed.store, [first, third, second])
    assert [result.prediction.id for result in results] == [first.id, third.id, second.id]
    assert differences(results) == {}


@pytest.fixture
def copy(world: World, tmp_path: Path) -> World:
    """The same log in an offline store that a test may spoil."""
    made = World(world.project, tmp_path)
    made.logs |= world.logs
    saved(str(tmp_path), model_version())
    made.write()
    return made


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_changed_model_file_is_refused(copy: World, name: str) -> None:
    """A model that is not the one that was trained recomputes nothing: the error names the file."""
    file = copy.root / "models/big_tip/v1" / name
    content = file.read_bytes()
    file.write_bytes(content[:-2] if name == "manifest.json" else content.replace(b"features", b"factures", 1))
    with pytest.raises(ArtifactError, match=name):
        replay(copy.project, copy.store, logged(copy.store, sample=1))


def test_an_unknown_version_and_an_unknown_model(world: World) -> None:
    """A model version or a model that is no longer there is named."""
    (prediction,) = logged(world.store, sample=1)
    with pytest.raises(ArtifactError, match="models/big_tip/v0 cannot be read"):
        replay(world.project, world.store, [msgspec.structs.replace(prediction, version="v0")])
    with pytest.raises(UnknownModel, match="unknown model 'old'; known: big_tip"):
        replay(world.project, world.store, [msgspec.structs.replace(prediction, model="old")])


def test_a_changed_view_definition_is_refused(world: World) -> None:
    """Tiles that mean something else now would give other features: the view is named."""
    zones = world.project.views["zones"]
    changed = FeatureView("zones", zones.source, zones.entity, zones.features, windows=zones.windows, ttl=zones.ttl, dedupe=9)
    inputs = [changed, *MODEL.inputs[1:]]
    model = Model(MODEL.name, MODEL.on, MODEL.at, MODEL.subject, inputs, MODEL.outcome, MODEL.pipeline)
    project = replace(world.project, views={**world.project.views, "zones": changed}, models={MODEL.name: model})
    with pytest.raises(ArtifactError, match="another definition of view zones; run: tidemill train big_tip"):
        replay(project, world.store, logged(world.store, sample=1))


def test_rows_that_are_not_there_yet(world: World, tmp_path: Path) -> None:
    """An offline store that ends before the served fence is not compared: the error says where it ends."""
    behind = World(world.project, tmp_path)
    behind.logs |= world.logs
    saved(str(tmp_path), model_version())
    behind.write({place: len(log) // 2 for place, log in world.logs.items()})
    with pytest.raises(TidemillError, match=r"log '\w+\.p4', partition \d: the offline store ends at \d+, below what was served; wait"):
        replay(world.project, behind.store, logged(world.store))


def test_a_stamp_without_a_fence_it_needs(world: World) -> None:
    """A prediction whose stamp lacks a view the model reads now is named with the view."""
    (prediction,) = logged(world.store, ids=["p4"])
    without = msgspec.structs.replace(prediction, stamp=[entry for entry in prediction.stamp if entry.view != "drivers.p4"])
    with pytest.raises(TidemillError, match="prediction p4 has no fence of view 'drivers'"):
        replay(world.project, world.store, [without])
