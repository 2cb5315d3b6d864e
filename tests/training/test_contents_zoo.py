"""Pipelines of texts and pictures as people write them: each is trained, converted and answers as it does, for any text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.testing.desk import BAD, NICE, OPENED, SHOPS, project
from threadpoolctl import threadpool_limits

import tidemill as tm
from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.models.contents import tensor_content
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import fit
from tidemill.training.given_contents import as_served
from tidemill.training.parity import check_parity, engine_of, expected_answers
from tidemill.training.version import make_version

ROWS = 120
Made = Callable[[], Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def beside(words: Any, last: Any, numbers: Any = None) -> Any:
    """The words of the note, the amount, and the shop."""
    parts = [("n", numbers or SimpleImputer(), ["amount"]), ("w", words, "note"), ("s", OneHotEncoder(handle_unknown="ignore"), ["shop"])]
    return make_pipeline(ColumnTransformer(parts), last)


SPACED = {"token_pattern": r"\S+"}
TEXTS: dict[str, Made] = {
    "tf-idf, logistic": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "counts, naive bayes": lambda: make_pipeline(CountVectorizer(), MultinomialNB()),
    "flags of pairs, complement": lambda: make_pipeline(CountVectorizer(binary=True, ngram_range=(1, 2)), ComplementNB()),
    "counts, then tf-idf": lambda: make_pipeline(CountVectorizer(), TfidfTransformer(), SGDClassifier(loss="log_loss", random_state=0)),
    "characters within words": lambda: make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)), LogisticRegression()),
    "dampened, without accents": lambda: make_pipeline(
        TfidfVectorizer(sublinear_tf=True, strip_accents="unicode", norm="l1", stop_words=["again"]), LogisticRegression()
    ),
    "words and characters": lambda: make_pipeline(
        make_union(TfidfVectorizer(), CountVectorizer(analyzer="char", ngram_range=(2, 2))), LogisticRegression(max_iter=500)
    ),
    "best words": lambda: make_pipeline(CountVectorizer(), SelectKBest(chi2, k=8), LogisticRegression()),
    "latent": lambda: make_pipeline(TfidfVectorizer(), TruncatedSVD(4, random_state=0), LogisticRegression()),
    "searched": lambda: GridSearchCV(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), {"tfidfvectorizer__ngram_range": [(1, 1), (1, 2)]}, cv=2
    ),
}
BESIDE: dict[str, Made] = {
    "words, number, category": lambda: beside(TfidfVectorizer(), LogisticRegression()),
    "words, forest": lambda: beside(CountVectorizer(**SPACED), RandomForestClassifier(10, random_state=0)),
    "words, value": lambda: beside(TfidfVectorizer(norm=None), Ridge(), make_pipeline(SimpleImputer(), StandardScaler())),
}
PICTURES: dict[str, Made] = {
    "pixels, logistic": lambda: LogisticRegression(max_iter=2_000),
    "pixels, components": lambda: make_pipeline(StandardScaler(), PCA(8), LogisticRegression()),
    "pixels, forest": lambda: RandomForestClassifier(10, random_state=0),
    "pixels, network": lambda: MLPClassifier((16,), max_iter=400, random_state=0),
    "pixels, boosted": lambda: HistGradientBoostingClassifier(max_iter=5),
    "pixels by name": lambda: make_pipeline(
        make_column_transformer((StandardScaler(), make_column_selector(pattern="^pixels_"))), LogisticRegression()
    ),
}


def model(inputs: list[Any], made: Made) -> Model:
    """The desk's model with other inputs."""
    return project(inputs, made).models["urgent"]


def tickets() -> TrainingSet:
    """Notes, amounts and shops, as a training set has them."""
    draw = random.Random(0)
    urgent = [draw.random() < 0.5 for _ in range(ROWS)]
    notes = [" ".join(draw.sample(BAD if one else NICE, 3)) for one in urgent]
    pool, amounts = sorted(set(notes)), np.array([draw.choice([np.nan, draw.random()]) for _ in range(ROWS)])
    places = np.array([np.nan if i % 9 == 0 else pool.index(note) for i, note in enumerate(notes)])
    values = np.stack([places, amounts, np.arange(ROWS) % 3.0], axis=1)
    inputs = [ModelInput("note", "words", pool), ModelInput("amount", "number"), ModelInput("shop", "category", ["a", "b", "c"])]
    return TrainingSet(values, np.array(urgent, float), np.arange(ROWS), [str(i) for i in range(ROWS)], inputs)


def digits() -> TrainingSet:
    """Small pictures of digits: is it above four?"""
    found = datasets.load_digits()
    contents = [tensor_content(picture) for picture in found.images[: 3 * ROWS]]
    pool = sorted(set(contents))
    values = np.array([[pool.index(one)] for one in contents], np.float64)
    count = len(contents)
    spec = ModelInput("pixels", "tensor", pool, [8, 8])
    return TrainingSet(values, (found.target[:count] > 4).astype(float), np.arange(count), [str(i) for i in range(count)], [spec])


def only_notes() -> TrainingSet:
    """The notes alone."""
    found = tickets()
    return TrainingSet(found.values[:, :1], found.labels, found.times_ms, found.subjects, found.inputs[:1])


PIXELS = tm.Tensor("pixels", shape=(8, 8))
CASES: list[tuple[str, Made, list[Any], Callable[[], TrainingSet]]] = [
    *((name, made, [tm.Words("note")], only_notes) for name, made in TEXTS.items()),
    *((name, made, [tm.Words("note"), tm.Request("amount"), tm.Request("shop", str)], tickets) for name, made in BESIDE.items()),
    *((name, made, [PIXELS], digits) for name, made in PICTURES.items()),
]


@pytest.mark.parametrize(("name", "made", "inputs", "rows"), CASES, ids=[case[0] for case in CASES])
def test_a_pipeline_is_served_as_it_answers(name: str, made: Made, inputs: list[Any], rows: Callable[[], TrainingSet]) -> None:
    """On held-out rows and on strange ones, by its place in the set and as a request brings it."""
    declared = model(inputs, made)
    fitted = fit(declared, rows())
    onnx = to_onnx(fitted.pipeline, fitted.holdout.inputs, probability=fitted.probability)
    engine, expected = engine_of(declared, fitted, onnx), expected_answers(declared, fitted)
    parity = check_parity(declared, fitted, expected, engine)
    assert parity.compared > parity.rows
    assert any("strange" in one.probe.what for one in expected), name
    pooled = engine.pooled(fitted.holdout.inputs)
    for row in expected[1].probe.rows[-20:]:
        assert engine.predict(*as_served(fitted.holdout.inputs, row)) == pooled.predict(row)
    assert is_classifier(fitted.pipeline) == fitted.probability


@pytest.mark.parametrize(
    ("made", "cause", "mend"),
    [
        (lambda: make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()), "HashingVectorizer", "TfidfVectorizer"),
        (lambda: make_pipeline(TfidfVectorizer(tokenizer=str.split, token_pattern=None), LogisticRegression()), "tokenizer of its own", "token_pattern"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(made: Made, cause: str, mend: str) -> None:
    """In one line that names the step and the mend."""
    fitted = fit(model([tm.Words("note")], made), only_notes())
    with pytest.raises(TidemillError, match=cause) as raised:
        to_onnx(fitted.pipeline, fitted.holdout.inputs, probability=True)
    assert mend in raised.value.mend


@pytest.mark.slow
def test_rows_on_thresholds_of_terms_are_borne() -> None:
    """Components of repeated texts are thresholds themselves; a row that falls on the other side in float32 is told, and no difference."""
    draw, words, notes = random.Random(1), [f"w{i}" for i in range(400)], list[str]()
    urgent = list[bool]()
    for _ in range(1_500):
        again = draw.randrange(len(notes)) if notes and draw.random() < 0.2 else None
        urgent.append(draw.random() < 0.5 if again is None else urgent[again])
        some = words[:250] if urgent[-1] else words[150:]
        notes.append(" ".join(draw.choices(some, k=draw.randint(1, 30))) if again is None else notes[again])
    pool = sorted(set(notes))
    places = np.array([[pool.index(note)] for note in notes], np.float64)
    rows = TrainingSet(places, np.array(urgent, float), np.arange(1_500), [*map(str, range(1_500))], [ModelInput("note", "words", pool)])
    last = HistGradientBoostingClassifier(max_iter=40, random_state=0)
    declared = model([tm.Words("note")], lambda: make_pipeline(TfidfVectorizer(), TruncatedSVD(20, random_state=0), last))
    said = list[str]()
    version = make_version(declared, rows, 0, said.append)
    assert 0 < version.artifact.manifest.parity.on_threshold <= 0.01 * version.artifact.manifest.parity.compared
    assert "lie on a threshold" in said[-1]


def test_a_refused_pipeline_of_texts_is_not_sent_to_an_engine_that_takes_none() -> None:
    """The mend of a model that takes texts does not name engine="python"."""
    hashed = model([tm.Words("note")], lambda: make_pipeline(HashingVectorizer(n_features=64), LogisticRegression()))
    with pytest.raises(TidemillError) as raised:
        make_version(hashed, only_notes(), 0, lambda _: None)
    assert "engine=" not in raised.value.mend


def test_columns_in_a_list_or_as_a_category_are_refused() -> None:
    """A vectorizer takes one column by its name; an encoder takes no free text."""
    inputs = [tm.Words("note"), tm.Request("amount"), tm.Request("shop", str)]
    listed = model(
        inputs, lambda: make_pipeline(make_column_transformer((TfidfVectorizer(), ["note"]), (SimpleImputer(), ["amount"])), Ridge())
    )
    with pytest.raises(TidemillError) as raised:
        fit(listed, tickets())
    assert "not in a list:" in raised.value.mend
    encoded = model(
        inputs, lambda: make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["note"])), LogisticRegression())
    )
    fitted = fit(encoded, tickets())
    with pytest.raises(TidemillError, match="takes note as a category"):
        to_onnx(fitted.pipeline, fitted.holdout.inputs, probability=True)
    assert (OPENED.name, SHOPS.name) == ("opened", "shops")
