"""Question 4: what does a plane fly in one go? Sessions of its departures, not more than 8 hours apart.

Result: the topic `f04_plane_sessions`; a session ends with its last departure.
"""

from __future__ import annotations

from datetime import timedelta

import headwater as hw

from . import Departure, iso

app = hw.App("flights_f04")

GAP = timedelta(hours=8)
GAP_MS = round(GAP.total_seconds() * 1000)

sessions = (
    app.topic("departures", key_type=str, value_type=Departure)
    .group_by()  # departures are keyed by plane
    .window(hw.windows.Session(GAP))
    .aggregate(
        name="sessions",
        legs=hw.agg.count(),
        distance=hw.agg.sum("distance"),
        route=hw.agg.collect(lambda flight: f"{flight.origin}>{flight.dest}"),
        keep=False,
    )
)
sessions.final().map(
    lambda session: {
        "tailnum": session["key"],
        "session_start": iso(session["start"]),
        "session_end": iso(session["end"] - GAP_MS),
        "legs": session["legs"],
        "distance": session["distance"],
        "route": " ".join(session["route"]),
    }
).to(app.topic("f04_plane_sessions"))
