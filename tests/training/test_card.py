"""A model card says what its manifest, its record and the declarations say, as JSON that reads back and as a page that needs nothing."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from tests.demo_state import demo, trained

from tidemill.declarations import Model
from tidemill.models.artifact import Manifest
from tidemill.stats.histograms import reference
from tidemill.training.card import ModelCard, card_of, middle
from tidemill.training.card_page import card_page
from tidemill.training.made_with import MadeWith
from tidemill.training.stages.chosen import ChosenPipeline

MODEL: Model = dataclasses.replace(demo().models["big_tip"], description="Tips <above> two & more")
RECORD = MadeWith(
    5, False, "z80 CP/M", {"python": "3.11.9", "numpy": "2.0"}, {"project.py": "ab"}, "cd", "Pipeline(C=1.0)", "ef", [80], ChosenPipeline()
)


def manifest() -> Manifest:
    """One with distributions and importance."""
    made = trained(MODEL).manifest
    numbers = np.arange(100.0)
    numbers[:10] = np.nan
    seen = {"distance": reference(numbers), "payment": reference(np.zeros(10), category=True), "zones__age": reference(np.full(10, np.nan))}
    importance = {item.name: 0.0 for item in made.inputs} | {"payment": 0.25, "distance": 0.75}
    return msgspec.structs.replace(made, reference=seen, feature_importance=importance, explanation_sha256="12", metrics={"auc": 0.75})


def test_a_card_says_what_is_known() -> None:
    """Question, data, inputs by importance, files and limits; it reads back from its JSON."""
    card = card_of(manifest(), "ff", MODEL, RECORD, "champion")
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
    assert card.question is not None
    assert (card.question.asked_on, card.question.outcome, card.question.missing) == ("asked", "tip > 2", "predict")
    first, second = card.inputs[:2]
    assert (first.name, first.importance, first.missing_share, first.texts) == ("distance", 0.75, 0.1, None)
    assert (first.low, first.high) == pytest.approx((19, 91), abs=1)
    assert (second.name, second.texts, second.low) == ("payment", 2, None)
    assert card.files == {"manifest.json": "ff", "model.onnx": manifest().onnx_sha256, "explanation.npz": "12"}
    assert "Training had no value of zones__age." in card.limits


def test_what_is_not_known_is_said() -> None:
    """A version of before, and of a model that is declared no more."""
    card = card_of(trained(MODEL).manifest, "ff", None, None, "none")
    assert (card.question, card.made_with, card.explained, "explanation.npz" in card.files) == (None, None, False, False)
    said = " ".join(card.limits)
    for limit in ("Which inputs count is not known", "declares this model no more", "was not recorded"):
        assert limit in said
    assert "came from a file" in " ".join(card_of(manifest(), "f", MODEL, msgspec.structs.replace(RECORD, own_labels=True), "none").limits)


@pytest.mark.parametrize("known", [True, False])
def test_the_page_is_whole(known: bool) -> None:
    """Well formed, escaped, with every input, and without anything from elsewhere."""
    card = card_of(manifest(), "ff", MODEL, RECORD, "champion") if known else card_of(trained(MODEL).manifest, "ff", None, None, "none")
    text = card_page(card)
    body = text[text.index("<h1>") : text.rindex("</html>")]
    shown = " ".join(ElementTree.fromstring(f"<div>{body}</div>").itertext())  # noqa: S314 - made here
    assert all(item.name in shown for item in card.inputs)
    assert all(limit in shown for limit in card.limits)
    assert ("Tips <above> two & more" in shown) == known
    assert ("Pipeline(C=1.0)" in shown) == known
    assert not re.search(r"https?://|<script|<link", text)


def test_the_middle_of_few_and_of_no_values() -> None:
    """A number that is nearly always the same, and one that never is there."""
    assert middle(reference(np.array([1.0] * 99 + [5.0])))[0] == 1.0
    assert middle(reference(np.full(5, np.nan))) == (None, None)
