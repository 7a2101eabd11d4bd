"""Filter and map over a real Kafka, results counted: Headwater beside a bare loop and the peers, on one topic."""

from __future__ import annotations

import json
import sys

from benchmarks import data, kafka_topics
from benchmarks.beside import Beside, Done, WrongError
from benchmarks.contest import SHARE, Contest, arguments

GOAL = 0.65
DESIGN = 970.0


def main() -> int:
    """Print a line each; exit code 1 where the goal is missed."""
    options = arguments(__doc__)
    reference = Beside.module("bare-loop", "benchmarks.reference.kafka_map", "confluent-kafka, orjson")
    headwater = Beside.module("headwater", "benchmarks.kafka_headwater", "exactly once")
    peers = [
        Beside.peer("quix", "at least once"),
        Beside.peer("pathway", "at least once"),
        Beside.peer("bytewax", "at least once"),
        Beside.peer("kafka_streams", "at least once, 1 thread"),
        Beside.peer("faust", f"at least once; 1/{SHARE} of the records"),
    ]
    with kafka_topics.broker() as bootstrap:
        contest = Contest("map", bootstrap, options.records, data.batches, check, only=tuple(options.only))
        for turn in range(options.rounds):
            for beside in (reference, headwater, *(peers if turn < options.peer_rounds else ())):
                contest.once(beside)
    met = headwater.compare("filter and map from Kafka", reference, GOAL, DESIGN)
    for beside in (reference, headwater, *peers):
        beside.show(reference.rates)
    return 0 if met else 1


def check(done: Done, records: int, output: str) -> None:
    """Raise where count or sum of the results is not that of the records."""
    wanted = expected(records)
    if done.answer != wanted:
        raise WrongError(f"wrong answer: found {done.answer}, expected {wanted}")


def expected(records: int) -> dict[str, int]:
    """Return count and sum of what passes the filter."""
    amounts = [json.loads(value)["amount"] for part in data.partitions(records) for value in part.values]
    cents = [round(amount * 100) for amount in amounts if amount >= 500]
    return {"count": len(cents), "cents": sum(cents)}


if __name__ == "__main__":
    sys.exit(main())
