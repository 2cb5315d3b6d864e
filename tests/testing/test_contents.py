"""Texts and tensors that a model takes whole, in a world: trained on, predicted from, watched, and recomputed bit for bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.demo_state import NOW_MS
from tests.proof.world import World as StoredWorld
from tests.testing.desk import BAD, MINUTE, NASTY, NICE, PIXELS, SHOPS, base64, happened, lived, pictures, project, trained

import tidemill as tm
from tidemill.attribution.loading import load_explainer
from tidemill.errors import ArtifactError, BadRequest, TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import check_manifest, model_as_trained, save_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.proof.replay import logged, replay
from tidemill.records import PredictionRecord, decoder, encode
from tidemill.scoring.score import Scorer, ScoreWatch
from tidemill.scoring.tables import read_table
from tidemill.training.reproduce import SET, stored_set
from tidemill.training.stages.select import choose
from tidemill.training.version import Version
from tidemill_drift.monitor import PredictionRow, compare_predictions
from tidemill_training.mlmodel import files_of

AT = NOW_MS + 300 * MINUTE


@pytest.fixture(scope="module")
def version() -> Version:
    """A version that takes words and numbers."""
    return trained(lived(project()))


@pytest.fixture(scope="module")
def of_pictures() -> Version:
    """A version that takes a tensor and numbers."""
    return trained(lived(project([PIXELS, tm.Request("amount")], pictures)))


@pytest.mark.parametrize("note", NASTY)
def test_a_model_predicts_from_the_words_of_any_text(version: Version, note: str | None) -> None:
    """The answer is the fitted pipeline's for the text itself; what is shown and logged for it is its length."""
    world = lived(project())
    world.deploy(version.artifact)
    answer = world.predict("urgent", {"shop": "a", "note": note, "amount": 0.5}, at=AT)
    shown = answer.features["note"]
    assert (shown.value, shown.status) == ((None, "NULL_VALUE") if note is None else (len(note), "PRESENT"))
    count = answer.features["shops__count_1h"].value
    row = pd.DataFrame({"shops__count_1h": np.array([count], np.float32), "note": [note or ""], "amount": np.array([0.5], np.float32)})
    assert answer.output == pytest.approx(version.fitted.pipeline.predict_proba(row)[0, 1], abs=1e-6)
    assert answer.degraded == {}


@pytest.mark.slow
def test_what_the_model_learnt_is_in_the_words() -> None:
    """Bad words are urgent, nice ones are not, in any language."""
    world = lived(project(), 300)
    trained(world)
    for bad, nice in zip(BAD, NICE, strict=True):
        said = [world.predict("urgent", {"shop": "a", "note": text, "amount": None}, at=AT).output for text in (bad, nice)]
        assert said[0] > 0.5 > said[1]


@pytest.mark.parametrize("given", [[[1, 2, 3], [4, 5, 6]], base64([[1, 2, 3], [4, 5, 6]]), "[[1, 2, 3.0], [4, 5, 6]]"])
def test_a_model_predicts_from_a_tensor_in_any_form(of_pictures: Version, given: Any) -> None:
    """Lists, base64 and JSON in a text are the same numbers; the pipeline gets them in the tensor's place."""
    world = lived(project([PIXELS, tm.Request("amount")], pictures))
    world.deploy(of_pictures.artifact)
    answer = world.predict("urgent", {"pixels": given, "amount": None}, at=AT)
    row = np.array([[1, 2, 3, 4, 5, 6, np.nan]], np.float32)
    assert answer.output == pytest.approx(of_pictures.fitted.pipeline.predict_proba(row)[0, 1], abs=1e-6)
    assert answer.features["pixels"].value == 3.5


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (None, "never missing"),
        ([[1, 2, 3]], "has not the shape"),
        ([[1, 2, "3"], [4, 5, 6]], "'3' is not a number"),
        ([[1, 2, True], [4, 5, 6]], "True is not a number"),
        ([[1, 2, 10**400], [4, 5, 6]], "no number of float32"),
        (base64([1.0, 2.0]), "8 bytes"),
        (base64([[1, 2, math.nan], [4, 5, 6]]), "no number of float32"),
        ("no base64!", "is no base64"),
        ("[[1, 2", "is no JSON"),
        (7, "has not the shape"),
    ],
)
def test_what_is_no_tensor_of_the_shape_is_refused(of_pictures: Version, given: Any, cause: str) -> None:
    """In one line, with the shape that is meant."""
    inputs = ModelInputs(project([PIXELS, tm.Request("amount")], pictures).models["urgent"], {})
    with pytest.raises(BadRequest, match=cause) as raised:
        inputs.contents({"pixels": given, "amount": 1.0})
    assert "[2, 3]" in raised.value.mend


@pytest.mark.parametrize(("given", "cause"), [(7, "is not text"), ("é" * 20_000, "40,000 bytes"), ("\ud800", "half of a character")])
def test_what_is_no_text_or_too_long_is_refused(given: Any, cause: str) -> None:
    """At most 32 KiB of UTF-8."""
    inputs = ModelInputs(project().models["urgent"], {})
    assert inputs.contents({"note": "é" * 16_384}) == ["é" * 16_384]
    with pytest.raises(BadRequest, match=cause):
        inputs.contents({"note": given})


def test_a_row_that_would_be_refused_is_no_example() -> None:
    """A picture of another shape, in one event, costs that event alone."""
    of = project([PIXELS, tm.Request("amount")], pictures)
    world = lived(of)
    at = NOW_MS + 200 * MINUTE
    world.publish("opened", {"ticket": "odd", "at": at, "shop": "a", "note": None, "pixels": base64([1.0]), "amount": 1.0}, at=at)
    world.publish("closed", {"ticket": "odd", "at": at + 1_000, "shop": "a", "urgent": True}, at=at + 1_000)
    examples = world.training_set("urgent")
    assert (len(examples), "odd" in examples.subjects) == (150, False)


def served(version: Version, given: dict[str, Any], i: int, tensor: bool = False) -> PredictionRecord:
    """A prediction as inference logs it."""
    declared, manifest = project([tm.Words("note"), PIXELS, tm.Request("amount")]).models["urgent"], version.artifact.manifest
    inputs = ModelInputs(declared, manifest.categories)
    contents = inputs.contents(given)
    vector = vector_of(inputs.row([], given, contents))
    entities = {} if tensor else {"amount": given["amount"]}
    return PredictionRecord(
        f"p{i}", "urgent", manifest.version, AT, AT, [None if np.isnan(x) else x for x in vector.tolist()],
        load_engine(version.artifact).predict(vector, contents), f"s{i}", entities, contents=inputs.named(contents),
    )  # fmt: skip


def all_inputs() -> Any:
    """Words, the elements of a tensor, and a number, each by name."""
    from sklearn.compose import make_column_selector

    made: Any = project().models["urgent"].pipeline()
    numbers = made.steps[0][1].transformers[1]
    made.steps[0][1].transformers[1] = (numbers[0], numbers[1], make_column_selector(pattern="^(?:pixels_|amount)"))
    return made


@pytest.mark.slow
def test_predictions_from_contents_are_recomputed_bit_for_bit(tmp_path: Path) -> None:
    """From the log alone: any text, none, pictures; by entity and by tensor; and a changed content is found."""
    declared = project([tm.Words("note"), PIXELS, tm.Request("amount")], all_inputs)
    version, world = trained(lived(declared)), StoredWorld(declared, tmp_path)
    save_artifact(str(tmp_path), *version.artifact, version.beside)
    draw = np.random.default_rng(0)
    given = [{"note": note, "pixels": draw.random((2, 3)).tolist(), "amount": 0.25} for note in [*NASTY, *BAD]]
    records = [served(version, one, i, tensor=i % 5 == 4) for i, one in enumerate(given)]
    assert [decoder(PredictionRecord).decode(encode(record)) for record in records] == records
    world.predict(records)
    world.write()
    results = replay(declared, world.store, logged(world.store))
    assert (len(results), [result for result in results if not result.equal]) == (len(given), [])
    changed = msgspec.structs.replace(records[-1], contents=records[-1].contents | {"note": "thanks"})
    (found,) = replay(declared, world.store, [changed])
    assert {one.name for one in found.differences} == {"output"} | ({"note"} if records[-1].entities else set())
    explainer = load_explainer(str(tmp_path), version.artifact)
    for record in records:
        told = explainer.explain(vector_of(record.inputs), record.contents)
        assert told.method == "sampled"
        assert told.answer == pytest.approx(record.output, abs=1e-5)
        assert set(told.contributions) == {"note", "pixels", "amount"}


def test_the_manifest_keeps_no_text_of_the_set_but_golden_rows(version: Version) -> None:
    """Pools are not stored; golden rows have what they were run on; the stored set is the one that was trained on."""
    manifest = version.artifact.manifest
    assert {item.name: (item.kind, item.categories) for item in manifest.inputs}["note"] == ("words", [])
    assert len(manifest.golden) == 20
    assert any(row.contents and row.contents[0] for row in manifest.golden)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=type(manifest)) == manifest
    assert manifest.feature_importance["note"] > 0.5


@pytest.mark.slow
def test_a_stored_set_has_its_texts_again(tmp_path: Path) -> None:
    """What `reproduce` trains on: the same rows, texts and pictures."""
    declared = project([tm.Words("note"), PIXELS, tm.Request("amount")], all_inputs)
    world = lived(declared)
    version, examples = trained(world), world.training_set("urgent")
    save_artifact(str(tmp_path), *version.artifact, {**version.beside, SET: examples.to_parquet()})
    again = stored_set(str(tmp_path), version.artifact)
    assert again.inputs == examples.inputs
    assert again.table().equals(examples.table())
    assert examples.table()["note"].null_count == 15


@pytest.mark.slow
def test_drift_watches_the_length_of_a_text_and_the_mean_of_a_tensor() -> None:
    """Longer texts are a finding, brighter pictures too; the same ones are none."""
    declared = project([tm.Words("note"), PIXELS, tm.Request("amount")], all_inputs)
    world = lived(declared, 400)
    manifest, examples = trained(world).artifact.manifest, world.training_set("urgent")
    rows = np.stack([examples.numbers(i) for i in range(3)], axis=1)
    same = [PredictionRow(row, 0.5) for row in rows]
    moved = [PredictionRow(row * np.array([3, 3, 1], np.float32), 0.5) for row in rows]
    assert not [one for one in compare_predictions(manifest, same, 0.01) if one.drifted and one.subject in ("note", "pixels")]
    assert {one.subject for one in compare_predictions(manifest, moved, 0.01) if one.drifted} >= {"note", "pixels"}


def test_a_version_goes_with_what_it_takes_whole(of_pictures: Version) -> None:
    """Another shape, or words in place of a category, is another input; with a catalogue the version goes on as it was trained."""
    manifest, kernels = of_pictures.artifact.manifest, {"shops": ViewKernel(SHOPS)}
    other = project([tm.Tensor("pixels", shape=(6,)), tm.Request("amount")], pictures).models["urgent"]
    with pytest.raises(ArtifactError, match="trained on other inputs"):
        check_manifest(manifest, other, kernels)
    read, _ = model_as_trained(manifest, other, [])
    assert [(column.name, column.kind) for column in read.plan] == [("pixels", "tensor"), ("amount", "number")]
    assert tuple(read.requests[0].shape) == (2, 3)  # type: ignore[attr-defined]


def test_words_beside_others_need_names() -> None:
    """A pipeline without names cannot take a text and numbers: the error says how to choose columns."""
    world = lived(project([tm.Words("note"), tm.Request("amount")], pictures))
    with pytest.raises(TidemillError, match="names no columns") as raised:
        trained(world)
    assert "ColumnTransformer" in raised.value.mend
    assert len(happened(3)) == 6


@pytest.mark.slow
def test_mlflow_loads_what_takes_contents(version: Version, tmp_path: Path) -> None:
    """Its signature has the tensors of the graph: numbers as they are, a text as its marked terms."""
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    for name, content in files_of(version.artifact.manifest, version.artifact.onnx, "run").items():
        (tmp_path / name).write_bytes(content)
    terms = np.array([["0:refund", "0:now", "0:broken"]], object)
    found = pyfunc.load_model(str(tmp_path)).predict({"features": np.array([[1.0, 0.5]], np.float32), "note": terms})
    wanted = load_engine(version.artifact).predict(np.array([1.0, 15.0, 0.5], np.float32), ["refund now broken"])
    assert float(np.ravel(found["probability"])[0]) == pytest.approx(wanted, abs=1e-6)


def test_tables_are_scored_as_requests_are(of_pictures: Version, tmp_path: Path) -> None:
    """By the values of requests, and by all inputs as a training set has them; a row that is no tensor has an error."""
    declared = project([PIXELS, tm.Request("amount")], pictures)
    scorer = Scorer(declared, StoredWorld(declared, tmp_path).store, of_pictures.artifact)
    rows: list[dict[str, Any]] = [{"pixels": [[1, 2, 3], [4, 5, 6]], "amount": 1.0}, {"pixels": [[1]], "amount": 1.0}]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    first, wrong = scorer.score(read_table(path), AT, ScoreWatch())
    world = lived(declared)
    world.deploy(of_pictures.artifact)
    assert first.answer is not None
    assert first.answer.output == world.predict("urgent", rows[0], at=AT).output
    assert "has not the shape" in wrong.error


def test_inputs_are_not_chosen_among_what_is_whole() -> None:
    """Choosing inputs by importance is for numbers and categories."""
    declared = project([PIXELS, tm.Request("amount")], pictures)
    with pytest.raises(TidemillError, match="'pixels' is taken whole"):
        choose(declared.models["urgent"], lived(declared).training_set("urgent"), tm.Select(), lambda _: None, lambda *_: None)
