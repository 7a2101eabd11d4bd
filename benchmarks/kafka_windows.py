"""One-minute windows from Kafka to Kafka, final results, about one a record: Headwater beside the peers.

A click comes every second of event time, so that most windows of a user hold one. The clock ends when the broker has
stamped the last result. Checked: each window once, with its count and its sum. The bare loop does the same in one transaction
every 100 ms, its open windows in memory alone.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache

from benchmarks import kafka_topics
from benchmarks.beside import Beside, Done, WrongError
from benchmarks.contest import SHARE, Contest, arguments
from benchmarks.figure import Floor

GOAL_K = 150.0


def main() -> int:
    """Print a line each; exit code 1 where the goal is missed."""
    options = arguments(__doc__)
    loop = Beside.module(
        "bare-loop", "benchmarks.reference.kafka_windows", "exactly once", guarantee="exactly_once"
    )
    headwater = Beside.module(
        "headwater", "benchmarks.kafka_headwater", "exactly once", guarantee="exactly_once"
    )
    peers = [
        Beside.peer("kafka_streams", "exactly once, 1 thread", "exactly_once"),
        Beside.peer("kafka_streams", "at least once, 1 thread"),
        Beside.peer("quix", "at least once"),
        Beside.peer("pathway", "at least once, every change of a window"),
        Beside.peer("bytewax", "at least once"),
        Beside.peer("faust", f"at least once; 1/{SHARE} of the records"),
    ]
    with kafka_topics.broker() as bootstrap:

        def check(done: Done, records: int, output: str) -> float:
            return checked(bootstrap, done, records, output)

        contest = Contest(
            "windows",
            bootstrap,
            options.records,
            kafka_topics.minutes,
            check,
            results=lambda records: len(wanted(records)),
            only=tuple(options.only),
        )
        for turn in range(options.rounds):
            for beside in (loop, headwater, *(peers if turn < options.peer_rounds else ())):
                contest.once(beside)
    sys.stdout.write(f"{len(wanted(options.records))} windows from {options.records} records\n")
    for beside in (loop, headwater, *peers):
        beside.show(loop.rates)
    return 0 if Floor("windows from Kafka to Kafka", headwater.rates, GOAL_K, headwater.trouble).show() else 1


@cache
def wanted(records: int) -> dict[tuple[str, int], tuple[int, int]]:
    """Return the windows: (user, start) to (count, cents)."""
    return kafka_topics.windows(records)


def checked(bootstrap: str, done: Done, records: int, output: str) -> float:
    """Return the seconds to the last result. Raises WrongError where a window is missing, wrong or told twice."""
    told: Counter[tuple[str, int, int, int]] = Counter()
    last_ms = 0
    for message in kafka_topics.read(bootstrap, output):
        row = json.loads(message.value())
        user = row["user"] if "user" in row else row["key"]
        if user.startswith("closing"):
            continue
        # Pathway tells changes: an old row is taken back by `diff` -1.
        told[user, row["start"], row["count"], round(row["sum"] * 100)] += row.get("diff", 1)
        last_ms = max(last_ms, message.timestamp()[1])
    found: dict[tuple[str, int], tuple[int, int]] = {}
    twice = 0
    for (user, window, count, cents), net in told.items():
        if net:
            twice += net > 1 or (user, window) in found
            found[user, window] = count, cents
    expected = wanted(records)
    missing = len(expected.keys() - found.keys())
    other = sum(found[place] != held for place, held in expected.items() if place in found)
    extra = len(found.keys() - expected.keys())
    if missing or other or extra or twice:
        raise WrongError(
            f"wrong answer: of {len(expected)} windows {missing} missing, {other} wrong, {extra} unknown, {twice} twice"
        )
    return last_ms / 1000 - done.began_s


if __name__ == "__main__":
    sys.exit(main())
