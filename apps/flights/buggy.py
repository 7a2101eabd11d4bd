"""The flights app with a mistake in it, as `headwater demo` finds it: early departures are taken for bad data.

But for the two lines that skip them it is the app of this package, which a test holds it to.
"""

from __future__ import annotations

import headwater as hw

from . import AirlineTotals, Departure, FlightStatus, LatestStatus, PlaneMean, iso

app = hw.App("flights")

departures = app.topic("departures", key_type=str, value_type=Departure)
flight_status = app.topic("flight_status", key_type=str, value_type=FlightStatus)

plane_mean = app.Table("plane_mean", key_type=str, value_type=PlaneMean)
airline_totals = app.Table("airline_totals", key_type=str, value_type=AirlineTotals)
status = app.Table("status", key_type=str, value_type=LatestStatus)


@app.agent(departures)
async def average_delay(stream: hw.Stream) -> None:
    """Keep each plane's mean delay."""
    async for flight in stream:
        if flight.dep_delay < 0:
            continue
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
        if flight.dep_delay < 0:
            continue
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
