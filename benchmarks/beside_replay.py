"""Live latency over a real Kafka while the same app's history is replayed, beside the same without: pairs, by turns.

The app (`benchmarks/apps/running.py`: a table and one output a record, defaults) has worked off a history, which is archived. Then
1,000 records a second come in; their latency is measured as `kafka_latency.py` does, alone and while `headwater replay --from
earliest` runs again and again beside it, at its default (it gives way) and with `--urgent`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from confluent_kafka import OFFSET_END

from benchmarks import data, kafka_topics
from benchmarks.figure import Limit
from benchmarks.kafka_latency import BROKER_WARM_S, Latency

TIMES = 1.5
WARM_S = 3.0


class Beside:
    """One app on one broker."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        """Name its topics."""
        self.bootstrap = bootstrap
        self.folder = folder
        self.name = f"beside-{uuid4().hex[:8]}"
        self.replays = 0

    def command(self, *arguments: str) -> list[str]:
        """Return a command of the app."""
        return [
            sys.executable, "-m", "headwater", "-A", "benchmarks.apps.running", "--log", f"kafka://{self.bootstrap}",
            "--state", f"{self.folder}/state", "--archive", f"file://{self.folder}/archive", *arguments,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return the environment of its commands."""
        return {
            **os.environ,
            "BENCH_APP": self.name,
            "BENCH_TOPIC": f"{self.name}-in",
            "BENCH_OUTPUT": self.name,
        }

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        subprocess.run(
            self.command(*arguments), env=self.environment(), check=True, stdout=subprocess.DEVNULL
        )

    def prepare(self, records: int) -> None:
        """Fill the topic with a history, work it off, and archive it."""
        kafka_topics.create(self.bootstrap, self.name)
        clicks = (
            data.Clicks(
                c.partition,
                c.base,
                c.timestamps,
                c.keys,
                [b'%s,"sent":0}' % value[:-1] for value in c.values],
            )
            for c in data.batches(records)
        )
        kafka_topics.fill(self.bootstrap, f"{self.name}-in", clicks)
        self.run("worker", "--until-idle")
        self.run("archive", "run", "--until-idle")

    @contextmanager
    def live(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the live worker."""
        worker = subprocess.Popen(self.command("worker"), env=self.environment(), stdout=subprocess.DEVNULL)
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait(30)

    @contextmanager
    def replaying(self, *options: str) -> Iterator[None]:
        """Replay the history, again and again."""
        ended, trouble = Event(), []

        def run() -> None:
            while not ended.is_set():
                self.replays += 1
                replay = subprocess.Popen(
                    self.command("replay", "--from", "earliest", "--as", f"r{self.replays}", *options),
                    env=self.environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                while replay.poll() is None and not ended.wait(0.1):
                    pass
                if replay.poll() is None:
                    replay.kill()
                    replay.wait()
                elif replay.returncode:
                    trouble.append(f"a replay ended with {replay.returncode}")
                    return

        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if trouble:
            raise SystemExit(trouble[0])

    def measure(self, worker: subprocess.Popen[bytes], seconds: float) -> float:
        """Return the p99 of what comes in now, in ms."""
        latency = Latency(
            self.bootstrap, f"{self.name}-in", self.name, committed=True, begin=OFFSET_END, warm_s=WARM_S
        )
        latency.process = worker
        return latency.measure(seconds)[1]


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
        ratios: dict[str, list[float]] = {"default": [], "--urgent": []}
        with beside.live() as worker:
            beside.measure(worker, options.seconds)  # not shown: the broker's path for this app warms up
            for _ in range(options.pairs):
                for way, found in ratios.items():
                    alone = beside.measure(worker, options.seconds)
                    with beside.replaying(*(["--urgent"] if way == "--urgent" else [])):
                        both = beside.measure(worker, options.seconds)
                    found.append(both / alone)
                    sys.stdout.write(
                        f"  p99 alone {alone:7.1f} ms, beside a replay ({way}) {both:7.1f} ms, ratio {both / alone:.2f}\n"
                    )
                    sys.stdout.flush()
    sys.stdout.write(f"  beside an urgent replay: median ratio {statistics.median(ratios['--urgent']):.2f}\n")
    limit = Limit("live p99 beside a replay", statistics.median(ratios["default"]), TIMES, "times that alone")
    return 0 if limit.show() else 1


if __name__ == "__main__":
    sys.exit(main())
