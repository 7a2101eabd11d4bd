"""Question 3: what was the weather when each flight was to leave? In the very hour, and as of the latest observation.

Results: the topics `f03_weather_1h` and `f03_weather_asof`; a flight without an observation has nulls.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import headwater as hw

app = hw.App("flights_f03")

HOUR = timedelta(hours=1)


class Flight(hw.Record):
    """A flight that was planned; its event time is when it was to leave."""

    flight_id: str
    origin: str
    sched_dep: str


class Weather(hw.Record):
    """What an airport's weather station saw. Keyed by airport."""

    origin: str
    obs_time: str
    temp: float | None = None
    wind_speed: float | None = None
    visib: float | None = None


flights = app.topic("flights_sched", value_type=Flight).stream()
weather = app.topic("weather", value_type=Weather)


def in_the_hour(flight: Flight, seen: Weather | None) -> dict[str, Any]:
    """Return a flight with the observation of its hour."""
    return {
        "flight_id": flight.flight_id,
        "obs_time": seen and seen.obs_time,
        "temp": seen and seen.temp,
    }


def as_of(flight: Flight, seen: Weather | None) -> dict[str, Any]:
    """Return a flight with the latest observation, and how old that was in minutes."""
    row = {"flight_id": flight.flight_id, "origin": flight.origin, "timestamp": flight.sched_dep}
    if seen is None:
        return {**row, "obs_time": None, "temp": None, "wind_speed": None, "visib": None, "age_min": None}
    age = datetime.fromisoformat(flight.sched_dep) - datetime.fromisoformat(seen.obs_time)
    return {
        **row,
        "obs_time": seen.obs_time,
        "temp": seen.temp,
        "wind_speed": seen.wind_speed,
        "visib": seen.visib,
        "age_min": age // timedelta(minutes=1),
    }


# Texts of one form: the first 13 letters are day and hour.
flights.join(
    weather.stream(),
    on=(
        ["origin", lambda flight: flight.sched_dep[:13]],
        ["origin", lambda seen: seen.obs_time[:13]],
    ),
    within=(HOUR, 0),
    how="left",
    select=in_the_hour,
    name="in_the_hour",
).to(app.topic("f03_weather_1h"))

flights.join(
    weather.stream().table("weather"),
    on="origin",
    as_of=True,
    how="left",
    select=as_of,
    name="as_of",
).to(app.topic("f03_weather_asof"))
