"""The year of flights out of New York as streams of records: arithmetic on the package's CSV files. Fetches and writes nothing.

Each function returns one stream as a table: `key`, `timestamp` (event time, UTC) and the value's columns, in the order
of its records.

Protocol: event times come from `time_hour`, which is UTC and right across the changes of summer time; the local
clock columns are not. Records are ordered by event time, then by flight, so a stream is the same on every machine.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

VALUE_COLUMNS = [
    "flight_id",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "distance",
    "air_time",
    "dep_delay",
    "arr_delay",
    "sched_dep",
    "actual_dep",
    "cancelled",
]
WEATHER_COLUMNS = [
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
]
PLANE_COLUMNS = ["type", "manufacturer", "model", "engines", "seats", "engine"]
PLANES_AT = datetime(2013, 1, 1)
"""The planes are known at one instant, before the first flight."""


def read_flights(csv: bytes) -> pa.Table:
    """Return all scheduled flights, with their identity and absolute times beside the columns we keep."""
    raw = _read_csv(
        csv,
        {
            "time_hour": pa.timestamp("us", "UTC"),
            **dict.fromkeys(["carrier", "tailnum", "origin", "dest"], pa.string()),
            **dict.fromkeys(["year", "month", "day", "minute", "flight"], pa.int64()),
            **dict.fromkeys(["distance", "air_time", "dep_delay", "arr_delay"], pa.int64()),
        },
    )

    def text(name: str, width: int = 0) -> pa.ChunkedArray:
        return pc.utf8_lpad(raw[name].cast(pa.string()), width, "0")

    flight_id = pc.binary_join_element_wise(
        pc.binary_join_element_wise(raw["carrier"], text("flight"), ""),
        raw["origin"],
        pc.binary_join_element_wise(text("year", 4), text("month", 2), text("day", 2), ""),
        "-",
    )
    if len(pc.unique(flight_id)) != len(raw):
        sys.exit("two flights share an identity: carrier, number, origin and day no longer tell them apart")
    sched_dep = after_minutes(raw["time_hour"].cast(pa.timestamp("us")), raw["minute"])
    columns = {name: raw[name] for name in VALUE_COLUMNS if name in raw.column_names}
    columns |= {
        "flight_id": flight_id,
        "sched_dep": sched_dep,
        "actual_dep": after_minutes(sched_dep, raw["dep_delay"]),
        "cancelled": pc.is_null(raw["dep_delay"]),
    }
    return pa.table(columns).select(VALUE_COLUMNS)


def after_minutes(time: pa.ChunkedArray, minutes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `time` plus `minutes`, null where either is."""
    moved = pc.add(time.cast(pa.int64()), pc.multiply(minutes, MINUTE_US))
    return moved.cast(pa.timestamp("us"))


def departures(flights: pa.Table, event_time: str = "actual_dep") -> pa.Table:
    """Flights that left, keyed by plane, in the order they left.

    With `event_time="sched_dep"` the order stays and the event times are those of the plan: out of order.
    """
    left = flights.filter(pc.invert(flights["cancelled"]))
    left = left.sort_by([("actual_dep", "ascending"), ("flight_id", "ascending")])
    return pa.table(
        {"key": left["tailnum"], "timestamp": left[event_time]} | {n: left[n] for n in VALUE_COLUMNS}
    )


def flight_status(flights: pa.Table) -> pa.Table:
    """What was known of each flight, and when, keyed by flight: upserts, and a tombstone for the cancelled.

    "scheduled" two hours before the plan, "departed" at departure, deleted an hour after the plan if cancelled.
    """
    left = flights.filter(pc.invert(flights["cancelled"]))
    cancelled = flights.filter(flights["cancelled"])

    def records(of: pa.Table, time: pa.ChunkedArray, status: str | None, order: int) -> pa.Table:
        rows = len(of)
        return pa.table(
            {
                "key": of["flight_id"],
                "timestamp": time,
                "deleted": pa.repeat(status is None, rows),
                "carrier": of["carrier"] if status else pa.nulls(rows, pa.string()),
                "status": pa.repeat(pa.scalar(status, pa.string()), rows),
                "dep_delay": of["dep_delay"] if status == "departed" else pa.nulls(rows, pa.int64()),
                "order": pa.repeat(pa.scalar(order), rows),
            }
        )

    def shifted(time: pa.ChunkedArray, by_us: int) -> pa.ChunkedArray:
        return pc.add(time.cast(pa.int64()), by_us).cast(pa.timestamp("us"))

    changes = pa.concat_tables(
        [
            records(flights, shifted(flights["sched_dep"], -2 * HOUR_US), "scheduled", 0),
            records(left, left["actual_dep"], "departed", 1),
            records(cancelled, shifted(cancelled["sched_dep"], HOUR_US), None, 2),
        ]
    )
    by_time = [("timestamp", "ascending"), ("order", "ascending"), ("key", "ascending")]
    return changes.sort_by(by_time).drop_columns(["order"])


def flights_sched(flights: pa.Table) -> pa.Table:
    """Every scheduled flight, the cancelled too, keyed by flight, in the order of the plan."""
    planned = flights.sort_by([("sched_dep", "ascending"), ("flight_id", "ascending")])
    return pa.table(
        {"key": planned["flight_id"], "timestamp": planned["sched_dep"]}
        | {name: planned[name] for name in VALUE_COLUMNS}
    )


def flights_dup(planned: pa.Table) -> pa.Table:
    """The scheduled flights with repeats: a tenth of them again after 30 s (copy 1), a hundredth after 3 days (copy 2)."""
    # By a hash of the flight, so that the same ones repeat everywhere.
    share = pa.array([_hundredth(key) for key in planned["key"].to_pylist()], pa.int64())

    def copies(copy: int, below: int, later_us: int) -> pa.Table:
        of = planned.filter(pc.less(share, below))
        moved = pc.add(of["timestamp"].cast(pa.int64()), later_us).cast(pa.timestamp("us"))
        return of.set_column(1, "timestamp", moved).add_column(2, "copy", pa.repeat(pa.scalar(copy), len(of)))

    records = pa.concat_tables([copies(0, 100, 0), copies(1, 10, 30 * SECOND_US), copies(2, 1, 3 * DAY_US)])
    return records.sort_by([("timestamp", "ascending"), ("key", "ascending"), ("copy", "ascending")])


def _hundredth(key: str) -> int:
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()[:6], 16) % 100


def weather(csv: bytes) -> pa.Table:
    """What each airport's weather station saw, hour by hour, keyed by airport."""
    raw = _read_csv(csv, {"time_hour": pa.timestamp("us", "UTC"), "wind_dir": pa.int64()})
    time = raw["time_hour"].cast(pa.timestamp("us"))
    seen = {
        name: raw[name] if name == "wind_dir" else raw[name].cast(pa.float64()) for name in WEATHER_COLUMNS
    }
    records = pa.table(
        {"key": raw["origin"], "timestamp": time, "origin": raw["origin"], "obs_time": time} | seen
    )
    return records.sort_by([("timestamp", "ascending"), ("key", "ascending")])


def planes(csv: bytes) -> pa.Table:
    """What is known of each plane, keyed by its tail number, all at one instant."""
    raw = _read_csv(csv, {"tailnum": pa.string(), "year": pa.int64()}).sort_by("tailnum")
    key = raw["tailnum"]
    time = pa.repeat(pa.scalar(PLANES_AT, pa.timestamp("us")), len(raw))
    columns = {"key": key, "timestamp": time, "tailnum": key, "built": raw["year"]}
    return pa.table(columns | {name: raw[name] for name in PLANE_COLUMNS})


def streams_of(files: Mapping[str, bytes]) -> dict[str, Callable[[], pa.Table]]:
    """Return how to make each stream, by name, from the package's CSV files, by name."""
    flights = read_flights(files["flights.csv"])
    return {
        "departures": lambda: departures(flights),
        "flight_status": lambda: flight_status(flights),
        "departures_late": lambda: departures(flights, event_time="sched_dep"),
        "flights_sched": lambda: flights_sched(flights),
        "flights_dup": lambda: flights_dup(flights_sched(flights)),
        "weather": lambda: weather(files["weather.csv"]),
        "planes": lambda: planes(files["planes.csv"]),
    }


def within_month(records: pa.Table, month: str) -> pa.Table:
    """Only the records with event time in `month` (YYYY-MM, UTC), in the same order."""
    start = datetime.strptime(month, "%Y-%m")  # naive, as the column is
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    time = records["timestamp"]
    return records.filter(pc.and_(pc.greater_equal(time, start), pc.less(time, end)))


def _read_csv(csv: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
    options = pa.csv.ConvertOptions(
        null_values=["", "NA"], strings_can_be_null=True, column_types=dict(types)
    )
    return pa.csv.read_csv(io.BytesIO(csv), convert_options=options).combine_chunks()
