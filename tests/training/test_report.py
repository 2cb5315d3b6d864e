"""The report: whole HTML that loads nothing, with what was measured in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import msgspec
import pytest

from tidemill.training.report.charts import Axis, Series, bars, lines, ticks
from tidemill.training.report.page import page
from tidemill.training.stages.evaluation import Bin, ChampionBeside, Evaluation, Importance, LearningPoint, Loss, Segment

ONE = Evaluation(
    model="m", version="v1", output="probability", fitted_rows=800, held_out_rows=200, held_out_from=0, data="abcdef0123456789",
    metrics={"auc": 0.8, "log_loss": 0.4}, loss="log_loss", baseline={"auc": 0.5, "log_loss": 0.5}, ece=0.02,
    bins=[Bin(100, 0.1, 0.12), Bin(100, 0.7, 0.66)], roc=[(0, 0), (0.2, 0.7), (1, 1)], importance=[Importance("a<b", 0.2, 0.01)],
    segments=[Segment("zone", "north", 90, {"auc": 0.77, "log_loss": 0.41})], learning=[LearningPoint(100, 0.45), LearningPoint(800, 0.4)],
)  # fmt: skip
TWO = msgspec.structs.replace(
    ONE, version="v2", metrics={"auc": 0.9, "log_loss": 0.45}, importance=[Importance("other", -0.1, 0.0)],
    segments=[], champion=ChampionBeside("v1", 150, [Loss("log_loss", 0.45, 0.4, 0.05, 0.01, 0.09)]),
)  # fmt: skip


def svgs(html: str) -> list[ET.Element]:
    """The pictures of a page, parsed."""
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]  # noqa: S314 - our own


@pytest.mark.parametrize("runs", [[ONE], [ONE, TWO], [TWO], [msgspec.structs.replace(ONE, roc=[], output="value", bins=[], learning=[])]])
def test_a_page_is_whole_and_loads_nothing(runs: list[Evaluation]) -> None:
    """No script, no address that a browser would fetch; every picture is well-formed and its places lie within it."""
    html = page(runs)
    assert html.startswith("<!doctype html>")
    assert not re.search(r"<script|<link|<img|src=|url\(|@import|http:(?!//www\.w3\.org/2000/svg)", html)
    for svg in svgs(html):
        width, height = float(svg.attrib["width"]), float(svg.attrib["height"])
        for line in svg.iter("{http://www.w3.org/2000/svg}polyline"):
            places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
            assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert "a<b" not in html


def test_runs_stand_side_by_side() -> None:
    """Each metric has a cell for each run, the better one is marked, whatever better means; the champion and the difference are told."""
    html = page([ONE, TWO])
    assert "<title>m: 2 runs compared</title>" in html
    assert '<tr><td>auc</td><td>0.8</td><td class="best">0.9</td><td>0.5</td></tr>' in html
    assert '<tr><td>log_loss</td><td class="best">0.4</td><td>0.45</td><td>0.5</td></tr>' in html
    assert "<td>+0.05 (+0.01 to +0.09)</td>" in html
    assert [svg.attrib["aria-label"] for svg in svgs(html)] == [
        "true positive rate by false positive rate", "mean label by mean output", "log_loss, held out by rows fitted on", "importance of inputs",
    ]  # fmt: skip
    assert "a&lt;b" in html
    told = page([msgspec.structs.replace(TWO, champion=ChampionBeside("v1", 0, [], "the champion is gone"))])
    assert "v2 and v1: the champion is gone" in told


def test_runs_on_other_rows_are_not_ranked() -> None:
    """Nothing is marked as better, each has its own constant answer, and the page says why."""
    html = page([ONE, msgspec.structs.replace(TWO, held_out_from=9, baseline={"auc": 0.5, "log_loss": 0.6})])
    assert "They were measured on other rows" in html
    assert "<tr><td>log_loss</td><td>0.4</td><td>0.45</td><td>0.5</td><td>0.6</td></tr>" in html
    assert 'class="best"' not in html
    assert "other rows" not in page([ONE, TWO])


def test_what_one_run_lacks_is_a_dash() -> None:
    """Other metrics and segments stop no comparison."""
    html = page([ONE, msgspec.structs.replace(TWO, metrics={"auc": 0.9, "cost": 3.0})])
    assert "<tr><td>cost</td><td>-</td><td>3</td><td>-</td></tr>" in html
    assert "<td>0.41</td><td>-</td>" in html


def test_points_lie_where_they_belong() -> None:
    """A larger value lies higher and further to the right; a constant line can be drawn too."""
    (svg,) = svgs(
        lines([Series("a", [(0, 0), (1, 1)]), Series("b", [(0.5, 0.5)])], Axis("x", 0, 1), Axis("y", 0, 1), diagonal=True, dots=True)
    )
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert dots[0][0] < dots[2][0] < dots[1][0]
    assert dots[0][1] > dots[2][1] > dots[1][1]
    (svg,) = svgs(lines([Series("a", [(3, 3), (3, 3)])], Axis("x"), Axis("y")))
    assert "nan" not in ET.tostring(svg).decode()


def test_bars_are_as_long_as_their_values() -> None:
    """The largest is the longest; what is below zero, or unknown, has no length."""
    (svg,) = svgs(bars(["a", "b", "c", "d" * 50], [[2.0, 1.0, -1.0, float("nan")]], "t"))
    widths = [float(bar.attrib["width"]) for bar in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == 2 * widths[1] > widths[2] == widths[3] == 0


@pytest.mark.parametrize(
    ("low", "high", "found"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 23, [0, 5, 10, 15, 20]), (-0.3, 0.3, [-0.2, 0, 0.2]), (98, 102, [98, 99, 100, 101, 102])]
)  # fmt: skip
def test_axes_have_round_numbers(low: float, high: float, found: list[float]) -> None:
    """As a person would write them."""
    assert ticks(low, high) == pytest.approx(found)
