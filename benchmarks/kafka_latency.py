"""End-to-end latency over a real Kafka at 1,000 records a second: Headwater beside a bare loop, Kafka Streams, Quix and Kafka
alone.

A click is sent with the sender's clock in it; a table adds up its user's amounts; each click gives one output with the
total and that clock. Measured is from just before the click is produced to when a consumer has its output: committed
ones only where the guarantee is exactly once. Checked: each click has its output, and the last totals are the sums.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any
from uuid import uuid4

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks import data, kafka_topics
from benchmarks.beside import Beside, WrongError, end, start
from benchmarks.figure import Limit
from benchmarks.peers.job import Job

RATE_S = 1_000
WARM_S = 15.0
BROKER_WARM_S = 60.0
READY_S = 90.0
LAST_S = 120.0
LINGER_MS = 0


@dataclass(frozen=True, slots=True)
class Case:
    """A system with its settings, and what it must hold in ms, where something is claimed."""

    beside: Beside
    p50_ms: float | None = None
    p99_ms: float | None = None


def main() -> int:
    """Print p50 and p99 of each; exit code 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured, after fifteen of warming up")
    parser.add_argument("--only", nargs="*", default=(), help="names of the programs to run")
    options = parser.parse_args()

    def headwater(note: str, guarantee: str, epoch_s: float) -> Beside:
        return Beside.module(
            "headwater", "benchmarks.kafka_headwater", note, guarantee=guarantee, commit_s=epoch_s
        )

    once, least = "exactly_once", "at_least_once"

    def bare(note: str, epoch_s: float) -> Beside:
        return Beside.module(
            "bare-loop", "benchmarks.reference.kafka_latency", note, guarantee=once, commit_s=epoch_s
        )

    cases = [
        Case(bare("exactly once, transactions of 10 ms", 0.01)),
        Case(headwater("exactly once, epochs of 10 ms", once, 0.01), 15.0, 30.0),
        Case(headwater("at least once, epochs of 5 s", least, 5.0), 4.0, 9.0),
        Case(headwater("defaults: exactly once, epochs of 100 ms", once, 0.1)),
        Case(Beside.peer("kafka_streams", "exactly once, commits of 10 ms", once, 0.01)),
        Case(Beside.peer("kafka_streams", "at least once, no cache", least, 30.0)),
        Case(Beside.peer("kafka_streams", "exactly once, commits of 100 ms (its default)", once, 0.1)),
        Case(Beside.peer("quix", "at least once", least, 5.0)),
    ]
    if options.only:
        cases = [case for case in cases if case.beside.name in options.only]
    met = []
    with kafka_topics.broker() as bootstrap:
        # Neither these nor the first one are shown: a broker's Java machine has to warm up.
        kafka_topics.warm(bootstrap, BROKER_WARM_S)
        for turn in ("cold", "alone"):
            alone = Latency(bootstrap, "", "", committed=False)
            alone.topic = alone.output = alone.create(turn)
            found = alone.measure(options.seconds)
        show("Kafka alone (produced and consumed)", found)
        for case in cases:
            name = f"{case.beside.name} ({case.beside.note})"
            try:
                p50, p99 = run(bootstrap, case.beside, options.seconds)
            except WrongError as error:
                sys.stdout.write(f"  {name:62} {error}\n")
                met.append(case.p50_ms is None)
                continue
            show(name, (p50, p99))
            if case.p50_ms is not None and case.p99_ms is not None:
                met.append(Limit(f"p50, {case.beside.note}", p50, case.p50_ms, "ms").show())
                met.append(Limit(f"p99, {case.beside.note}", p99, case.p99_ms, "ms").show())
    return 0 if all(met) else 1


def show(name: str, found: tuple[float, float]) -> None:
    """Print a line."""
    sys.stdout.write(f"  {name:62} p50 {found[0]:7.2f} ms  p99 {found[1]:7.2f} ms\n")
    sys.stdout.flush()


def run(bootstrap: str, beside: Beside, seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of one system in ms. Raises WrongError where outputs are missing or wrong."""
    if beside.trouble:
        raise WrongError(beside.trouble)
    latency = Latency(bootstrap, "", "", committed=beside.guarantee == "exactly_once")
    name = f"{beside.name.replace('_', '-')}-{uuid4().hex[:8]}"
    latency.topic, latency.output = latency.create(f"{name}-in"), latency.create(name)
    with tempfile.TemporaryDirectory(prefix="headwater-bench-latency-") as folder:
        place = Path(folder)
        job = Job(
            "latency",
            bootstrap,
            latency.topic,
            1 << 60,
            0,
            latency.output,
            beside.guarantee,
            beside.commit_s,
            beside.history,
            str(place / "state"),
            str(place / "report.json"),
        )
        job.write(place / "job.json")
        with (place / "said").open("wb") as said:
            process = start(beside, place / "job.json", said)
            try:
                latency.process = process
                return latency.measure(seconds)
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    sys.stderr.write(f"{name} did not end within 15 s of SIGTERM\n")
                end(process)


class Latency:
    """Sends clicks at a steady rate, and notes when their outputs come."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        output: str,
        *,
        committed: bool,
        begin: int = 0,
        warm_s: float = WARM_S,
    ) -> None:
        """Take the topics; `committed`: read as a reader of transactions does; `begin`: from which offset on.

        Totals are compared where all outputs are read, from 0 on.
        """
        self._begin = begin
        self._warm_s = warm_s
        self.bootstrap = bootstrap
        self.topic = topic
        self.output = output
        self.committed = committed
        self.process: subprocess.Popen[Any] | None = None
        self._random = Random(data.SEED)
        self._sent: dict[int, None] = {}
        self._sums: dict[str, float] = {}
        self._refused: list[str] = []
        self._taken: list[tuple[int, int]] = []
        self._totals: dict[str, float] = {}

    def create(self, name: str) -> str:
        """Make a topic."""
        kafka_topics.create(self.bootstrap, name)
        return name

    def measure(self, seconds: float) -> tuple[float, float]:
        """Return p50 and p99 in ms of what is sent after warming up."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "bench-latency",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed" if self.committed else "read_uncommitted",
                "fetch.wait.max.ms": 100,
                "log_level": 0,
            }
        )
        places = [TopicPartition(self.output, partition, self._begin) for partition in range(data.PARTITIONS)]
        if self._begin == OFFSET_END:
            # Asked for now: the client looks for an end when it comes to it, and the first output may be before that.
            for place in places:
                place.offset = consumer.get_watermark_offsets(place, timeout=READY_S)[1]
        consumer.assign(places)
        producer = Producer(
            {"bootstrap.servers": self.bootstrap, "linger.ms": LINGER_MS, "acks": "all", "log_level": 0}
        )
        try:
            self._wake(producer, consumer)
            count = int((self._warm_s + seconds) * RATE_S)
            sender = Thread(target=self._send, args=(producer, count))
            sender.start()
            begin = time.monotonic()
            while sender.is_alive() or len(self._taken) < len(self._sent):
                self._take(consumer, 0.1)
                if time.monotonic() - begin > self._warm_s + seconds + LAST_S:
                    break
            sender.join()
            # What comes twice must have time to come.
            self._take(consumer, 0.5)
        finally:
            consumer.close()
        self._check()
        first = int(self._warm_s * RATE_S)
        warm = list(self._sent)[first] if len(self._sent) > first else 0
        waits = sorted((seen - sent) / 1e6 for sent, seen in self._taken if sent >= warm)
        return waits[len(waits) // 2], waits[int(len(waits) * 0.99)]

    def _wake(self, producer: Producer, consumer: Consumer) -> None:
        """Send a click a second until one comes out: then the system is there."""
        until = time.monotonic() + READY_S
        while not self._taken:
            self._click(producer)
            producer.flush(5)
            again = time.monotonic() + 1.0
            while time.monotonic() < again and not self._taken:
                self._take(consumer, 0.05)
            if self.process is not None and self.process.poll() is not None:
                raise WrongError(f"ended with {self.process.returncode} before its first output")
            if time.monotonic() > until:
                raise WrongError(f"no output within {READY_S:.0f} s")

    def _send(self, producer: Producer, count: int) -> None:
        begin = time.monotonic()
        for number in range(count):
            wait = begin + number / RATE_S - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self._click(producer)
            producer.poll(0)
        producer.flush(10)

    def _click(self, producer: Producer) -> None:
        user = data.user_name(self._random.randrange(data.USERS))
        amount = self._random.randrange(1, 100_000) / 100
        self._sums[user] = self._sums.get(user, 0.0) + amount
        sent = time.perf_counter_ns()
        self._sent[sent] = None
        value = f'{{"user":"{user}","amount":{amount},"page":"/shop","sent":{sent}}}'
        producer.produce(self.topic, value.encode(), user.encode(), on_delivery=self._delivered)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refused.append(str(error))

    def _take(self, consumer: Consumer, timeout_s: float) -> None:
        message = consumer.poll(timeout_s)
        while message is not None:
            now = time.perf_counter_ns()
            if message.error() is not None:
                raise WrongError(str(message.error()))
            row = json.loads(message.value())
            self._taken.append((row["sent"], now))
            self._totals[row["user"]] = row.get("total", 0.0)
            message = consumer.poll(0)

    def _check(self) -> None:
        if self._refused:
            raise WrongError(f"{len(self._refused)} clicks refused: {self._refused[0]}")
        found = [sent for sent, _ in self._taken]
        missing = len(self._sent.keys() - set(found))
        twice = len(found) - len(set(found))
        if missing or twice:
            raise WrongError(
                f"wrong answer: of {len(self._sent)} clicks {missing} have no output, {twice} have two"
            )
        if self.topic != self.output and self._begin == 0 and self._totals != self._sums:
            wrong = [user for user, total in self._sums.items() if self._totals.get(user) != total]
            raise WrongError(f"wrong answer: {len(wrong)} of {len(self._sums)} totals")


if __name__ == "__main__":
    sys.exit(main())
