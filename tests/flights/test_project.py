"""The flights project: its declarations fit its events, and its features are what a plain reading of the tables gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import data
import msgspec
import numpy as np
import onnxruntime
import polars as pl
import pytest

from tidemill.declarations.project import Project, load_project
from tidemill.kernel.view import ViewKernel
from tidemill.routing.router import Router
from tidemill.streams.topics import view_topic
from tidemill.training.conversion import to_onnx

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
FROM, ASK_FROM, UNTIL = "2013-02-05T00:00:00Z", "2013-02-08T09:00:00Z", "2013-02-08T21:00:00Z"  # a snowstorm comes: delays, cancellations
EVENTS = ("planes.registered", "weather.observed", "flights.arrived", "flights.departed", "flights.scheduled")
MEANS = {
    "origin_departures": ("origin", "dep_delay"),
    "carrier_arrivals": ("carrier", "arr_delay"),
    "dest_arrivals": ("dest", "arr_delay"),
    "route_arrivals": ("route", "arr_delay"),
    "flight_number_arrivals": ("flight_number", "arr_delay"),
}


class Asked(NamedTuple):
    """A request and what the project's views answer to it: (view, feature) -> value."""

    flight: dict[str, Any]
    features: dict[tuple[str, str], float]


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.fixture(scope="module")
def project() -> Project:
    """The project as a service loads it."""
    return load_project("examples/flights")


@pytest.fixture(scope="module")
def storm(project: Project) -> list[tuple[int, str, dict[str, Any]]]:
    """The events of almost four days."""
    recording = project.recordings["year_2013"]
    return list(recording.events(_ms(FROM), _ms(UNTIL)))


@pytest.fixture(scope="module")
def asked(project: Project, storm: list[tuple[int, str, dict[str, Any]]]) -> list[Asked]:
    """Every tenth request of the last twelve hours, answered by the kernel from all that was known, as the services do."""
    kernels = {name: ViewKernel(view) for name, view in project.views.items()}
    states: dict[tuple[str, Any], Any] = {}
    waiting = sorted(
        (payload for _, name, payload in storm if name == "flights.scheduled" and payload["tailnum"]),
        key=lambda flight: flight["predict_at"],
    )
    due = iter([flight for flight in waiting if _ms(ASK_FROM) <= flight["predict_at"]][::10])
    answers, flight = [], next(due, None)
    for known_ms, name, payload in storm:
        while flight is not None and flight["predict_at"] < known_ms:
            answers.append(Asked(flight, dict(_read(kernels, states, flight))))
            flight = next(due, None)
        for view in project.views_of(project.events[name]):
            key = (view.name, payload[view.key.fields[0]])
            state = states.setdefault(key, kernels[view.name].new_state())
            kernels[view.name].apply(state, payload[view.source.time], payload["event_id"], SimpleNamespace(**payload))
    return answers


def _read(
    kernels: dict[str, ViewKernel], states: dict[tuple[str, Any], Any], flight: dict[str, Any]
) -> Iterator[tuple[tuple[str, str], float]]:
    for name, kernel in kernels.items():
        state = states.get((name, flight[kernel.view.key.name]))
        values = [math.nan] * len(kernel.view.served) if state is None else kernel.read(kernel.encode(state), flight["predict_at"]).values
        yield from (((name, feature.name), value) for feature, value in zip(kernel.view.served, values, strict=True))


def _known(table: str, key: str, flight: dict[str, Any], window_ms: int) -> pl.DataFrame:
    """What a request knows of its entity's events in a window, straight from the tables. The replay step is a multiple of the tile."""
    start_ms = max(flight["predict_at"] - window_ms, _ms(FROM))
    rows = data.event_tables()[table]
    return rows.filter(pl.col("known_at").is_between(start_ms, flight["predict_at"]) & (pl.col(key) == flight[key]))


@pytest.mark.parametrize("name", EVENTS)
def test_payloads_are_what_is_declared(project: Project, name: str) -> None:
    """Every event of the year has exactly the declared fields; nulls stand only where they are allowed."""
    assert {*EVENTS} == {*data.event_tables()}
    event, table = project.events[name], data.event_tables()[name].drop("known_at")
    assert set(table.columns) == set(event.fields)
    kinds = {pl.String: str, pl.Int64: int, pl.Float64: float}
    for column in table.iter_columns():
        kind = event.fields[column.name]
        assert kinds[type(column.dtype)] in (kind, *get_args(kind))
        assert event.nullable(column.name) == bool(column.null_count())


def test_ingestion_refuses_none_of_the_events(project: Project, storm: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Each event is routed to its views, the model's outcomes, and none to the dead letters."""
    router = Router(project)
    topics = set()
    for i, (known_ms, name, payload) in enumerate(storm):
        headers = [("ce_recordedtime", str(known_ms).encode())]
        routed = router.route(name, 0, i, known_ms, None, msgspec.json.encode(payload), headers)
        topics |= {record[0] for record in routed}
    assert not router.refused
    assert {view_topic("flights", view.log) for view in project.views.values() if view.name != "aircraft_register"} <= topics
    assert "flights.outcomes" in topics


def test_the_model_asks_for_what_a_scheduled_flight_tells(project: Project) -> None:
    """38 inputs from nine views and the timetable; categories are carrier, destination and origin."""
    model = project.models["flight_late"]
    assert len(model.input_names) == 38
    assert set(model.views) == set(project.views.values())
    assert {request.name for request in model.requests if request.type is str} == {"carrier", "dest", "origin"}
    assert set(model.request_fields) <= set(data.event_tables()["flights.scheduled"].columns)


@pytest.mark.slow
def test_every_outcome_arrives_in_time(project: Project) -> None:
    """Even the flight that was 21 hours late lands within the time the model waits for it."""
    landed = data.flights().drop_nulls("arrived_at")
    waits = landed["arrived_at"] - (landed["scheduled_at"] - data.LEAD_MS) // data.STEP_MS * data.STEP_MS
    assert waits.max() < project.models["flight_late"].outcome.wait.within_ms  # type: ignore[operator]


def test_requests_are_answered(asked: list[Asked]) -> None:
    """There are enough answers to compare, most of them with values in every view."""
    assert len(asked) > 15
    present = [not math.isnan(value) for one in asked for value in one.features.values()]
    assert np.mean(present) > 0.7


@pytest.mark.parametrize("view", list(MEANS))
def test_means_are_those_of_the_tables(project: Project, asked: list[Asked], view: str) -> None:
    """The mean delay over a window is the mean over what was known of the entity in it, and of nothing later."""
    key, column = MEANS[view]
    table = project.views[view].source.name
    compared = 0
    for flight, features in asked:
        for feature in project.views[view].served:
            if feature.aggregation.word == "mean":
                expected = _known(table, key, flight, feature.window.reach_ms)[column].mean()
                assert features[view, feature.name] == pytest.approx(math.nan if expected is None else expected, nan_ok=True)
                compared += 1
    assert compared >= len(asked)


def test_late_shares_and_counts_are_those_of_the_tables(asked: list[Asked]) -> None:
    """`late_3h` of an origin is the share of its departures of three hours that were more than 15 minutes late."""
    for flight, features in asked:
        for window, hours in (("1h", 1), ("3h", 3), ("24h", 24)):
            known = _known("flights.departed", "origin", flight, hours * HOUR_MS)
            expected = (known["dep_delay"] > 15).mean() if known.height else math.nan
            assert features["origin_departures", f"late_{window}"] == pytest.approx(expected, nan_ok=True)
        assert features["origin_departures", "count_1h"] == _known("flights.departed", "origin", flight, HOUR_MS).height


@pytest.mark.parametrize(
    ("view", "table", "column"),
    [("aircraft_arrivals", "flights.arrived", "arr_delay"), ("aircraft_departures", "flights.departed", "dep_delay")],
)
def test_the_aircraft_is_where_it_was_last_seen(asked: list[Asked], view: str, table: str, column: str) -> None:
    """The last delay of the aircraft and the seconds since then are those of its newest event known at the request."""
    seen = 0
    for flight, features in asked:
        known = _known(table, "tailnum", flight, 30 * 24 * HOUR_MS)
        if known.height:
            last = known.row(-1, named=True)
            assert features[view, f"last_{column}"] == last[column]
            assert features[view, "age"] == (flight["predict_at"] - last["known_at"]) / 1000
            seen += 1
        else:
            assert math.isnan(features[view, "age"])
    assert seen > 5


def test_the_weather_is_the_last_report_known(asked: list[Asked]) -> None:
    """A request at 14:00 sees the report of 13:51, one at 13:30 that of 12:51."""
    for flight, features in asked:
        last = _known("weather.observed", "origin", flight, 6 * HOUR_MS).row(-1, named=True)
        assert flight["predict_at"] - HOUR_MS < last["known_at"] <= flight["predict_at"]
        for name in ("dewp", "humid", "wind_speed", "precip", "visib"):
            assert features["weather", f"last_{name}"] == last[name]


@pytest.fixture(scope="module")
def matrix() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows like those of the model: minutes, whole hours, tenths, categories and gaps; and labels that depend on them."""
    random = np.random.default_rng(0)
    rows = random.normal(10, 40, (4_000, 38)).round(1).astype(np.float32)
    rows[:, 30:] = random.integers(0, 1_440, (4_000, 8))
    rows[random.random(rows.shape) < 0.1] = np.nan
    labels = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 35]) / 50 + random.normal(0, 20, 4_000) > 30
    return rows, labels


@pytest.mark.slow
def test_the_pipeline_learns_with_gaps_and_repeats_itself(
    project: Project, matrix: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    """It takes missing values, finds what decides, and gives the same model every time."""
    rows, labels = matrix
    first, second = (project.models["flight_late"].pipeline().fit(rows[:3_000], labels[:3_000]) for _ in range(2))
    assert first.score(rows[3_000:], labels[3_000:]) > 0.75
    assert np.array_equal(first.predict_proba(rows), second.predict_proba(rows))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Field onnx.AttributeProto.ints")  # skl2onnx hands a boolean where protobuf wants 0 or 1
def test_the_pipeline_is_the_same_in_onnx(project: Project, matrix: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    """The converted model agrees with scikit-learn on every row, gaps included."""
    rows, labels = matrix
    pipeline = project.models["flight_late"].pipeline().fit(rows, labels)
    session = onnxruntime.InferenceSession(to_onnx(pipeline, 38, probability=True), providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: rows})[1][:, 1]
    assert np.abs(got - pipeline.predict_proba(rows)[:, 1]).max() < 1e-5
