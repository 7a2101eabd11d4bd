"""The app that crash tests run: tables, a group_by, sinks, `take`, dead letters. Its environment slows it or makes it hang."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import headwater as hw

# A small buffer makes small groups, so that a run has many epochs.
app = hw.App(
    "shop", lease_s=float(os.environ.get("SHOP_LEASE_S", "2")), retries=1, partitions=2, buffer_bytes=1 << 16
)

SLOW_S = float(os.environ.get("SHOP_SLOW_S", "0"))
HANG_AT = int(os.environ.get("SHOP_HANG_AT", "-1"))
BLOCK_AT = int(os.environ.get("SHOP_BLOCK_AT", "-1"))
BLOCK_S = float(os.environ.get("SHOP_BLOCK_S", "3"))
BLOCK_HOW = os.environ.get("SHOP_BLOCK_HOW", "sleep")
SEEN = os.environ.get("SHOP_SEEN")


class Order(hw.Record):
    """An order. `lane` is the partition it was appended to; `padding` makes it large, so that groups are small."""

    number: int
    lane: int
    user: str
    item: str
    amount: int
    padding: str = ""


orders = app.topic("orders", key_type=str, value_type=Order)
receipts = app.topic("receipts", key_type=str, value_type=dict)
bundles = app.topic("bundles", key_type=str, value_type=dict)

spent = app.Table("spent", key_type=str, value_type=dict)
sold = app.Table("sold", key_type=str, value_type=dict)


@app.agent(orders, sink=[receipts])
async def bill(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Keep what each user has spent, and send a receipt. Fails on some orders after it has written."""
    async for order in stream:
        if SEEN is not None:
            _note(Path(SEEN), f"{order.lane} {order.number}")
        await _slow(order.number)
        row = spent.get(order.user) or {"n": 0, "amount": 0, "chain": 0}
        row = {
            "n": row["n"] + 1,
            "amount": row["amount"] + order.amount,
            # Tells any other order, and any record that is missing or doubled.
            "chain": (row["chain"] * 31 + order.number) % 1_000_003,
        }
        spent[order.user] = row
        if order.number % 23 == 0:
            spent.pop(order.user)
        yield {"number": order.number, "row": row}
        if order.number % 17 == 5:
            raise ValueError(f"order {order.number} can't be billed")


@app.agent(orders.group_by("item"))
async def count(stream: hw.Stream) -> None:
    """Count what was sold of each item; `chains` tells the order of each lane's orders."""
    async for order in stream:
        row = sold.get(order.item) or {"n": 0, "amount": 0, "chains": {}}
        lane = str(order.lane)
        chains = {**row["chains"], lane: (row["chains"].get(lane, 0) * 31 + order.number) % 1_000_003}
        sold[order.item] = {
            "n": row["n"] + 1,
            "amount": row["amount"] + order.amount,
            "chains": dict(sorted(chains.items())),
        }


@app.agent(orders, sink=[bundles])
async def bundle(stream: hw.Stream) -> AsyncIterator[dict[str, Any]]:
    """Bundle orders by fives: this agent holds records back while the others go on."""
    async for five in stream.take(5):
        yield {"numbers": [order.number for order in five]}


async def _slow(number: int) -> None:
    if number == HANG_AT:
        await asyncio.Event().wait()
    if 0 <= BLOCK_AT <= number:
        if BLOCK_HOW == "compute":
            # One long call of C: no handler of a signal runs before it ends.
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
        time.sleep(BLOCK_S)  # noqa: ASYNC251  # what people do by mistake, and what a worker must survive
    if SLOW_S:
        await asyncio.sleep(SLOW_S)


def _note(path: Path, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode() + b"\n")
    finally:
        os.close(handle)
