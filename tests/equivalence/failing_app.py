"""The app of the failing records: two agents on one topic that share a table, and a third behind a group_by.

With HEADWATER_TEST_MENDED set, nothing fails.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import headwater as hw

app = hw.App("failing", retries=1, partitions=2, lease_s=1.0)

MENDED = "HEADWATER_TEST_MENDED"
_mended = MENDED in os.environ


class Order(hw.Record):
    """An order; every thousandth breaks an agent, each agent another one."""

    number: int
    user: str
    team: str


orders = app.topic("orders", value_type=Order)
receipts = app.topic("receipts", value_type=dict)
audits = app.topic("audits", value_type=dict)
ranks = app.topic("ranks", value_type=dict)

counts = app.Table("counts", value_type=dict)
teams = app.Table("teams", value_type=dict)


@app.agent(orders, sink=[receipts])
async def bill(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Fails after it has written a table and sent an output, and after it has yielded to a sink."""
    async for order in stream:
        row = counts.get(order.user) or {"billed": 0, "sum": 0, "watched": 0}
        counts[order.user] = {**row, "billed": row["billed"] + 1, "sum": row["sum"] + order.number}
        await audits.send(key=order.user, value={"number": order.number})
        yield {"number": order.number, "billed": row["billed"] + 1}
        if order.number % 1000 == 999 and not _mended:
            raise RuntimeError(f"order {order.number} can't be billed")


@app.agent(orders)
async def watch(stream: hw.Stream) -> None:
    """Sees every record; works on the rows that the other one breaks on."""
    async for order in stream:
        row = counts.get(order.user) or {"billed": 0, "sum": 0, "watched": 0}
        counts[order.user] = {**row, "watched": row["watched"] + 1}


@app.agent(orders.group_by("team"), sink=[ranks])
async def rank(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Fails behind a group_by."""
    async for order in stream:
        row = teams.get(order.team) or {"n": 0, "sum": 0}
        teams[order.team] = {"n": row["n"] + 1, "sum": row["sum"] + order.number}
        yield {"number": order.number}
        if order.number % 1000 == 499 and not _mended:
            raise RuntimeError(f"order {order.number} can't be ranked")


holding = hw.App("holding", partitions=1, lease_s=1.0)
numbers = holding.topic("numbers", value_type=int)
lists = holding.topic("lists", value_type=list)
passed = holding.Table("passed", default=int)


@holding.agent(numbers, sink=[lists])
async def hold(stream: hw.Stream) -> AsyncIterator[list[int]]:
    """Holds 1,000 records back at a time."""
    async for thousand in stream.take(1000):
        yield thousand


@holding.agent(numbers)
async def go_on(stream: hw.Stream) -> None:
    """Goes on meanwhile."""
    async for event in stream.events():
        passed[event.key] += event.value
