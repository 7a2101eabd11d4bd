"""robinhood/faust#340: what stock faust 0.15.3 makes of a count under kills that `test_chaos.py` shows exact here.

Its figure stands in docs/reference/faust.md.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.core.batch import Append, TopicPartition
from headwater.log.kafka import KafkaLog
from tests.kafka.checker import read_all
from tests.kafka.cluster import Cluster

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(1800)]

RECORDS = 300_000
KILLS = 10
KEYS = 97
PROGRAM = Path(__file__).parent / "stock_count.py"


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_300_000_records_with_10_kills_do_not_count_to_300_000_in_stock_faust(
    new_cluster: Callable[..., Cluster], tmp_path: Path, guarantee: str
) -> None:
    """In 2019 it came to 299,356. Exactly once, its workers may all refuse to go on after some kills: then the count stays short."""
    cluster = new_cluster()
    name = f"stock{secrets.token_hex(3)}"
    log = KafkaLog(cluster.url, {"compression.type": "none"})  # its client has no lz4 here
    log.create_topic(f"{name}-in", 4)
    for first in range(0, RECORDS, 20_000):
        for partition in range(4):
            mine = [n for n in range(first, first + 20_000) if n % KEYS % 4 == partition]
            keys, values = [b"k%d" % (n % KEYS) for n in mine], [b"%d" % n for n in mine]
            log.append([Append(f"{name}-in", partition, [1_000_000 + n for n in mine], keys, values)])
    workers = [_start(cluster, name, tmp_path, guarantee, number) for number in range(2)]
    kills = 0
    try:
        while kills < KILLS and _are_done(log, name, (kills + 1) * RECORDS // (KILLS + 2), workers):
            workers[0].kill()
            workers.pop(0).wait()
            workers.append(_start(cluster, name, tmp_path, guarantee, 2 + kills))
            kills += 1
        ended = not _are_done(log, name, RECORDS, workers)
        time.sleep(10)  # its changelog is sent behind the positions
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        log.close()
    last: dict[bytes, int] = {}
    for _, key, value in read_all(cluster.bootstrap, f"{name}-counts-changelog"):
        last[key or b""] = json.loads(value or b"0")
    counted = sum(last.values())
    how = ", and then its workers ended by themselves" if ended else ""
    print(f"stock faust, {guarantee}: {RECORDS:,} records with {kills} kills{how} count to {counted:,}")
    assert counted != RECORDS


def _start(cluster: Cluster, name: str, folder: Path, guarantee: str, number: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "STOCK_FAUST_NAME": name,
        "STOCK_FAUST_BOOTSTRAP": cluster.bootstrap,
        "STOCK_FAUST_DATA": str(folder / f"data{number}"),
        "STOCK_FAUST_GUARANTEE": guarantee,
    }
    environment.pop("PYTHONPATH", None)
    with (folder / f"stock{number}.err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=folder,
        )  # fmt: skip


def _are_done(
    log: KafkaLog, name: str, records: int, workers: list[subprocess.Popen[bytes]], within_s: float = 400.0
) -> bool:
    """Wait until the group's positions say that so many records are done; tell whether they do, or all workers have ended."""
    end_s = time.monotonic() + within_s
    places = [TopicPartition(f"{name}-in", partition) for partition in range(4)]
    while sum(log.positions(name, places).values()) < records:
        if all(worker.poll() is not None for worker in workers):
            return False
        assert time.monotonic() < end_s, f"only {log.positions(name, places)} after {within_s} s"
        time.sleep(0.2)
    return True
