"""The works in Bytewax: a dataflow on one worker; state is snapshot into SQLite where it is kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from job import Counter, Job

job = Job.read()
counter = Counter(job)
answer: dict[str, Any] = {}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Counted(StatelessSinkPartition[dict[str, Any]]):
    def write_batch(self, items: list[dict[str, Any]]) -> None:
        answer["count"] = answer.get("count", 0) + len(items)
        answer["cents"] = answer.get("cents", 0) + sum(item["cents"] for item in items)


class Kept(StatelessSinkPartition[tuple[str, float]]):
    def write_batch(self, items: list[tuple[str, float]]) -> None:
        answer.update(items)
        for _ in items:
            counter.record()


class Sink(DynamicSink[Any]):
    def __init__(self, partition: type[StatelessSinkPartition[Any]]) -> None:
        self._partition = partition

    def build(self, *_: Any) -> StatelessSinkPartition[Any]:
        return self._partition()


def decoded(message: Any) -> dict[str, Any]:
    if not counter.began:
        counter.start()
    click: dict[str, Any] = orjson.loads(message.value)
    return click


def noted(message: Any) -> dict[str, Any]:
    counter.record()
    click: dict[str, Any] = orjson.loads(message.value)
    return click


def add(total: float | None, amount: float) -> tuple[float, float]:
    total = (total or 0.0) + amount
    return total, total


def fold(window: tuple[int, float], click: dict[str, Any]) -> tuple[int, float]:
    return window[0] + 1, window[1] + click["amount"]


def window_result(item: tuple[str, tuple[int, tuple[int, float]]]) -> KafkaSinkMessage[bytes, bytes]:
    user, (number, (count, total)) = item
    value = {"user": user, "start": number * 60_000, "count": count, "sum": total}
    return KafkaSinkMessage(user.encode(), orjson.dumps(value))


flow = Dataflow("works")
# At its end the source is done and all windows close; a source that goes on is `tail=True`.
source = KafkaSource([job.bootstrap], [job.topic], tail=job.work == "latency", batch_size=5000)
messages = op.input("clicks", flow, source)
if job.work == "map":
    clicks = op.map("decode", messages, noted)
    large = op.filter("large", clicks, lambda click: click["amount"] >= 500)
    results = op.map(
        "cents", large, lambda click: {"user": click["user"], "cents": round(click["amount"] * 100)}
    )
    op.output("count", results, Sink(Counted))
elif job.work == "windows":
    clicks = op.map("decode", messages, noted)
    keyed = op.key_on("user", clicks, lambda click: click["user"])
    clock: Any = win.EventClock(
        lambda click: EPOCH + timedelta(milliseconds=click["time"]), wait_for_system_duration=timedelta(0)
    )
    windower = win.TumblingWindower(length=timedelta(minutes=1), align_to=EPOCH)
    folded = win.fold_window(
        "minutes", keyed, clock, windower, lambda: (0, 0.0), fold, lambda a, b: (a[0] + b[0], a[1] + b[1])
    )
    kop.output("out", op.map("result", folded.down, window_result), brokers=[job.bootstrap], topic=job.output)
else:
    clicks = op.map("decode", messages, decoded)
    keyed = op.map("user", clicks, lambda click: (click["user"], click["amount"]))
    totals = op.stateful_map("total", keyed, add)
    op.output("kept", totals, Sink(Kept))

recovery = None
if job.work == "table":
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    init_db_dir(Path(job.folder), 1)
    recovery = RecoveryConfig(job.folder)
run_main(flow, epoch_interval=timedelta(seconds=job.commit_s), recovery_config=recovery)
if job.work == "windows":
    counter.stop()
counter.report(answer)
os._exit(0)
