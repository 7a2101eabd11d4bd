"""Runs workers of the shop as processes, kills and stops them, and compares what is in the log with the oracle."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.archive import open_archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, Batch
from headwater.core.partitioner import partition_of
from headwater.log import open_log
from headwater.log.interface import Log
from headwater.table.changelog import decode_changes
from headwater.table.store import open_store
from tests.crash import oracle
from tests.crash.log_processes import is_stopped
from tests.crash.shop_worker import Forked, fork

ROOT = Path(__file__).parents[2]
LANES = 2
EPOCHS = "shop.live.epochs"
REPARTITION = "shop.live.repartition.count.0"
WAIT_S = 90.0

PHASES: Mapping[str, tuple[str, ...]] = {
    "joining": ("session.before_join", "session.joined"),
    "recovery": ("session.before_recovery", "recovery.begun", "recovery.ended", "session.recovered"),
    "dispatch": ("session.dispatch",),
    "before the log": ("epoch.collect", "epoch.before_log", "log.before_begin"),
    "inside the log transaction": ("log.in_transaction", "log.before_commit"),
    "between log and store": ("log.after_commit", "epoch.between_log_and_store", "epoch.store_moved"),
    "after a commit": ("epoch.committed",),
    "leaving": ("session.leaving", "session.left"),
}
REBALANCE = ("session.revoking", "session.released")
POINTS = tuple(name for names in PHASES.values() for name in names)


class Worker:
    """One worker process; its stderr and the points it passed are kept in files."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, errors: Path, passed: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._errors = errors
        self._passed = passed

    def errors(self) -> str:
        """Return what it wrote to stderr."""
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def passed(self) -> Counter[str]:
        """Return how often it passed each point so far."""
        return Counter(self._passed.read_text().split() if self._passed.exists() else ())

    def last(self) -> str:
        """Return the point it passed last: where it was killed."""
        return self._passed.read_text().split()[-1]

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait until it ends, and return its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the worker hangs after {timeout_s} s: {self.errors()[-4000:]}") from None

    def wait_passed(self, name: str, count: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until it has passed a point that often."""
        wait_until(lambda: self.passed()[name] >= count, f"{name} x {count}", self, timeout_s)

    def wait_stopped(self, timeout_s: float = 60.0) -> None:
        """Wait until it has stopped itself."""
        wait_until(lambda: is_stopped(self.pid), "a stop", self, timeout_s)


def wait_until(
    fact: Callable[[], bool], what: str, worker: Worker | None = None, timeout_s: float = 60.0
) -> None:
    """Wait until something is so; a worker that ends meanwhile fails the test."""
    end_s = time.monotonic() + timeout_s
    while not fact():
        if worker is not None and worker.process.poll() is not None and not fact():
            raise AssertionError(
                f"the worker ended with {worker.process.returncode} before {what}: {worker.errors()[-4000:]}"
            )
        assert time.monotonic() < end_s, f"no {what} after {timeout_s} s"
        time.sleep(0.01)


class Shop:
    """A log in a folder, the input appended to it, and workers over it."""

    def __init__(self, folder: Path, *, bytes_each: int = 3000, lease_s: float = 2.0) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self.forks = True
        """False: each worker is a `python -m headwater` of its own, as people start it."""
        self.log: Log = open_log(f"file://{folder}/log")
        self.log.create_topic("orders", LANES)
        self.given: list[oracle.Given] = []
        self.kills: Counter[str] = Counter()
        self._bytes_each = bytes_each
        self._offsets: dict[int, int] = {}
        self._workers: list[Worker] = []

    def close(self) -> None:
        """End what is left over, and close the log."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        self.log.close()

    def append(self, count: int) -> None:
        """Append more input."""
        given = oracle.make_input(
            len(self.given), count, lambda key: partition_of(key, LANES), self._offsets,
            bytes_each=self._bytes_each,
        )  # fmt: skip
        self.given += given
        for lane in range(LANES):
            mine = [g for g in given if g.lane == lane]
            if mine:
                times = [1000 + g.offset for g in mine]
                self.log.append(
                    [Append("orders", lane, times, [g.key for g in mine], [g.value for g in mine])]
                )

    def append_fives(self, count: int) -> None:
        """Append input that leaves nothing held back in `take(5)`: a worker started later has nothing to do at all."""
        self.append(count)
        while any(
            sum(g.lane == lane and g.value[:1] == b"{" for g in self.given) % 5 for lane in range(LANES)
        ):
            self.append(1)

    def start(
        self,
        deeds: str = "",
        *,
        command: Sequence[str] = ("worker", "--until-idle", "--epoch", "0.05"),
        slow_s: float = 0.0,
        file_bytes_max: int | None = None,
        **environment: object,
    ) -> Worker:
        """Start a process; `deeds` says where it kills or stops itself."""
        number = len(self._workers)
        errors, passed = self.folder / f"errors-{number}", self.folder / f"passed-{number}"
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
        variables |= {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HEADWATER_LOG": f"file://{self.folder}/log",
            "HEADWATER_ARCHIVE": f"file://{self.folder}/archive",
            "HEADWATER_STATE": str(self.folder / "state"),
            "HEADWATER_CRASH": deeds,
            "HEADWATER_CRASH_COUNT": str(passed),
            "SHOP_SLOW_S": str(slow_s),
            "SHOP_LEASE_S": str(self.lease_s),
        }
        variables |= {name: str(value) for name, value in environment.items()}
        line = ["-A", "tests.crash.shop", *command]
        process: subprocess.Popen[bytes] | Forked
        if self.forks:
            process = fork(line, variables, ROOT, errors, file_bytes_max)
        else:
            with errors.open("wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "headwater", *line], cwd=ROOT, env=variables,
                    stdout=subprocess.DEVNULL, stderr=file,
                )  # fmt: skip
            if file_bytes_max is not None:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
        worker = Worker(process, errors, passed)
        self._workers.append(worker)
        return worker

    def run(self, deeds: str = "", **options: Any) -> Worker:
        """Run a worker to its end: killed where `deeds` says so, else it must end with 0."""
        worker = self.start(deeds, **options)
        code = worker.wait()
        if code == -signal.SIGKILL:
            self.kills[worker.last()] += 1
        else:
            assert code == 0, (deeds, code, worker.errors()[-4000:])
        return worker

    # What is there

    def records(self, topic: str, partition: int) -> list[Batch]:
        """Return all of a partition."""
        batches, position = [], 0
        while (batch := self.log.read(topic, partition, position)).next > position:
            batches.append(batch)
            position = batch.next
        return batches

    def ends(self) -> dict[str, list[int]]:
        """Return the end offsets of all topics."""
        topics = self.log.topics()
        return {t: [self.log.end_offset(t, p) for p in range(topics[t].partitions)] for t in sorted(topics)}

    def states(self) -> dict[int, dict[str, Any]]:
        """Return the last epochs record of each task."""
        states = {}
        if self.log.topic(EPOCHS) is not None:
            for batch in self.records(EPOCHS, 0):
                for key, value in zip(batch.keys, batch.values, strict=True):
                    if key is not None and key.isdigit():
                        assert value is not None
                        states[int(key)] = json.loads(value)
        return states

    def found(self) -> oracle.Expected:
        """Return what the log holds, in the oracle's words."""
        found = oracle.Expected()
        there = self.log.topics()
        for topic in ("receipts", "bundles"):
            for partition in range(there[topic].partitions if topic in there else 0):
                for batch in self.records(topic, partition):
                    for key, value in zip(batch.keys, batch.values, strict=True):
                        assert key is not None
                        assert value is not None
                        assert partition_of(key, there[topic].partitions) == partition
                        found.outputs[topic].setdefault(key, []).append(json.loads(value))
        for table in ("spent", "sold"):
            if f"shop.live.changelog.{table}" in there:
                for partition in range(LANES):
                    rows = self.rows(table, partition)
                    found.tables[table] |= {k.decode(): json.loads(v) for k, v in rows.items()}
        if "shop.live.dead" in there:
            for batch in self.records("shop.live.dead", 0):
                assert batch.headers is not None
                for key, value, headers in zip(batch.keys, batch.values, batch.headers, strict=True):
                    assert key is not None
                    assert value is not None
                    info = json.loads(dict(headers)["hw.dead"] or b"")
                    place = (info["topic"], info["partition"], info["offset"], info["agent"])
                    found.dead[*place, key, value] += 1
        return found

    def rows(self, table: str, partition: int, end: int | None = None) -> dict[bytes, bytes]:
        """Return a table partition's rows: the changelog, change after change, up to an offset of it."""
        rows: dict[bytes, bytes] = {}
        for batch in self.records(f"shop.live.changelog.{table}", partition):
            for offset, blob in zip(batch.offsets, batch.values, strict=True):
                if end is not None and offset >= end:
                    return rows
                assert blob is not None
                changes = decode_changes(blob)
                for key, value in zip(changes.keys.to_pylist(), changes.values.to_pylist(), strict=True):
                    rows[key] = value
                    if value is None:
                        del rows[key]
        return rows

    # Checks

    def check_cut(self) -> None:
        """I2: everything in the log is one cut of the input, the one that the positions name. For a log at rest."""
        upto: dict[str, dict[int, int]] = {"decode": {}, "bill": {}, "bundle": {}}
        sent: dict[int, int] = {}
        counted = 0
        for state in self.states().values():
            lane = state["partition"]
            for reader, places in state["positions"].items():
                if (place := places.get(f"orders/{lane}")) is None:
                    if reader == "count":
                        counted += sum(places.values())
                elif reader in upto:
                    upto[reader][lane] = place
                else:
                    assert lane not in sent, f"two sending readers: {reader}"
                    sent[lane] = place
        expected, found = oracle.expect(self.given, upto), self.found()
        assert found.outputs == expected.outputs
        assert found.tables["spent"] == expected.tables["spent"]
        assert found.dead == expected.dead
        assert sum(row["n"] for row in found.tables["sold"].values()) == counted
        self._check_repartition(sent)
        self._check_stores()

    def _check_repartition(self, sent: dict[int, int]) -> None:
        there = self.log.topic(REPARTITION)
        found: Counter[bytes] = Counter()
        for partition in range(0 if there is None else there.partitions):
            for batch in self.records(REPARTITION, partition):
                found.update(value for value in batch.values if value is not None)
        assert found == Counter(
            g.value for g in self.given if g.offset < sent.get(g.lane, 0) and g.value[:1] == b"{"
        )

    def _check_stores(self) -> None:
        """I7: no store is ahead of its changelog, and each is the fold of it at exactly the offset it holds."""
        for folder in sorted((self.folder / "state").glob("shop/live/w*/*/*/CURRENT")):
            slot, table, partition = folder.parents[2], folder.parents[1].name, int(folder.parent.name)
            store = open_store(str(slot), table, partition)
            try:
                assert store.changelog_offset <= self.log.end_offset(
                    f"shop.live.changelog.{table}", partition
                )
                rows = self.rows(table, partition, store.changelog_offset)
                assert dict(store.items()) == rows, (slot.name, table, partition, store.changelog_offset)
            finally:
                store.close()

    def check_done(self, *, stores: bool = True) -> None:
        """I1: all of the input is done, once, and outputs, tables and dead letters are the oracle's.

        A stopped worker holds its stores: they can be looked at (`stores`) only once it is gone.
        """
        expected, found = oracle.expect(self.given), self.found()
        assert found.outputs == expected.outputs
        assert found.tables == expected.tables
        assert found.dead == expected.dead
        for state in self.states().values():
            for place, next_offset in state["seen"].items():
                topic, _, partition = place.rpartition("/")
                assert next_offset == self.log.end_offset(topic, int(partition)), place
        if stores:
            self._check_stores()

    def check_archive(self, *, archived: bool = False) -> int:
        """I13, I14: the archive is the log, byte for byte; return how many records that is."""
        archive = open_archive(f"file://{self.folder}/archive", self.log.log_id)
        if not archived:
            Archiver(self.log, archive, list(self.log.topics())).until_idle()
        assert list(archive.verify()) == []
        records = 0
        for topic, ends in self.ends().items():
            for partition, end in enumerate(ends):
                assert (archive.end(topic, partition) or 0) == end, (topic, partition)
                cold = rows_of(archive.read(topic, partition, 0)) if end else []
                assert cold == rows_of(self.records(topic, partition)), (topic, partition)
                records += len(cold)
        archive.close()
        return records


def rows_of(batches: Any) -> list[tuple[Any, ...]]:
    """Return batches as one list of rows, with nulls and empties told apart."""
    rows = []
    for batch in batches:
        headers = batch.headers if batch.headers is not None else [()] * len(batch)
        rows += [
            (offset, time_ms, key, value, tuple(pairs or ()))
            for offset, time_ms, key, value, pairs in zip(
                batch.offsets, batch.timestamps, batch.keys, batch.values, headers, strict=True
            )
        ]
    return rows
