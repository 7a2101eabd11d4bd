"""Puts the benchmarks' records where Headwater reads them: into a log, or through its archiver into Parquet."""

from __future__ import annotations

from benchmarks import data
from headwater.core.batch import Append
from headwater.log import open_log


def load_log(url: str, records: int = data.RECORDS, users: int = data.USERS, topic: str = "clicks") -> None:
    """Append all records to a topic, 5,000 at a time."""
    log = open_log(url)
    try:
        log.create_topic(topic, data.PARTITIONS)
        for clicks in data.batches(records, users):
            log.append([Append(topic, clicks.partition, clicks.timestamps, clicks.keys, clicks.values)])
    finally:
        log.close()
