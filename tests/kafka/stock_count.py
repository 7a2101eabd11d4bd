"""The app of `test_stock_count.py`, of faust-streaming alone: a table of counts by key, as its guide has it."""

from __future__ import annotations

import os
import sys
from typing import Any

import faust

app = faust.App(
    os.environ["STOCK_FAUST_NAME"],
    broker=f"kafka://{os.environ['STOCK_FAUST_BOOTSTRAP']}",
    store="memory://",
    datadir=os.environ["STOCK_FAUST_DATA"],
    topic_partitions=4,
    processing_guarantee=os.environ["STOCK_FAUST_GUARANTEE"],
    broker_session_timeout=10.0,
    broker_heartbeat_interval=1.0,
    consumer_auto_offset_reset="earliest",
)
numbers = app.topic(
    f"{app.conf.id}-in", key_type=str, key_serializer="raw", value_serializer="raw", partitions=4
)
counts = app.Table("counts", default=int, partitions=4)


@app.agent(numbers)
async def count(stream: Any) -> None:
    async for key, _ in stream.items():  # noqa: PERF102  (a stream, no dict)
        counts[key] += 1


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--without-web", "--loglevel=warn"]
    app.main()
