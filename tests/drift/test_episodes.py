"""Episodes: each begin, worsening and end is told once, and nothing else; what is open can be found again in what was told."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drift.samples import finding

from tidemill.records import AlertRecord, encode
from tidemill_drift.compare import Finding
from tidemill_drift.episodes import Episodes, JudgedWindow

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "alert.v1.schema.json").read_text())
STEPS = st.lists(st.tuples(st.sampled_from([-0.1, 0.05, 0.15, 0.25, 0.3, 0.5, 2.0]), st.booleans()), max_size=12)


def window(i: int) -> JudgedWindow:
    """The i-th window."""
    return JudgedWindow("m", "v", i * 10, (i + 1) * 10, 500)


def told(effects: list[float]) -> list[str | None]:
    """The states told about one subject, with evidence always."""
    episodes = Episodes()
    alerts = [episodes.observe(window(i), finding(effect)) for i, effect in enumerate(effects)]
    return [None if alert is None else alert.state for alert in alerts]


@pytest.mark.parametrize(
    ("effects", "states"),
    [
        ([0.1, 0.3, 0.3, 0.4, 0.5, 0.7, 0.8], [None, "opened", None, None, "worsened", None, "worsened"]),
        ([0.3, 0.15, 0.3, 0.15, 0.05, 0.05], ["opened", None, None, None, "closed", None]),
        ([0.3, -0.2, 0.3], ["opened", "closed", "opened"]),
        ([0.05, 0.1, 0.15], [None, None, None]),
    ],
)
def test_states(effects: list[float], states: list[str | None]) -> None:
    """Opened above the floor, worsened by half again of what was told last, closed below half the floor; in between silence."""
    assert told(effects) == states


def test_worsened_compares_with_what_was_told() -> None:
    """Growth in small steps is told when it adds up."""
    assert told([0.3, 0.4, 0.44, 0.46, 0.6, 0.7]) == ["opened", None, None, "worsened", None, "worsened"]


def test_without_evidence_an_episode_neither_opens_nor_ends() -> None:
    """A large size in a small sample opens nothing, and does not end what is open."""
    episodes = Episodes()
    weak = finding(0.5, statistic=1.0)
    assert episodes.observe(window(0), weak) is None
    assert episodes.observe(window(1), finding(0.5)) is not None
    assert episodes.observe(window(2), weak) is None
    end = episodes.observe(window(3), finding(0.01, statistic=1.0))
    assert end is not None
    assert end.state == "closed"


@given(STEPS, STEPS, st.integers(0, 12))
def test_restored_episodes_go_on_as_if_never_stopped(first: list[tuple[float, bool]], second: list[tuple[float, bool]], at: int) -> None:
    """Alerts read back from their topic after any window bring back the very state, for two subjects at once."""
    steps = [
        (window(i), finding_of(x, name))
        for i, pair in enumerate(zip(first, second, strict=False))
        for name, x in zip("xy", pair, strict=True)
    ]
    whole, before, after = Episodes(), Episodes(), Episodes()
    expected = [whole.observe(*step) for step in steps]
    found = [before.observe(*step) for step in steps[:at]]
    for alert in found:
        if alert is not None:
            after.restore(msgspec.json.decode(encode(alert), type=AlertRecord))
    assert found + [after.observe(*step) for step in steps[at:]] == expected
    ids = [alert.id for alert in expected if alert is not None]
    assert len(ids) == len(set(ids))


def finding_of(step: tuple[float, bool], subject: str = "x") -> Finding:
    """A finding of a size, with or without evidence."""
    return finding(step[0], statistic=100.0 if step[1] else 1.0, subject=subject)


def test_alerts_fit_the_schema_and_say_what_happened() -> None:
    """An alert is valid, carries the comparison, and reads as a sentence."""
    alert = Episodes().observe(window(3), finding(0.3))
    assert alert is not None
    jsonschema.validate(json.loads(encode(alert)), SCHEMA)
    assert (alert.start, alert.end, alert.effect, alert.statistic, alert.threshold, alert.rows) == (30, 40, 0.3, 100.0, 10.0, 500)
    assert alert.message == (
        "m: feature drift, x has moved: share of values below 1 0.1 in training's held-out rows, 0.5 now (chi-square and PSI, size 0.3, 500 rows)"
    )


def test_subjects_kinds_versions_and_models_have_episodes_of_their_own() -> None:
    """What is open for one says nothing about another."""
    episodes = Episodes()
    for other in (window(0), window(0)._replace(version="w"), window(0)._replace(model="n")):
        for kind in ("feature_drift", "data_quality"):
            alert = episodes.observe(other, finding(0.3, kind=kind))
            assert alert is not None
            assert alert.state == "opened"


def test_below_the_floor_without_evidence_an_episode_ends() -> None:
    """What is small and may be chance is over; what is small and certain is not, until it is below half the floor."""
    assert finding(0.15, statistic=1.0).calm
    assert not finding(0.15).calm
    assert finding(0.05).calm
