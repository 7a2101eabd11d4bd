"""The winning bid of each auction, which queries 4, 6 and 9 begin with: the highest while the auction was open."""

from __future__ import annotations

from typing import Any

import headwater as hw

from . import Auction, Bid, auctions_of, bids_of


def winning_bids(app: hw.App, name: str) -> Any:
    """Return the table of winning bids by auction; a row changes with each bid that outdoes the one before."""
    # Auctions and their bids have one key, so they meet where they are.
    return (
        auctions_of(app)
        .join(
            bids_of(app),
            within=lambda auction: (auction.date_time, auction.expires),
            select=won,
            name="bids_in_time",
        )
        .top(1, by="price", ties=("bid_dateTime", "eid"), name=name)
    )


def won(auction: Auction, bid: Bid) -> dict[str, Any]:
    """Return an auction with a bid, and the bid's number, which breaks ties."""
    return {
        "id": auction.id,
        "itemName": auction.item_name,
        "description": auction.description,
        "initialBid": auction.initial_bid,
        "reserve": auction.reserve,
        "dateTime": auction.date_time,
        "expires": auction.expires,
        "seller": auction.seller,
        "category": auction.category,
        "extra": auction.extra,
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "bid_dateTime": bid.date_time,
        "bid_extra": bid.extra,
        "eid": bid.eid,
    }
