"""Each user's clicks and their sum, by the minute, once the minute is over."""

import os
from datetime import timedelta

import headwater as hw

app = hw.App(os.environ.get("BENCH_APP", "minutes"))


class Click(hw.Record):
    """A click that was paid for."""

    user: str
    amount: float


clicks = app.topic(os.environ.get("BENCH_TOPIC", "clicks"), value_type=Click, partitions=4, keyed_by="user")
output = app.topic(os.environ.get("BENCH_OUTPUT", "minutes"), partitions=4)

minutes = (
    clicks.group_by("user")
    .window(hw.windows.Tumbling(timedelta(minutes=1)))
    .aggregate(name="minutes", count=hw.agg.count(), sum=hw.agg.sum("amount"), keep=False)
)
minutes.final().to(output)
