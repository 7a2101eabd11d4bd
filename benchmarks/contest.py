"""One work on one Kafka: references, Headwater and peers by turns, over the same topic, answers checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import uuid4

from benchmarks import data, kafka_topics
from benchmarks.beside import Beside, Done, attempt, run

Batches = Callable[[int], Iterable[data.Clicks]]
SHARE = 10
"""faust reads a tenth of the records: at its rate the whole would take minutes."""


@dataclass(slots=True)
class Contest:
    """A work with its topics; each program's outputs have topics of their own, made beforehand."""

    work: str
    bootstrap: str
    records: int
    batches: Batches
    check: Callable[[Done, int, str], float | None]
    """Records and output topic; raises WrongError, and may return other seconds than the program's own."""
    results: Callable[[int], int] = lambda _: 0
    only: tuple[str, ...] = ()
    """Names of the programs to run; all where none is given."""
    topics: dict[int, tuple[str, int]] = field(default_factory=dict)

    def once(self, beside: Beside) -> None:
        """Run a program once, and note its rate if its answer is right."""
        if self.only and beside.name not in self.only:
            beside.left_out = True
            return
        records = self.records // (SHARE if beside.name == "faust" else 1)
        topic, count = self._topic(records)
        output = f"{beside.name.replace(' ', '-').replace('_', '-')}-{uuid4().hex[:8]}"
        # The broker's own times on outputs tell when the last one arrived, whoever wrote it.
        kafka_topics.create(self.bootstrap, output, message_timestamp_type="LogAppendTime")
        attempt(
            beside,
            records,
            lambda: run(beside, self.work, self.bootstrap, topic, count, output, self.results(records)),
            lambda done: self.check(done, records, output),
        )
        sys.stderr.write(f"{beside.name}: {beside.trouble or f'{beside.rates.wall[-1]:.1f} k/s'}\n")

    def _topic(self, records: int) -> tuple[str, int]:
        if records not in self.topics:
            name = f"{self.work}-{records}"
            self.topics[records] = name, kafka_topics.fill(self.bootstrap, name, self.batches(records))
        return self.topics[records]


def arguments(description: str | None) -> argparse.Namespace:
    """Return the options that all these benchmarks know."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5, help="of Headwater and its reference, in pairs")
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=(), help="names of the programs to run")
    return parser.parse_args()
