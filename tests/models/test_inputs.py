"""Input vectors: which value stands where, and what is refused."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import demo

from tidemill import Request
from tidemill.errors import BadRequest
from tidemill.kernel.served import Served
from tidemill.models.inputs import FLOAT32_MAX, UNKNOWN_TEXT, ModelInputs, vector_of

MODEL = demo().models["big_tip"]
INPUTS = ModelInputs(MODEL, {"payment": ["card", "cash"]})
GIVEN: dict[str, Any] = {"zone": "a", "driver_id": 1, "distance": 2.0, "payment": "cash", "member": True}


def served(values: list[float]) -> list[Served]:
    """Features of both views: zones has eight, drivers two, of which the model takes the second."""
    return [Served(values[:8], [], 0), Served(values[8:10], [], 0)]


@given(st.lists(st.floats(), min_size=10, max_size=10))
def test_features_come_in_the_order_of_the_model(values: list[float]) -> None:
    """Each input has the value of the feature it is named after; what float32 cannot hold is missing; the vector never overflows."""
    row = INPUTS.row(served(values), GIVEN)
    names = [f"zones__{feature.name}" for feature in demo().views["zones"].served] + ["", "drivers__max_fare"]
    by_name = dict(zip(names, values, strict=True))
    for name, value in zip(MODEL.input_names[:9], row, strict=False):
        expected = by_name[name] if abs(by_name[name]) <= FLOAT32_MAX else math.nan
        assert value == expected or (math.isnan(value) and math.isnan(expected))
    assert row[9:] == [2.0, 1.0, 1.0]
    vector = vector_of(row)
    assert vector.dtype == np.float32
    assert not np.isinf(vector).any()


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [
        ("payment", "card", 0.0),
        ("payment", "gold", math.nan),
        ("payment", None, math.nan),
        ("distance", None, math.nan),
        ("distance", 3, 3.0),
        ("distance", -1.5, -1.5),
        ("member", False, 0.0),
        ("member", None, math.nan),
    ],
)
def test_request_values_become_numbers(name: str, value: Any, number: float) -> None:
    """Categories by their place, booleans as 0 and 1, unknown and null as NaN."""
    found = INPUTS.row(served([0.0] * 10), GIVEN | {name: value})[MODEL.input_names.index(name)]
    assert found == number or (math.isnan(found) and math.isnan(number))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("payment", 1), ("payment", True), ("distance", "2"), ("distance", True), ("distance", 1e39), ("distance", 10**40), ("distance", 1 << 63),
        ("distance", [1.0]), ("member", 1), ("member", "yes"), ("payment", {}),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type_are_named(name: str, value: Any) -> None:
    """A request value that is not what was declared is refused by its name."""
    with pytest.raises(BadRequest, match=f"entities.{name}"):
        INPUTS.row(served([0.0] * 10), GIVEN | {name: value})


@pytest.mark.parametrize("end", [FLOAT32_MAX, -FLOAT32_MAX])
def test_the_ends_of_float32_are_values(end: float) -> None:
    """The largest number of float32 is an input; the next of float64 is a missing feature, and a wrong Request value."""
    beyond = math.nextafter(end, math.copysign(math.inf, end))
    assert INPUTS.row(served([end] * 10), GIVEN | {"distance": end})[:10] == [end] * 10
    assert np.isnan(INPUTS.row(served([beyond] * 10), GIVEN)[:9]).all()
    with pytest.raises(BadRequest, match=r"entities\.distance"):
        INPUTS.row(served([0.0] * 10), GIVEN | {"distance": beyond})


@pytest.mark.parametrize(("last", "beyond"), [(2**63 - 1, 2**63), (-(2**63), -(2**63) - 1)])
def test_whole_numbers_have_64_bits(last: int, beyond: int) -> None:
    """The ends of 64 bits are taken as an entity and as a Request value; the numbers after them are not."""
    given_last = GIVEN | {"driver_id": last, "distance": last}
    assert INPUTS.keys(given_last)[1] == b"%d" % last
    assert INPUTS.row(served([0.0] * 10), given_last)[9] == float(last)
    with pytest.raises(BadRequest, match=r"entities\.driver_id"):
        INPUTS.keys(GIVEN | {"driver_id": beyond})
    with pytest.raises(BadRequest, match=r"entities\.distance"):
        INPUTS.row(served([0.0] * 10), GIVEN | {"distance": beyond})


def test_whole_numbers_are_checked_where_declared() -> None:
    """A Request of type int takes 3 and 3.0, not 3.5."""
    model = dataclasses.replace(MODEL, inputs=[demo().views["zones"], Request("distance", int)])
    inputs = ModelInputs(model, {})
    assert [inputs.row(served([0.0] * 10), GIVEN | {"distance": value})[-1] for value in (3, 3.0)] == [3.0, 3.0]
    with pytest.raises(BadRequest, match="whole number"):
        inputs.row(served([0.0] * 10), GIVEN | {"distance": 3.5})


def test_keys_of_entities() -> None:
    """One key per view, in the views' order; null is no entity; what is missing or of a wrong type is named, with the mend."""
    assert INPUTS.keys(GIVEN) == [b"a", b"1"]
    assert INPUTS.keys(GIVEN | {"zone": None}) == [None, b"1"]
    wrong: Any
    for wrong in (1.5, True, [], {}, 1 << 63):
        with pytest.raises(BadRequest, match=r"entities\.driver_id"):
            INPUTS.keys(GIVEN | {"driver_id": wrong})
    with pytest.raises(BadRequest, match=r"entities\.zone is missing; model big_tip needs zone, driver_id, distance, payment, member"):
        INPUTS.keys({})


@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=1))
def test_logged_inputs_are_the_same_vector(values: list[float]) -> None:
    """A vector has the values of its row; what is written to the log (null for NaN) gives back the same bits."""
    vector = vector_of(values)
    logged = [None if math.isnan(value) else value for value in vector.tolist()]
    assert logged == [None if math.isnan(value) else value for value in values]
    assert np.array_equal(vector_of(logged), vector, equal_nan=True)


@pytest.mark.parametrize(
    ("value", "number"), [("card", 0.0), ("cash", 1.0), ("gold", 2.0), ("", 2.0), (None, math.nan), (UNKNOWN_TEXT, 2.0)]
)
def test_a_text_that_was_never_there_may_have_a_number(value: str | None, number: float) -> None:
    """Where the categories end with the mark of the unknown, such a text is told apart from none, and still named as unknown."""
    inputs = ModelInputs(MODEL, {"payment": ["card", "cash", UNKNOWN_TEXT]})
    given = GIVEN | {"payment": value}
    found = inputs.row(served([0.0] * 10), given)[MODEL.input_names.index("payment")]
    assert found == number or (math.isnan(found) and math.isnan(number))
    (many,), refused = inputs.rows([np.zeros((1, 8)), np.zeros((1, 2))], {name: [value] for name, value in given.items()})
    assert np.array_equal(many, inputs.row(served([0.0] * 10), given), equal_nan=True)
    assert not refused
    shown = Served([0.0] * 8, ["PRESENT"] * 8, 0), Served([0.0] * 2, ["PRESENT"] * 2, 0)
    assert inputs.degraded(shown, given) == ({"payment": "UNKNOWN_CATEGORY"} if number == 2.0 else {})
