"""Clicks above 500, in cents, counted: nothing is kept and nothing is sent."""

import os

import headwater as hw

app = hw.App(os.environ.get("BENCH_APP", "large"))
found = {"count": 0, "cents": 0}
"""For the benchmark, which runs the worker in its own process and lets nothing fail: an app would use a table."""


class Click(hw.Record):
    """A click that was paid for; the other fields of its JSON are not asked for."""

    user: str
    amount: float


clicks = app.topic(os.environ.get("BENCH_TOPIC", "clicks"), value_type=Click, partitions=4)


@app.agent(clicks)
async def large(stream: hw.Stream) -> None:
    """Filter, map, count."""
    async for click in stream:
        if click.amount >= 500:
            result = {"user": click.user, "cents": round(click.amount * 100)}
            found["count"] += 1
            found["cents"] += result["cents"]
