"""The works in Pathway: tables of its Rust engine; records are counted as they arrive, in its own reductions."""

from __future__ import annotations

import os
from threading import Timer
from time import perf_counter, process_time
from typing import Any

import pathway as pw
from job import Counter, Job

job = Job.read()
counter = Counter(job)
answer: dict[str, Any] = {}
first = 0


class Click(pw.Schema):
    user: str
    amount: float


class TimedClick(Click):
    time: int


def last() -> None:
    """Stop the clock; the other subscribers of the same moment may be still to come."""
    counter.stop()
    Timer(1.0, done).start()


def done() -> None:
    counter.seen = job.records
    # Nothing shows the first record before it is reduced: the clock runs from the first count on, and is stretched.
    share = job.records / (job.records - first)
    counter.ended = counter.began + (counter.ended - counter.began) * share
    counter.processor_s *= share
    counter.report(answer)
    os._exit(0)


def seen(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
    global first
    if not is_addition:
        return
    if not counter.began:
        first = row["seen"]
        counter.began, counter._processor = perf_counter(), process_time()
    counter.seen = row["seen"]


def ended(time: int) -> None:
    if counter.seen == job.records and not counter.ended:
        last()


clicks = pw.io.kafka.read(
    {
        "bootstrap.servers": job.bootstrap,
        "group.id": job.output,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": "6000",
    },
    topic=job.topic,
    schema=TimedClick if job.work == "windows" else Click,
    format="json",
    autocommit_duration_ms=int(job.commit_s * 1000),
    name="clicks",
)
if job.work == "map":
    results = clicks.filter(clicks.amount >= 500).select(
        user=pw.this.user, cents=pw.cast(int, pw.this.amount * 100 + 0.5)
    )
    counted = results.reduce(count=pw.reducers.count(), cents=pw.reducers.sum(pw.this.cents))

    def count(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        if is_addition:
            answer.update(row)

    pw.io.subscribe(counted, count)
elif job.work == "table":
    totals = clicks.groupby(clicks.user).reduce(clicks.user, total=pw.reducers.sum(clicks.amount))

    def keep(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        if is_addition:
            answer[row["user"]] = row["total"]

    pw.io.subscribe(totals, keep)
else:
    # Every change of a window is told: `exactly_once_behavior` drops what is late by all partitions' clock together, and
    # of partitions that are read at different speeds that is most.
    windows = clicks.windowby(
        clicks.time, window=pw.temporal.tumbling(duration=60_000), instance=clicks.user
    ).reduce(
        user=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        count=pw.reducers.count(),
        sum=pw.reducers.sum(pw.this.amount),
    )
    pw.io.kafka.write(windows, {"bootstrap.servers": job.bootstrap}, topic_name=job.output, format="json")

pw.io.subscribe(clicks.reduce(seen=pw.reducers.count()), seen, on_time_end=ended)
persistence = None
if job.work == "table":
    persistence = pw.persistence.Config(
        pw.persistence.Backend.filesystem(job.folder), snapshot_interval_ms=int(job.commit_s * 1000)
    )
pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=persistence)
