"""The end of a worker that is told to stop while an agent blocks it (I26), beside processes that agents fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, time
from headwater.engine import run

ended = []
run.LAST_RESORT_S = 0.2
run._end_at_once = lambda: ended.append(1)
with run._last_resort() as note:
    def told(number, frame):
        note(number)
        if os.getpid() != worker:
            os._exit(0)
    worker = os.getpid()
    signal.signal(signal.SIGTERM, told)
    ready_out, ready_in = os.pipe()
    forked = os.fork()
    if forked == 0:
        # CPython drops signals that come while a process is being forked.
        os.write(ready_in, b"1")
        # In short sleeps: a signal that comes just before a long one is seen behind it.
        for _ in range(6000):
            time.sleep(0.01)
        os._exit(1)
    os.read(ready_out, 1)
    if sys.argv[1] == "forked":
        os.kill(forked, signal.SIGTERM)
        _, status = os.waitpid(forked, 0)
        assert status == 0, status
    elif sys.argv[1] == "worker":
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    time.sleep(1)
print(len(ended))
if sys.argv[1] != "forked":
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)
"""


@pytest.mark.parametrize(
    ("told", "ends"),
    [
        pytest.param("worker", 1, id="the worker: once"),
        pytest.param("forked", 0, id="a process that it forked: not the worker's business"),
        pytest.param("nobody", 0, id="nobody: over at once, though the forked one goes on"),
    ],
)
def test_the_last_resort_is_for_what_the_worker_itself_is_told(told: str, ends: int) -> None:
    path = ":".join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, told], capture_output=True, text=True, timeout=30, check=False,
        env={"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{ends}\n"
