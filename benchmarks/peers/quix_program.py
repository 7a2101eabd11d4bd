"""The works in Quix Streams: StreamingDataFrames, state in RocksDB with changelog topics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from job import Counter, Job
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

job = Job.read()
counter = Counter(job)
app = Application(
    broker_address=job.bootstrap,
    consumer_group=job.output,
    auto_offset_reset="earliest",
    commit_interval=job.commit_s,
    processing_guarantee="exactly-once" if job.guarantee == "exactly_once" else "at-least-once",
    state_dir=job.folder,
    loglevel="ERROR",
    auto_create_topics=True,
)
clicks = app.topic(job.topic, key_deserializer="str", value_deserializer="json")
output = app.topic(job.output, key_serializer="str", value_serializer="json")
stream = app.dataframe(clicks)
answer: dict[str, Any] = {}
count = cents = results = 0


def seen(_: Any) -> None:
    if counter.record() and job.work != "windows":
        app.stop()


def counted(result: dict[str, Any]) -> None:
    global count, cents
    count += 1
    cents += result["cents"]


def add(click: dict[str, Any], state: Any) -> dict[str, Any]:
    total = state.get("total", 0.0) + click["amount"]
    state.set("total", total)
    return {**click, "total": total}


def kept(result: dict[str, Any]) -> None:
    answer[result["user"]] = result["total"]


def closed(window: dict[str, Any], key: str, *_: Any) -> dict[str, Any]:
    global results
    results += 1
    if results == job.results:
        counter.stop()
        app.stop()
    return {"user": key, "start": window["start"], "count": window["count"], "sum": window["sum"]}


if job.work == "map":
    stream = stream.update(seen)
    stream = stream[stream["amount"] >= 500]
    stream = stream.apply(lambda click: {"user": click["user"], "cents": round(click["amount"] * 100)})
    stream.update(counted)
elif job.work == "table":
    stream.apply(add, stateful=True).update(kept).update(seen)
elif job.work == "windows":
    windows = stream.update(seen).tumbling_window(timedelta(minutes=1))
    closing = windows.agg(count=Count(), sum=Sum("amount")).final(closing_strategy="partition")
    # The records that close the last windows have windows of their own, which stay open.
    closing.apply(closed, metadata=True).to_topic(output)
else:
    stream.apply(add, stateful=True).update(seen).to_topic(output)

app.run()
if job.work == "map":
    counter.report({"count": count, "cents": cents})
else:
    counter.report(answer)
