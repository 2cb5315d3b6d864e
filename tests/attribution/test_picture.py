"""The picture of an explanation shows every contribution, and needs nothing but itself."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tidemill.attribution.explainer import Attribution
from tidemill.attribution.picture import bars, page, told, value_texts
from tidemill.models.artifact import ModelInput

FOUND = Attribution("trees", "log_odds", -1.0, 0.5, {"a<b": 2.0, "c": -0.75, "d": 0.25})
SAMPLED = Attribution("sampled", "value", 1.0, 3.0, {"a<b": 2.0, "c": 0.0}, {"a<b": 0.5, "c": 0.1})


def test_bars_lead_from_the_base_to_the_answer() -> None:
    """Each begins where the one before ended; what is too much is one bar, and nothing is lost."""
    whole = bars(FOUND, {"c": "5"}, 10)
    assert [(bar.name, bar.value, bar.begin, bar.end) for bar in whole] == [
        ("a<b", "", -1.0, 1.0),
        ("c", "5", 1.0, 0.25),
        ("d", "", 0.25, 0.5),
    ]
    few = bars(FOUND, {}, 2)
    assert [(bar.name, bar.contribution) for bar in few] == [("a<b", 2.0), ("2 other inputs", -0.5)]
    assert few[-1].end == FOUND.answer
    assert [bar.error for bar in bars(SAMPLED, {}, 5)] == [0.5, 0.1]


@pytest.mark.parametrize("found", [FOUND, SAMPLED, Attribution("additive", "probability", 0.5, 0.5, {"a<b": 0.0, "c": 0.0})])
def test_a_page_is_whole(found: Attribution) -> None:
    """Names are escaped, the SVG is well formed, and nothing is fetched."""
    text = page("prediction p1 of m@v1", "value 3", found, {"c": '"x" & <y>'})
    (svg,) = re.findall(r"<svg.*</svg>", text, re.DOTALL)
    drawn = "".join(ElementTree.fromstring(svg).itertext())  # noqa: S314 - made here
    assert "a<b" in drawn
    assert 'c = "x" & <y>' in drawn
    assert svg.count("<rect") == len(found.contributions)
    assert not re.search(r"https?://|<script|<link", text)
    assert told(found) in text


def test_values_are_shown_as_people_know_them() -> None:
    """Numbers, texts of categories, what is missing, and what was not there in training; of a free text its beginning, of a tensor its shape."""
    inputs = [ModelInput("n", "number"), ModelInput("t", "category", ["card", "cash", "\uffffunknown"])]
    whole = [ModelInput("w", "words"), ModelInput("x", "tensor", shape=[2, 3])]
    assert value_texts(whole, [70.0, 0.25], {"w": "please\n help" + "!" * 58, "x": ""}) == {
        "w": "please help" + "!" * 48 + "…", "x": "2 x 3, mean 0.25",
    }  # fmt: skip
    assert value_texts(whole, [None, 1.0], {"x": ""})["w"] == "-"
    rows: list[list[float | None]] = [[2.5, 1.0], [None, None], [1e9, 2.0]]
    assert [list(value_texts(inputs, row, {}).values()) for row in rows] == [
        ["2.5", "cash"],
        ["-", "-"],
        ["1e+09", "(not there in training)"],
    ]
