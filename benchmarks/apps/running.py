"""Each click sends its user's running total: a table and one output a record, to measure how long it takes."""

import os

import headwater as hw

guarantee = "at_least_once" if os.environ.get("BENCH_GUARANTEE") == "at_least_once" else "exactly_once"
app = hw.App(os.environ.get("BENCH_APP", "running"), guarantee=guarantee)


class Click(hw.Record):
    """A click and when it was sent, in ns of the sender's clock."""

    user: str
    amount: float
    sent: int


clicks = app.topic(os.environ.get("BENCH_TOPIC", "clicks"), value_type=Click, partitions=4)
totals = app.topic(os.environ.get("BENCH_OUTPUT", "totals"), partitions=4)
spend = app.Table("spend", default=float)


@app.agent(clicks, sink=[totals])
async def total(stream: hw.Stream) -> object:
    """Add up, and tell."""
    async for click in stream:
        spend[click.user] += click.amount
        yield {"user": click.user, "total": spend[click.user], "sent": click.sent}
