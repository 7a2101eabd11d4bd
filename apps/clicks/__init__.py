"""What each user has spent: the ten lines of the README, as an app that runs."""

import headwater as hw

app = hw.App("clicks")


class Click(hw.Record):
    """A click that was paid for."""

    user: str
    amount: float


clicks = app.topic("clicks", value_type=Click)
spend = app.Table("spend", default=float)


@app.agent(clicks)  # keyed by user; else clicks.group_by("user")
async def total(stream: hw.Stream) -> None:
    async for click in stream:
        spend[click.user] += click.amount
