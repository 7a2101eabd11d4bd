"""Live latency over a real Kafka while the same app's history is replayed, beside the same without: pairs, by turns.

The app (`benchmarks/apps/running.py`: a table and one output a record, defaults) has worked off a history, which is archived. Then
1,000 records a second come in; their latency is measured as `kafka_latency.py` does, alone and while `headwater replay --from
earliest` runs again and again beside it, at its default (it gives way) and with `--urgent`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from confluent_kafka import OFFSET_END

from benchmarks import data, kafka_topics
from benchmarks.figure import Limit
from benchmarks.kafka_latency import BROKER_WARM_S, Latency
from benchmarks.running import Place, stop

TIMES = 1.5
WARM_S = 3.0


class Beside:
    """One app on one broker."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        """Name its topics."""
        self.bootstrap = bootstrap
        self.output = f"beside-{uuid4().hex[:8]}"
        self.topic = f"{self.output}-in"
        self.place = Place(
            folder,
            "benchmarks.apps.running",
            {"BENCH_APP": self.output, "BENCH_TOPIC": self.topic, "BENCH_OUTPUT": self.output},
            f"kafka://{bootstrap}",
        )
        self.replays = 0

    def prepare(self, records: int) -> None:
        """Fill the topic with a history, work it off, and archive it."""
        kafka_topics.create(self.bootstrap, self.output)
        kafka_topics.fill(self.bootstrap, self.topic, map(_sent_long_ago, data.batches(records)))
        self.place.run("worker", "--until-idle")
        self.place.run("archive", "run", "--until-idle")

    @contextmanager
    def live(self) -> Iterator[subprocess.Popen[str]]:
        """Run the live worker."""
        worker = self.place.start("worker")
        try:
            yield worker
        finally:
            stop(worker)

    @contextmanager
    def replaying(self, *options: str) -> Iterator[None]:
        """Replay the history, again and again."""
        ended = Event()
        codes: list[int] = []

        def run() -> None:
            while not ended.is_set() and not any(codes):
                self.replays += 1
                replay = self.place.start(
                    "replay", "--from", "earliest", "--as", f"r{self.replays}", *options
                )
                while replay.poll() is None:
                    if ended.wait(0.1):
                        replay.kill()
                        replay.wait()
                        return
                codes.append(replay.returncode)

        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if any(codes):
            raise SystemExit(f"a replay ended with {codes[-1]}")

    def measure(self, worker: subprocess.Popen[str], seconds: float) -> float:
        """Return the p99 of what comes in now, in ms."""
        latency = Latency(
            self.bootstrap, self.topic, self.output, committed=True, begin=OFFSET_END, warm_s=WARM_S
        )
        latency.process = worker
        return latency.measure(seconds)[1]


def _sent_long_ago(clicks: data.Clicks) -> data.Clicks:
    return replace(clicks, values=[b'%s,"sent":0}' % value[:-1] for value in clicks.values])


def main() -> int:
    """Print the p99s and the median of their ratios; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="of the history")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with kafka_topics.broker() as bootstrap, tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        kafka_topics.warm(bootstrap, BROKER_WARM_S)
        beside = Beside(bootstrap, Path(folder))
        beside.prepare(options.records)
        ratios: dict[str, list[float]] = {"": [], "--urgent": []}
        with beside.live() as worker:
            beside.measure(worker, options.seconds)  # not shown: the broker's path for this app warms up
            for _ in range(options.pairs):
                for option, found in ratios.items():
                    alone = beside.measure(worker, options.seconds)
                    with beside.replaying(*filter(None, [option])):
                        both = beside.measure(worker, options.seconds)
                    found.append(both / alone)
                    sys.stdout.write(
                        f"  p99 alone {alone:7.1f} ms, beside `replay {option}` {both:7.1f} ms, ratio {both / alone:.2f}\n"
                    )
                    sys.stdout.flush()
    sys.stdout.write(f"  beside an urgent replay: median ratio {statistics.median(ratios['--urgent']):.2f}\n")
    limit = Limit("live p99 beside a replay", statistics.median(ratios[""]), TIMES, "times that alone")
    return 0 if limit.show() else 1


if __name__ == "__main__":
    sys.exit(main())
