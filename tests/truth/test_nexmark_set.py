"""The Nexmark set: SQL, the stored hashes and plain loops agree, and out of order is really out of order."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.truth import nexmark


def test_sql_over_the_stored_events_gives_the_stored_hashes() -> None:
    assert nexmark.computed_facts() == nexmark.facts()


def test_no_answer_is_empty() -> None:
    assert [name for name, fact in nexmark.facts().items() if not fact["rows"]] == []


def test_out_of_order_is_the_same_events_up_to_five_seconds_late() -> None:
    arrived = list(nexmark.arrivals(in_order=False))
    assert sorted(event["eid"] for event in arrived) == list(range(len(nexmark.events())))
    latest, worst, inversions = 0, 0, 0
    for event in arrived:
        worst = max(worst, latest - event["ts"])
        inversions += event["ts"] < latest
        latest = max(latest, event["ts"])
    assert 3_000 < worst <= 5_000
    assert inversions > 3_000


def bids() -> list[dict[str, Any]]:
    return [
        {**event["value"], "ts": event["ts"], "eid": event["eid"]}
        for event in nexmark.arrivals(in_order=False)
        if event["kind"] == "bid"
    ]


def test_a_plain_loop_gives_the_same_hot_items() -> None:
    windows: dict[int, Counter[int]] = defaultdict(Counter)
    for bid in bids():
        start = bid["ts"] // 2_000 * 2_000
        while start > bid["ts"] - 10_000:
            windows[start][bid["auction"]] += 1
            start -= 2_000
    rows = [
        {"auction": auction, "num": num, "starttime": start, "endtime": start + 10_000}
        for start, counts in windows.items()
        for auction, num in counts.items()
        if num == max(counts.values())
    ]
    answer = nexmark.answers()["q5"]
    assert answer.lines_of(rows) == answer.lines


def test_a_plain_loop_gives_the_same_winning_bids_and_averages() -> None:
    auctions = {
        event["value"]["id"]: event["value"] for event in nexmark.events() if event["kind"] == "auction"
    }
    best: dict[int, tuple[tuple[int, int, int], dict[str, Any]]] = {}
    for bid in bids():
        auction = auctions.get(bid["auction"])
        if auction is None or not auction["date_time"] <= bid["ts"] <= auction["expires"]:
            continue
        rank = (-bid["price"], bid["ts"], bid["eid"])
        if auction["id"] not in best or rank < best[auction["id"]][0]:
            best[auction["id"]] = (rank, bid)
    by_seller: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    by_category: dict[int, list[int]] = defaultdict(list)
    for number, (_, bid) in best.items():
        by_seller[auctions[number]["seller"]].append((bid["ts"], number, bid["price"]))
        by_category[auctions[number]["category"]].append(bid["price"])
    rows = []
    for seller, won in by_seller.items():
        won.sort()
        for at, (time, number, _) in enumerate(won):
            last = [price for _, _, price in won[max(0, at - 10) : at + 1]]
            rows.append(
                {"seller": seller, "auction": number, "dateTime": time, "avg_price": sum(last) / len(last)}
            )
    answer = nexmark.answers()["q6"]
    assert answer.lines_of(rows) == answer.lines
    averages = [{"id": id_, "final": sum(of) / len(of)} for id_, of in by_category.items()]
    answer = nexmark.answers()["q4"]
    assert answer.lines_of(averages) == answer.lines


def test_a_plain_loop_gives_the_same_sessions() -> None:
    times: dict[int, list[int]] = defaultdict(list)
    for bid in bids():
        times[bid["bidder"]].append(bid["ts"])
    rows = []
    for bidder, of in times.items():
        of.sort()
        start = last = of[0]
        count = 0
        for time in [*of, 1 << 60]:
            if time - last > 10_000:
                rows.append(
                    {"bidder": bidder, "bid_count": count, "starttime": start, "endtime": last + 10_000}
                )
                start, count = time, 0
            last, count = time, count + 1
    answer = nexmark.answers()["q11"]
    assert answer.lines_of(rows) == answer.lines
