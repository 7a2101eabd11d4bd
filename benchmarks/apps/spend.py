"""What each user has spent, as the benchmarks run it. `SPEND_HISTORY=none` keeps the last change per key and epoch."""

import os

import headwater as hw

app = hw.App(os.environ.get("BENCH_APP", "spend"))


class Click(hw.Record):
    """A click that was paid for; the other fields of its JSON are not asked for."""

    user: str
    amount: float


clicks = app.topic(os.environ.get("BENCH_TOPIC", "clicks"), value_type=Click, partitions=4)
spend = app.Table(
    "spend", default=float, history=None if os.environ.get("SPEND_HISTORY") == "none" else "exact"
)


@app.agent(clicks)
async def total(stream: hw.Stream) -> None:
    """Add up."""
    async for click in stream:
        spend[click.user] += click.amount
