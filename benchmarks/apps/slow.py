"""An agent that waits four milliseconds a record, and keeps its sums in a table: what a fast producer runs away from."""

import asyncio

import headwater as hw
from benchmarks import data

BUFFER_BYTES = 64 << 20

app = hw.App("slow", buffer_bytes=BUFFER_BYTES)


class Click(hw.Record):
    """A click that was paid for."""

    user: str
    amount: float


clicks = app.topic("clicks", value_type=Click, partitions=data.PARTITIONS)
spend = app.Table("spend", default=float)


@app.agent(clicks)
async def total(stream: hw.Stream) -> None:
    """Add up, slowly."""
    async for click in stream:
        await asyncio.sleep(0.004)
        spend[click.user] += click.amount
