"""A keyed table with changelog over a real Kafka, exactly once: Headwater beside bare loops and the peers, on one topic.

The loops commit one transaction every 100 ms, with every change as Arrow blobs or the last per key, and the positions.
"""

from __future__ import annotations

import sys

from benchmarks import data, kafka_topics
from benchmarks.beside import Beside, Done, WrongError
from benchmarks.contest import SHARE, Contest, arguments

GOAL = 0.65
DESIGN = {"exact": 560.0, "none": 820.0}
CENTS = 0.005


def main() -> int:
    """Print a line each; exit code 1 where a goal is missed."""
    options = arguments(__doc__)
    named = {"exact": "every change kept", "none": "last change per key and epoch"}
    once = "exactly_once"
    references = {
        history: Beside.module(
            "bare-loop", "benchmarks.reference.kafka_table", f"exactly once, {note}", history=history, guarantee=once
        )
        for history, note in named.items()
    }  # fmt: skip
    headwater = {
        history: Beside.module(
            "headwater", "benchmarks.kafka_headwater", f"exactly once, {note}", history=history, guarantee=once
        )
        for history, note in named.items()
    }  # fmt: skip
    peers = [
        Beside.peer("kafka_streams", "exactly once, last change per key and commit, 1 thread", once),
        Beside.peer("kafka_streams", "at least once, the same"),
        Beside.peer("quix", "exactly once, last change per key and commit", once),
        Beside.peer("quix", "at least once, the same"),
        Beside.peer("pathway", "at least once, input persisted every 100 ms"),
        Beside.peer("bytewax", "at least once, snapshots in SQLite every 100 ms"),
        Beside.peer("faust", f"at least once, every change a record; 1/{SHARE} of the records"),
    ]
    with kafka_topics.broker() as bootstrap:
        contest = Contest("table", bootstrap, options.records, data.batches, check, only=tuple(options.only))
        for turn in range(options.rounds):
            for history in named:
                contest.once(references[history])
                contest.once(headwater[history])
            for beside in peers if turn < options.peer_rounds else ():
                contest.once(beside)
    met = [
        headwater[history].compare(f"table over Kafka, {note}", references[history], GOAL, DESIGN[history])
        for history, note in named.items()
    ]
    for beside in (*references.values(), *headwater.values(), *peers):
        beside.show(references["none"].rates)
    return 0 if all(met) else 1


def check(done: Done, records: int, output: str) -> None:
    """Raise where a sum is wrong by a cent: Pathway adds floats in another order than the partition's."""
    wanted = data.sums(records)
    found = done.answer
    wrong = [user for user in wanted if abs(found.get(user, -1.0) - wanted[user]) > CENTS]
    if wrong or found.keys() != wanted.keys():
        first = min(wrong, default="none")
        raise WrongError(
            f"wrong answer: {len(wrong)} of {len(wanted)} sums, first {first}: {found.get(first)}, "
            f"expected {wanted.get(first)}"
        )


if __name__ == "__main__":
    sys.exit(main())
