"""Nexmark queries in Bytewax, over the generator's events in memory: run by benchmarks/nexmark.py, by a Python that has it.

    python benchmarks/reference/nexmark_bytewax.py QUERY EVENTS.jsonl OUT.jsonl

Values are JSON text, as in a log; rows are collected and written when all is done. Printed is the processor time from
the first value to the end of the flow.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

EXPRESSED = {"q0", "q1", "q2", "q10", "q11", "q12", "q13", "q14", "q15", "q17", "q18", "q21", "q22"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATENESS = timedelta(seconds=5)
KNOWN = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
IN_URL = re.compile(r"(?:&|^)channel_id=([^&]*)")


def time_of(bid: dict[str, Any]) -> datetime:
    """Return a bid's event time."""
    return datetime.fromtimestamp(bid["date_time"] / 1000, UTC)


def picked(bid: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    """Return some columns of a bid, and more."""
    return {**{name: bid["date_time" if name == "dateTime" else name] for name in names}, **more}


def channel_id(bid: dict[str, Any]) -> str | None:
    """Return a bid's channel id."""
    known = KNOWN.get(bid["channel"].lower())
    if known is not None:
        return known
    found = IN_URL.search(bid["url"])
    return found[1] or None if found else None


def time_of_day(bid: dict[str, Any]) -> str:
    """Return the time of day in words."""
    hour = time_of(bid).hour
    if 8 <= hour <= 18:
        return "dayTime"
    return "nightTime" if hour <= 6 or hour >= 20 else "otherTime"


BASE = ("auction", "bidder", "price", "dateTime", "extra")

STATELESS: dict[str, Any] = {
    "q0": lambda bid: picked(bid, *BASE),
    "q1": lambda bid: picked(bid, *BASE, price=0.908 * bid["price"]),
    "q2": lambda bid: picked(bid, "auction", "price") if bid["auction"] % 123 == 0 else None,
    "q10": lambda bid: picked(
        bid, *BASE, dt=time_of(bid).strftime("%Y-%m-%d"), hm=time_of(bid).strftime("%H:%M")
    ),
    "q13": lambda bid: picked(
        bid, "auction", "bidder", "price", "dateTime", value=str(bid["auction"] % 10_000)
    ),
    "q14": lambda bid: (
        picked(
            bid, *BASE, price=0.908 * bid["price"], bidTimeType=time_of_day(bid), c_counts=bid["extra"].count("c")
        )
        if 1_000_000 < 0.908 * bid["price"] < 50_000_000
        else None
    ),
    "q21": lambda bid: (
        picked(bid, "auction", "bidder", "price", "channel", channel_id=found)
        if (found := channel_id(bid)) is not None
        else None
    ),
    "q22": lambda bid: picked(
        bid, "auction", "bidder", "price", "channel",
        **dict(zip(("dir1", "dir2", "dir3"), [*bid["url"].split("/"), *[""] * 6][3:6], strict=True)),
    ),
}  # fmt: skip


def statistics(state: list[Any] | None, bid: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Add a bid to a day's counts, and return them."""
    if state is None:
        state = [[0, set(), set()] for _ in range(4)]
    rank = 1 + (bid["price"] >= 10_000) + (bid["price"] >= 1_000_000)
    for at in (0, rank):
        state[at][0] += 1
        state[at][1].add(bid["bidder"])
        state[at][2].add(bid["auction"])
    row: dict[str, Any] = {"day": time_of(bid).strftime("%Y-%m-%d")}
    for name, (bids, bidders, auctions) in zip(("total", "rank1", "rank2", "rank3"), state, strict=True):
        row |= {f"{name}_bids": bids, f"{name}_bidders": len(bidders), f"{name}_auctions": len(auctions)}
    return state, row


def prices(state: dict[str, Any] | None, bid: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add a bid to its auction's day, and return it."""
    price = bid["price"]
    row = state or {
        "auction": bid["auction"], "day": time_of(bid).strftime("%Y-%m-%d"), "total_bids": 0, "rank1_bids": 0,
        "rank2_bids": 0, "rank3_bids": 0, "min_price": price, "max_price": price, "sum_price": 0,
    }  # fmt: skip
    rank = 1 + (price >= 10_000) + (price >= 1_000_000)
    row["total_bids"] += 1
    row[f"rank{rank}_bids"] += 1
    row["min_price"] = min(row["min_price"], price)
    row["max_price"] = max(row["max_price"], price)
    row["sum_price"] += price
    row["avg_price"] = row["sum_price"] / row["total_bids"]
    return row, dict(row)


def latest(state: dict[str, Any] | None, bid: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keep the latest bid."""
    if state is None or (bid["date_time"], bid["eid"]) > (state["date_time"], state["eid"]):
        state = bid
    return state, picked(state, *BASE, "channel", "url")


UPDATING: dict[str, Any] = {
    "q15": (lambda bid: time_of(bid).strftime("%Y-%m-%d"), statistics),
    "q17": (lambda bid: f"{bid['auction']}/{time_of(bid):%Y-%m-%d}", prices),
    "q18": (lambda bid: f"{bid['bidder']}/{bid['auction']}", latest),
}
"""The key, and what a record makes of the state; of the results of a key the last one counts."""


def main() -> None:
    """Run one query."""
    import bytewax.operators as op
    import bytewax.operators.windowing as win
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    query, events, out = sys.argv[1:]
    values = []
    with open(events, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            values.append(json.dumps({"event": event["kind"], "eid": event["eid"], **event["value"]}))
    rows: list[Any] = []
    flow = Dataflow("nexmark")
    stream = op.input("in", flow, TestingSource(values, batch_size=1_000))

    def bid_of(value: str) -> Any:
        event = json.loads(value)
        return event if event["event"] == "bid" else None

    bids = op.filter_map("bids", stream, bid_of)
    result: Any
    if query in STATELESS:
        result = op.filter_map("rows", bids, STATELESS[query])
    elif query in UPDATING:
        key, step = UPDATING[query]
        keyed = op.key_on("key", bids, key)
        result = op.stateful_map("state", keyed, step)
    else:
        clock = win.EventClock(ts_getter=time_of, wait_for_system_duration=LATENESS)
        windower: Any = (
            win.SessionWindower(gap=timedelta(seconds=10))
            if query == "q11"
            else win.TumblingWindower(length=timedelta(seconds=10), align_to=EPOCH)
        )
        keyed = op.key_on("key", bids, lambda bid: str(bid["bidder"]))
        windows = win.fold_window(
            "windows", keyed, clock, windower,
            lambda: [0, None, None],
            lambda acc, bid: [
                acc[0] + 1, min(acc[1] or bid["date_time"], bid["date_time"]), max(acc[2] or 0, bid["date_time"]),
            ],
            lambda a, b: [a[0] + b[0], min(a[1], b[1]), max(a[2], b[2])],
        )  # fmt: skip

        def row_of(item: Any) -> dict[str, Any]:
            bidder, (_, (count, first, last)) = item
            start, end = (first, last + 10_000) if query == "q11" else (first // 10_000 * 10_000,) * 2
            end = end if query == "q11" else start + 10_000
            return {"bidder": int(bidder), "bid_count": count, "starttime": start, "endtime": end}

        result = op.map("rows", windows.down, row_of)
    op.output("out", result, TestingSink(rows))
    began_s = process_time()
    run_main(flow)
    seconds = process_time() - began_s
    if query in UPDATING:
        rows = list(dict(rows).values())
    with open(out, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
