"""The works in faust-streaming: agents and tables as its guide shows them, on aiokafka."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import faust
from job import Counter, Job

job = Job.read()
counter = Counter(job)
app = faust.App(
    job.output,
    broker=f"kafka://{job.bootstrap}",
    store="memory://",
    datadir=job.folder,
    topic_partitions=4,
    topic_allow_declare=True,
    processing_guarantee=job.guarantee,
    broker_commit_interval=job.commit_s,
    consumer_auto_offset_reset="earliest",
    table_cleanup_interval=0.5,
    web_enabled=False,
)
answer: dict[str, Any] = {"count": 0, "cents": 0} if job.work == "map" else {}
results = 0


class Click(faust.Record):
    user: str
    amount: float


clicks = app.topic(job.topic, key_type=str, value_type=Click, key_serializer="raw", value_serializer="json")
output = app.topic(job.output, key_serializer="raw", value_serializer="json")


def done() -> None:
    counter.report(answer)
    os._exit(0)


def closed(key: Any, value: Any) -> None:
    """A window's end: sent as faust's guide does it, from the table's callback."""
    global results
    user, (start, _) = key
    row = {"user": user, "start": int(start * 1000), "count": value[0], "sum": value[1]}
    output.send_soon(key=user.encode(), value=row)
    results += 1
    if results == job.results:
        counter.stop()
        app.loop.call_later(3, done)


if job.work == "map":

    @app.agent(clicks)
    async def large(stream: Any) -> None:
        async for click in stream.filter(lambda click: counted(click) >= 500):
            result = {"user": click.user, "cents": round(click.amount * 100)}
            answer["count"] += 1
            answer["cents"] += result["cents"]

    def counted(click: Any) -> float:
        if counter.record():
            app.loop.call_later(0.5, done)
        amount: float = click.amount
        return amount

elif job.work == "windows":
    minutes = app.Table("minutes", default=lambda: (0, 0.0), on_window_close=closed, partitions=4).tumbling(
        timedelta(minutes=1), expires=timedelta(minutes=1)
    )

    @app.agent(clicks)
    async def window(stream: Any) -> None:
        async for click in stream:
            counter.record()
            count, total = minutes[click.user].value()
            minutes[click.user] = (count + 1, total + click.amount)

else:
    spend = app.Table("spend", default=float, partitions=4)

    @app.agent(clicks)
    async def total(stream: Any) -> None:
        async for click in stream:
            spend[click.user] += click.amount
            if job.work == "table":
                answer[click.user] = spend[click.user]
                if counter.record():
                    app.loop.call_later(0.5, done)
            else:
                await output.send(key=click.user, value={"user": click.user, "total": spend[click.user]})


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--loglevel=error"]
    app.main()
