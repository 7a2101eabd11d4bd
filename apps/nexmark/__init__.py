"""The Nexmark benchmark's 23 queries over an online auction, one module each: `apps/nexmark/q5.py` is query 5.

One topic, `nexmark`, has people, auctions and bids, each under its own key: a person's id, an auction's id, and for
a bid the auction's. Records may come up to 5 s out of order. A query's result is the topic or table of its name.

    headwater -A headwater_apps.nexmark.q5 send nexmark --file nexmark.jsonl
    headwater -A headwater_apps.nexmark.q5 worker --until-idle --drain
    headwater -A headwater_apps.nexmark.q5 read q5 --json

Columns are named as in Nexmark's SQL; times are ms since 1970 UTC.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from typing import Any

import headwater as hw

LATENESS = timedelta(seconds=5)

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Person(hw.Record, tag_field="event", tag="person", frozen=True):
    """Someone who sells or bids."""

    id: int
    name: str
    email_address: str
    credit_card: str
    city: str
    state: str
    date_time: int
    extra: str
    eid: int


class Auction(hw.Record, tag_field="event", tag="auction", frozen=True):
    """Something that is for sale until it expires."""

    id: int
    item_name: str
    description: str
    initial_bid: int
    reserve: int
    date_time: int
    expires: int
    seller: int
    category: int
    extra: str
    eid: int


class Bid(hw.Record, tag_field="event", tag="bid", frozen=True):
    """What a bidder offers at an auction; it may come before the auction does."""

    auction: int
    bidder: int
    price: int
    channel: str
    url: str
    date_time: int
    extra: str
    eid: int


def persons_of(app: hw.App) -> hw.Stream:
    """Return the people who sign up, keyed by id."""
    return _events(app).filter(lambda event: type(event) is Person)


def auctions_of(app: hw.App) -> hw.Stream:
    """Return the auctions that open, keyed by id."""
    return _events(app).filter(lambda event: type(event) is Auction)


def bids_of(app: hw.App) -> hw.Stream:
    """Return the bids, keyed by their auction."""
    return _events(app).filter(lambda event: type(event) is Bid)


def _events(app: hw.App) -> hw.Stream:
    return app.topic("nexmark", value_type=Person | Auction | Bid, lateness=LATENESS).stream()


def day_of(bid: Bid) -> str:
    """Return a bid's day in UTC, as in 2015-07-15."""
    return _day(bid.date_time // DAY_MS)


@cache
def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def minute_of(bid: Bid) -> str:
    """Return a bid's minute of the day in UTC, as in 23:59."""
    minute = bid.date_time // MINUTE_MS % 1440
    return f"{minute // 60:02}:{minute % 60:02}"


def hour_of(bid: Bid) -> int:
    """Return a bid's hour of the day in UTC."""
    return bid.date_time // HOUR_MS % 24


def whole_bid(bid: Bid) -> dict[str, Any]:
    """Return a bid's columns, and its number, which breaks ties."""
    return {
        "auction": bid.auction,
        "bidder": bid.bidder,
        "price": bid.price,
        "channel": bid.channel,
        "url": bid.url,
        "dateTime": bid.date_time,
        "extra": bid.extra,
        "eid": bid.eid,
    }


def bid_statistics() -> dict[str, Any]:
    """Return the aggregates of queries 15 and 16: bids, bidders and auctions, in all and by rank of price."""
    ranks = {
        "total": None,
        "rank1": lambda bid: bid.price < 10_000,
        "rank2": lambda bid: 10_000 <= bid.price < 1_000_000,
        "rank3": lambda bid: bid.price >= 1_000_000,
    }
    return {
        **{f"{rank}_bids": hw.agg.count(where=where) for rank, where in ranks.items()},
        **{f"{rank}_bidders": hw.agg.distinct("bidder", where=where) for rank, where in ranks.items()},
        **{f"{rank}_auctions": hw.agg.distinct("auction", where=where) for rank, where in ranks.items()},
    }
