"""A draining worker killed before and after it has written END-OF-TIME; three others go on: every window closes once, whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from headwater.core.batch import Append
from headwater.core.header import is_end_of_time
from headwater.log import open_log

PARTITIONS, EACH, MINUTE_MS = 3, 400, 60_000
ROOT = Path(__file__).parents[2]
APP = """
import headwater as hw

app = hw.App("minutes", partitions=3)
events, closed = app.topic("events"), app.topic("closed", partitions=1)
counts = events.group_by("k").window(hw.windows.Tumbling(60)).aggregate(name="counts", n=hw.agg.count())


@app.agent(counts.final())
async def told(stream):
    async for row in stream:
        await closed.send(key=b"all", value=[row["key"], row["start"], row["n"]])
"""


def _drain(folder: Path, processes: int, crash: str | None) -> int:
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'framework'}{os.pathsep}{folder}"}
    variables.pop("HEADWATER_CRASH", None)
    if crash is not None:
        variables["HEADWATER_CRASH"] = crash
    places = [
        "--log",
        f"file://{folder}/log",
        "--archive",
        f"file://{folder}/archive",
        "--state",
        f"{folder}/state",
    ]
    command = [
        sys.executable, "-m", "headwater", "-A", "minutes", *places, "worker", "--drain", "--processes", str(processes),
        "-l", "error",
    ]  # fmt: skip
    return subprocess.run(command, env=variables, cwd=folder, timeout=240, check=False).returncode


@pytest.mark.timeout(600)
@pytest.mark.parametrize("crash", ["drain.before:1", "drain.marked:1"])
def test_a_killed_drain_is_finished_by_others(tmp_path: Path, crash: str) -> None:
    """I2, I3."""
    (tmp_path / "minutes.py").write_text(APP)
    log = open_log(f"file://{tmp_path}/log")
    log.create_topic("events", PARTITIONS)
    expected: Counter[tuple[str, int]] = Counter()
    for partition in range(PARTITIONS):
        times = [1_600_000_020_000 + 1_000 * n * (partition + 1) for n in range(EACH)]
        keys = [f"k{(n + partition) % 5}" for n in range(EACH)]
        expected.update((key, time - time % MINUTE_MS) for key, time in zip(keys, times, strict=True))
        values = [json.dumps({"k": key}).encode() for key in keys]
        log.append([Append("events", partition, times, [None] * EACH, values)])

    assert _drain(tmp_path, 1, crash) == -signal.SIGKILL
    assert _drain(tmp_path, 3, None) == 0

    rows = [json.loads(value or b"") for value in log.read("closed", 0, 0, bytes_max=1 << 26).values]
    assert sorted(map(tuple, rows)) == sorted((key, start, n) for (key, start), n in expected.items())
    for partition in range(PARTITIONS):
        batch = log.read("events", partition, EACH)
        assert 1 <= len(batch) <= 2  # a kill right after the first mark may have another written
        assert all(is_end_of_time(batch.headers_at(at)) for at in range(len(batch)))
    log.close()
