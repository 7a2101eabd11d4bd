"""Question 8: who made the planes that flew, and which planes does nobody know?

Tables are joined, not the departures one by one: what becomes known of a plane later counts for all of its flights.
Results: the tables `f08_by_manufacturer` and `f08_missing_planes`.
"""

from __future__ import annotations

import headwater as hw

from . import Departure

app = hw.App("flights_f08")


class Plane(hw.Record):
    """What is known of a plane. Keyed by its tail number."""

    tailnum: str
    manufacturer: str
    seats: int


flown = (
    app.topic("departures", key_type=str, value_type=Departure)
    .group_by()  # departures are keyed by plane
    .aggregate(name="flown", n=hw.agg.count())
)
planes = app.topic("planes", key_type=str, value_type=Plane).stream().table("planes")

f08_by_manufacturer = (
    flown.join(
        planes,
        name="known_planes",
        select=lambda flights, plane: {
            "manufacturer": plane.manufacturer,
            "n": flights["n"],
            "seats": flights["n"] * plane.seats,
        },
    )
    .group_by("manufacturer")
    .aggregate(
        name="f08_by_manufacturer",
        manufacturer=hw.agg.max("manufacturer"),
        n=hw.agg.sum("n"),
        planes=hw.agg.count(),
        seats=hw.agg.sum("seats"),
    )
)

f08_missing_planes = app.Table("f08_missing_planes", key_type=str)
all_planes = flown.join(
    planes,
    how="left",
    name="all_planes",
    select=lambda flights, plane: {"n": flights["n"], "is_known": plane is not None},
)


@app.agent(all_planes.changes())
async def keep_missing(stream: hw.Stream) -> None:
    """Keep the planes of which nothing is known."""
    async for tailnum, change in stream.items():
        row = change["new"]
        if row is None or row["is_known"]:
            f08_missing_planes.pop(tailnum, None)
        else:
            f08_missing_planes[tailnum] = {"tailnum": tailnum, "n": row["n"]}
