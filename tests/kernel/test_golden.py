"""Stored bytes stay what they are: packed values, patches, fences and fingerprints of some views are pinned as data.

A difference here means that every partition and every model of every project would have to be made anew. `golden_make` writes the data.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.kernel.golden import FOLDER, outcome, patched, pinned, readings
from tests.kernel.golden_views import EVERY, SINGLE, VIEWS
from tests.oracles import aggregation_kinds

from tidemill import FeatureView
from tidemill.kernel.fences import Fence
from tidemill.kernel.view import ViewKernel

ALL = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def points(view: FeatureView) -> list[dict[str, Any]]:
    """The pinned points of a view."""
    found: list[dict[str, Any]] = pinned(view.name)["points"]
    return found


@ALL
def test_equal_records_give_the_pinned_bytes(view: FeatureView) -> None:
    """Folding the pinned records anew gives every pinned byte, number and fingerprint."""
    expected = pinned(view.name)
    found = outcome(view, expected["records"])
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name] == expected[name], name


@ALL
def test_pinned_values_can_be_read(view: FeatureView) -> None:
    """What was stored decodes, encodes to the same bytes, and gives the pinned values, also without being encoded."""
    kernel = ViewKernel(view)
    for found in points(view):
        for entity in found["entities"].values():
            value = base64.b64decode(entity["value"])
            assert kernel.encode(kernel.decode(value)) == kernel.encode(kernel.reopen(value)) == value
            assert readings(kernel, value) == entity["readings"]
            state = kernel.decode(value)
            for time_ms, *_ in entity["readings"]:
                assert repr(kernel.read_state(state, time_ms)) == repr(kernel.read(value, time_ms))


@ALL
def test_pinned_fences_can_be_read(view: FeatureView) -> None:
    """A fence of a stored partition decodes to the view's definition and encodes to the same bytes."""
    for found in points(view):
        data = base64.b64decode(found["fence"])
        fence = Fence.decode(data)
        assert fence.encode() == data
        assert (fence.definition, fence.next) == (ViewKernel(view).definition, found["end"])


@pytest.mark.parametrize("view", [EVERY, SINGLE], ids=lambda view: view.name)
def test_one_changed_digit_is_noticed(view: FeatureView) -> None:
    """A record with another time gives other writes, values and fences: none of the comparisons is empty."""
    expected = pinned(view.name)
    records = [list(record) for record in expected["records"]]
    assert '"time":1' in records[-1][1]
    records[-1][1] = records[-1][1].replace('"time":1', '"time":2')
    found = outcome(view, records)
    assert found["writes"][:-1] == expected["writes"][:-1]
    assert found["writes"][-1] != expected["writes"][-1]
    for part in ("fence", "entities"):
        assert found["points"][-1][part] != expected["points"][-1][part]


def test_the_bytes_of_a_whole_fence() -> None:
    """Every field of a fence in its place, its sources in order of their partitions."""
    fence = Fence(7, "definition", 4, 123, {10: 1, 2: 5}, 1, 2, 3, 4, 9, "builder", "built")
    assert fence.encode() == (
        b'{"next":7,"definition":"definition","partitions":4,"proof":123,"sources":{"2":5,"10":1},"duplicates":1,"resent":2,"late":3,'
        b'"poison":4,"until":9,"builder":"builder","built":"built"}'
    )


def test_the_text_of_a_definition() -> None:
    """What fingerprints are made of is a text of its own, which no class's name or fields can change."""
    assert ViewKernel(SINGLE).definition_text == (
        "['golden.happened', 'number', [(600000, 6, (Slot(kind='n', column=None),))], 0, None, 3]"
    )
    assert ViewKernel(VIEWS["waiting"]).definition_text == (
        "['golden.happened', 'who', [(300000, 60, (Slot(kind='n', column=None), Slot(kind='n', column='x'), Slot(kind='sum', column='x'), "
        "Slot(kind='sum', column='y'), Slot(kind='m2', column='y'), Slot(kind='last', column='y'), Slot(kind='last_time', column=None), "
        "Slot(kind='last_time', column='x')))], 8, 7200000, 3]"
    )


def test_a_where_is_told_last_and_only_when_it_is_set() -> None:
    """So the definitions of all other views stay as they are."""
    some = FeatureView("some", SINGLE.source, "number", SINGLE.features, windows=["1h"], tile="10m", dedupe=0, where="x > 0")
    assert ViewKernel(some).definition_text == f"{ViewKernel(SINGLE).definition_text[:-1]}, where 'x > 0']"


def test_an_erase_is_told_after_that_and_only_when_it_is_set() -> None:
    """Another condition is another definition."""
    given: dict[str, Any] = {"windows": ["1h"], "tile": "10m", "dedupe": 0, "where": "x > 0"}
    views = [FeatureView("some", SINGLE.source, "number", SINGLE.features, erase=erase, **given) for erase in (None, "flag", "not flag")]
    texts = [ViewKernel(view).definition_text for view in views]
    assert texts[1:] == [f"{texts[0][:-1]}, erase {erase!r}]" for erase in ("flag", "not flag")]


def test_the_pinned_views_are_many() -> None:
    """Every aggregation there is, and every file, belongs to a view; patches, late events, duplicates and poison all occur."""
    used = {type(feature.aggregation) for view in VIEWS.values() for feature in view.served}
    assert used == set(aggregation_kinds()), "add a view to golden_views.py and pin it: python -m tests.kernel.golden_make VIEW"
    assert {path.stem for path in FOLDER.glob("*.json")} == set(VIEWS)
    fences = {name: Fence.decode(base64.b64decode(points(view)[-1]["fence"])) for name, view in VIEWS.items()}
    for counter in ("duplicates", "resent", "late", "poison"):
        assert sum(bool(getattr(fence, counter)) for fence in fences.values()) > 3, counter
    patches = {name: sum(bool(write[3]) for write in pinned(name)["writes"]) for name in VIEWS}
    assert sum(count > 10 for count in patches.values()) >= 3, patches
    assert max(len(write[3]) for name in VIEWS for write in pinned(name)["writes"]) >= 3


def test_pieces_are_put_in_their_places() -> None:
    """The helper that does what the store does with a patch."""
    assert patched(b"abcdef", 6, [(0, b"X"), (3, b"YZ")]) == b"XbcYZf"
