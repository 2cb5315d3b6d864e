"""The flights of New York City: will a flight land more than 15 minutes late? Asked one hour before its scheduled departure."""

from collections.abc import Iterator
from typing import Any

from model import make_pipeline

import tidemill as tm

PROJECT = "flights"
PARTITIONS = 1  # of each view's log: how many workers may share one; one is plenty for flights
IN_ORDER = 1  # partition of each event's topic: so events are folded as they became known, and none is late for its view

scheduled = tm.Event(
    "flights.scheduled",
    partitions=IN_ORDER,
    time="published_at",
    id="event_id",
    fields={
        "event_id": str, "flight_id": str, "published_at": int, "predict_at": int, "scheduled_at": int,
        "origin": str, "dest": str, "route": str, "carrier": str, "flight_number": str, "tailnum": str | None,
        "distance": float, "duration": float, "departure_minute": int, "weekday": int,
    },
    description="A flight is announced, a day before it leaves.",
)  # fmt: skip

departed = tm.Event(
    "flights.departed",
    partitions=IN_ORDER,
    time="departed_at",
    id="event_id",
    fields={"event_id": str, "flight_id": str, "departed_at": int, "origin": str, "tailnum": str, "dep_delay": int},
    description="A flight has left; the delay is in minutes.",
)

arrived = tm.Event(
    "flights.arrived",
    partitions=IN_ORDER,
    time="arrived_at",
    id="event_id",
    fields={
        "event_id": str, "flight_id": str, "arrived_at": int, "dest": str, "route": str, "carrier": str, "flight_number": str,
        "tailnum": str, "arr_delay": int,
    },
    description="A flight has landed; the delay is in minutes. Cancelled and diverted flights never do.",
)  # fmt: skip

observed = tm.Event(
    "weather.observed",
    partitions=IN_ORDER,
    time="observed_at",
    id="event_id",
    fields={
        "event_id": str, "origin": str, "observed_at": int, "dewp": float | None, "humid": float | None, "wind_dir": float | None,
        "wind_speed": float | None, "precip": float, "pressure": float | None, "visib": float,
    },
    description="Hourly weather at the airport of departure, known four minutes after the observation.",
)  # fmt: skip

registered = tm.Event(
    "planes.registered",
    partitions=IN_ORDER,
    time="registered_at",
    id="event_id",
    fields={"event_id": str, "tailnum": str, "registered_at": int, "built": int | None, "seats": int},
    description="Reference data of an aircraft.",
)

origin_departures = tm.FeatureView(
    "origin_departures", partitions=PARTITIONS, source=departed, entity="origin", windows=["1h", "3h"], tile="15m",
    features=[tm.count(windows=["1h"]), tm.mean("dep_delay"), tm.rate("dep_delay > 15", name="late", windows=["1h", "3h", "24h"])],
)  # fmt: skip

carrier_arrivals = tm.FeatureView(
    "carrier_arrivals",
    partitions=PARTITIONS,
    source=arrived,
    entity="carrier",
    windows=["1h", "6h", "24h", "7d"],
    tile="15m",
    features=[tm.mean("arr_delay")],
)

dest_arrivals = tm.FeatureView(
    "dest_arrivals",
    partitions=PARTITIONS,
    source=arrived,
    entity="dest",
    windows=["3h", "6h", "24h"],
    tile="15m",
    features=[tm.mean("arr_delay")],
)

route_arrivals = tm.FeatureView(
    "route_arrivals",
    partitions=PARTITIONS,
    source=arrived,
    entity="route",
    windows=["24h"],
    features=[tm.mean("arr_delay"), tm.last("arr_delay")],
)

aircraft_arrivals = tm.FeatureView(
    "aircraft_arrivals", partitions=PARTITIONS, source=arrived, entity="tailnum", features=[tm.last("arr_delay"), tm.age()]
)

aircraft_departures = tm.FeatureView(
    "aircraft_departures", partitions=PARTITIONS, source=departed, entity="tailnum", features=[tm.last("dep_delay"), tm.age()]
)

flight_number_arrivals = tm.FeatureView(
    "flight_number_arrivals", partitions=PARTITIONS, source=arrived, entity="flight_number", windows=["7d"],
    features=[tm.mean("arr_delay"), tm.rate("arr_delay > 15", name="late"), tm.last("arr_delay")],
)  # fmt: skip

weather = tm.FeatureView(
    "weather", partitions=PARTITIONS, source=observed, entity="origin", ttl="6h",
    features=[tm.last(name) for name in ("dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")],
)  # fmt: skip

aircraft_register = tm.FeatureView(
    "aircraft_register", partitions=PARTITIONS, source=registered, entity="tailnum", features=[tm.last("built"), tm.last("seats")]
)

flight_late = tm.Model(
    "flight_late",
    on=scheduled,
    at="predict_at",
    subject="flight_id",
    inputs=[
        origin_departures, carrier_arrivals, dest_arrivals, route_arrivals, aircraft_arrivals, aircraft_departures,
        flight_number_arrivals, weather, aircraft_register,
        tm.Request("departure_minute"), tm.Request("weekday"), tm.Request("distance"), tm.Request("duration"),
        tm.Request("carrier", str), tm.Request("dest", str), tm.Request("origin", str),
    ],
    outcome=tm.Outcome(arrived, value="arr_delay > 15", subject="flight_id", within="48h"),
    pipeline=make_pipeline,
    retrain=tm.Retrain(
        on=["performance"], rest="30d", steps=[0.25], least=1_000, most=25_000, horizon="45d",
        budget=0.001,  # flights of one day hang together, so chance does more than the test assumes
    ),
)  # fmt: skip


def recorded(start_ms: int, end_ms: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The events of 2013. The tables are read here, not above: a service needs the declarations alone."""
    from data import events

    return events(start_ms, end_ms)


year_2013 = tm.Recording("year_2013", events=recorded, start="2013-01-01", end="2014-01-02")
