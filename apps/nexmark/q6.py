"""Query 6, average selling price by seller: over a seller's last 11 closed auctions, in the order of their winning bids.

A winning bid that is outdone, or comes late, changes the rows of the auctions after it: the result is a table.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import headwater as hw

from .winning import winning_bids

app = hw.App("nexmark_q6")

ROWS = 11

sold = app.Table("sold", key_type=int, default=list)
"""By seller: [time of the winning bid, auction, price] in that order."""
q6 = app.Table("q6", key_type=int, local=True)
"""By auction; its rows lie with the seller."""


@app.agent(winning_bids(app, "winning").changes().group_by(lambda change: change["new"]["seller"]))
async def average(stream: hw.Stream) -> None:
    """Keep each auction's average up to date."""
    async for change in stream:
        won, outdone = change["new"], change["old"]
        seller = won["seller"]
        auctions = sold[seller]
        entry = [won["bid_dateTime"], won["id"], won["price"]]
        moved = [entry]
        if outdone is not None:
            moved.append([outdone["bid_dateTime"], outdone["id"], outdone["price"]])
            auctions.remove(moved[-1])
        insort(auctions, entry)
        sold[seller] = auctions
        first, last = bisect_left(auctions, min(moved)), bisect_left(auctions, max(moved))
        for at in range(first, min(last + ROWS, len(auctions))):
            prices = [price for _, _, price in auctions[max(0, at - ROWS + 1) : at + 1]]
            time, auction, _ = auctions[at]
            row = {
                "seller": seller,
                "auction": auction,
                "dateTime": time,
                "avg_price": sum(prices) / len(prices),
            }
            if q6.get(auction) != row:
                q6[auction] = row
