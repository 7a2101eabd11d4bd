"""A run under faults: brokers, workers and an upstream producer in processes and threads of their own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headwater.log.kafka import KafkaLog
from tests.equivalence.place import ROOT
from tests.kafka.checker import Found, check, read_all
from tests.kafka.cluster import Cluster
from tests.kafka.counting import NAME

LEASE_S = 4.0
KEYS = 97
SETTLE_S = 300.0
NUDGE_S = 5.0
POINTS = (
    "session.joined", "session.before_recovery", "session.recovered", "session.dispatch", "epoch.before_log",
    "log.before_begin", "log.in_transaction", "log.before_positions", "log.before_commit", "log.after_commit",
    "epoch.between_log_and_store", "epoch.store_moved", "epoch.committed", "session.revoking", "session.leaving",
)  # fmt: skip
"""The named phases of a worker's life at which it is killed."""


@dataclass(slots=True)
class Chaos:
    """One app on one cluster. `seed` alone repeats the faults."""

    cluster: Cluster
    name: str
    folder: Path
    seed: int
    partitions: int = 4
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    leaving: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0
    faults: list[str] = field(default_factory=list)
    failure: list[BaseException] = field(default_factory=list)
    sent: int = 0
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        log = KafkaLog(self.cluster.url)
        for topic in ("in", "out"):
            log.create_topic(f"{self.name}-{topic}", self.partitions)
        log.close()

    # Workers

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable, "-m", "headwater", "-A", "tests.kafka.counting:app", "--log", self.cluster.url,
            "--archive", f"file://{self.folder}/archive", "--state", f"{self.folder}/state", *arguments,
        ]  # fmt: skip

    def environment(self, crash: str | None = None) -> dict[str, str]:
        found = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "framework"), str(ROOT)]),
            NAME: self.name,
            "HEADWATER_TEST_LEASE": str(LEASE_S),
        }
        if crash is not None:
            found["HEADWATER_CRASH"] = crash
        return found

    def start_worker(self, crash: str | None = None) -> subprocess.Popen[bytes]:
        """Start one; with `crash` it dies, or stops, at that point."""
        self.started += 1
        with (self.folder / f"worker{self.started}.err").open("wb") as errors:
            worker = subprocess.Popen(
                self.command("worker", "--epoch", "0.1"), env=self.environment(crash), stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors, cwd=self.folder,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def let_go(self, worker: subprocess.Popen[bytes]) -> None:
        """Tell a worker to leave, and don't wait for it."""
        worker.terminate()
        self.workers.remove(worker)
        self.leaving.append(worker)

    def dies_at(self, point: str, within_s: float = 60.0) -> bool:
        """Start a worker that is killed at a point; tell whether it came to that point.

        Once it is at work, it is told to stop where it is to die leaving, and gets company where it is to die giving up tasks:
        two of the four are its own then, and each of four workers gets one.
        """
        gives_up = point.startswith("session.revoking")
        while gives_up and len(self.workers) > 1:
            self.let_go(self.workers[0])
        worker = self.start_worker(point)
        begin_s = time.monotonic()
        is_nudged = not (gives_up or point.startswith("session.leaving"))
        while worker.poll() is None and time.monotonic() < begin_s + within_s:
            time.sleep(0.05)
            if not is_nudged and time.monotonic() > begin_s + NUDGE_S:
                is_nudged = True
                if point.startswith("session.leaving"):
                    worker.terminate()
                else:
                    self.start_worker()
                    self.start_worker()
        came = worker.poll() == -signal.SIGKILL
        self.faults.append(f"{point}: {'killed' if came else 'not passed'}")
        self.kill(worker)
        return came

    def zombie(self, worker: subprocess.Popen[bytes] | None = None) -> None:
        """Stop a worker past its session, and let it go on."""
        chosen = worker or self.chance.choice(self.workers)
        chosen.send_signal(signal.SIGSTOP)
        time.sleep(2 * LEASE_S)
        chosen.send_signal(signal.SIGCONT)
        self.faults.append("zombie")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold all workers, once what they have ended is written: a second."""
        held = [worker for worker in self.workers if worker.poll() is None]
        for worker in held:
            worker.send_signal(signal.SIGSTOP)
        time.sleep(1)
        try:
            yield
        finally:
            for worker in held:
                worker.send_signal(signal.SIGCONT)
        self.faults.append("a broker killed")

    def wait_leaders(self, within_s: float = 60.0) -> None:
        """Wait until each partition is led again, some time after its broker answers."""
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        end_s = time.monotonic() + within_s
        while any(
            partition.leader < 0
            for topic in admin.list_topics(timeout=30).topics.values()
            for partition in topic.partitions.values()
        ):
            assert time.monotonic() < end_s, "some partitions have no leader"
            time.sleep(0.1)

    def stop_workers(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
        for worker in [*self.workers, *self.leaving]:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.workers.clear()
        self.leaving.clear()

    # The producer upstream

    def produce(
        self, records: int, per_transaction: int, aborting: float, pause_s: float
    ) -> threading.Thread:
        """Send records in transactions, some of which are aborted and sent again with other values first."""
        thread = threading.Thread(
            target=self._produce, args=(records, per_transaction, aborting, pause_s), daemon=True
        )
        thread.start()
        return thread

    def _produce(self, records: int, per_transaction: int, aborting: float, pause_s: float) -> None:
        try:
            chance = random.Random(self.seed + 1)
            while self.sent < records:
                count = min(per_transaction, records - self.sent)
                abort = chance.random() < aborting
                try:
                    self._transaction(self.sent, count, abort=abort)
                except KafkaException:
                    # Whether it was committed is read from the topic: the next transaction of this id settles it first.
                    self._settle()
                    continue
                if not abort:
                    self.sent += count
                time.sleep(pause_s)
        except BaseException as error:
            self.failure.append(error)

    def _producer(self) -> Producer:
        producer = Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap, "transactional.id": f"{self.name}.upstream",
                "transaction.timeout.ms": 20_000, "log_level": 0,
            }
        )  # fmt: skip
        producer.init_transactions(120)
        return producer

    def _transaction(self, first: int, count: int, *, abort: bool) -> None:
        producer = self._producer()
        producer.begin_transaction()
        for number in range(first, first + count):
            key = b"k%d" % (number * 31 % KEYS)
            value = b"-999999" if abort else b"%d" % number
            producer.produce(
                f"{self.name}-in",
                value,
                key,
                number * 31 % KEYS % self.partitions,
                timestamp=1_000_000 + number,
            )
        producer.flush(30)
        (producer.abort_transaction if abort else producer.commit_transaction)(30)

    def _settle(self) -> None:
        """Learn how much was committed, as soon as a broker is there to say so."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            try:
                self._producer()
                seen = read_all(self.cluster.bootstrap, f"{self.name}-in")
            except KafkaException:
                if time.monotonic() > end_s:
                    raise
                time.sleep(1)
                continue
            self.sent = max((int(value or b"0") for _, _, value in seen), default=-1) + 1
            return

    # The end

    def wait_sent(self, records: int, within_s: float) -> None:
        """Wait until all input is sent."""
        end_s = time.monotonic() + within_s
        while self.sent < records:
            assert not self.failure, self.failure
            assert time.monotonic() < end_s, f"only {self.sent} of {records} were sent; {self.faults}"
            time.sleep(0.1)

    def until_done(self, records: int, within_s: float) -> None:
        """Wait until a worker that stops when all is done has ended."""
        self.wait_sent(records, within_s)
        self.stop_workers()
        done = subprocess.run(
            self.command("worker", "--until-idle"), env=self.environment(), cwd=self.folder, capture_output=True,
            text=True, timeout=within_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    def rows(self) -> dict[str, dict[str, int]]:
        done = subprocess.run(
            self.command("table", "dump", "totals", "--json"), env=self.environment(), cwd=self.folder,
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        return {row["key"]: row["value"] for row in map(json.loads, done.stdout.splitlines())}

    def check(self) -> Found:
        """Return what the independent checker found."""
        return check(self.cluster.bootstrap, self.name, self.rows())


class Silence:
    """Reads an app's outputs while faults are at work, and notes for how long each partition gave none."""

    def __init__(self, chaos: Chaos) -> None:
        """Begin at the end of what is there."""
        self.longest_s = dict.fromkeys(range(chaos.partitions), 0.0)
        self._topic = f"{chaos.name}-out"
        self._bootstrap = chaos.cluster.bootstrap
        self._ended = threading.Event()
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            consumer = Consumer(
                {
                    "bootstrap.servers": self._bootstrap, "group.id": "silence", "enable.auto.commit": False,
                    "isolation.level": "read_committed", "log_level": 0,
                }
            )  # fmt: skip
            consumer.assign(
                [TopicPartition(self._topic, partition, OFFSET_END) for partition in self.longest_s]
            )
            heard_s = dict.fromkeys(self.longest_s, time.monotonic())
            while not self._ended.is_set():
                message = consumer.poll(0.1)
                now_s = time.monotonic()
                for partition, last_s in heard_s.items():
                    self.longest_s[partition] = max(self.longest_s[partition], now_s - last_s)
                if message is not None and message.error() is None:
                    heard_s[message.partition() or 0] = now_s
            consumer.close()
        except BaseException as error:
            self._failure.append(error)

    def end(self) -> dict[int, float]:
        """Stop, and return the longest silence of each partition in seconds."""
        self._ended.set()
        self._thread.join(30)
        if self._failure:
            raise self._failure[0]
        return self.longest_s


def pick_points(points: Sequence[str], each: int) -> list[str]:
    """Return each point so many times as HEADWATER_CRASH takes them: with the first, second… pass where a worker has several."""
    return [
        f"{point}:{1 if point.startswith('session.') and point != 'session.dispatch' else n + 1}"
        for n in range(each)
        for point in points
    ]
