"""One broker for all of a test run: whichever process needs it first starts it; it ends when the run does."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.log.kafka import KafkaLog
from tests.kafka.cluster import missing

_started: list[subprocess.Popen[bytes]] = []
"""Kept: it ends by itself after the run, when nobody is left to wait for it."""


def require_brokers() -> None:
    """Skip where this machine can't run a broker, with the reason; where it must (CI=true), fail."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI runs the tests on real brokers, but {reason}")
    pytest.skip(reason)


def shared_broker(base: Path) -> str:
    """Return the bootstrap servers of the run's broker; `base` is pytest's temporary folder of this process."""
    require_brokers()
    under_xdist = "PYTEST_XDIST_WORKER" in os.environ
    root = base.parent if under_xdist else base
    run = os.getppid() if under_xdist else os.getpid()
    with (root / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = root / "kafka.bootstrap"
        if not told.exists():
            errors = (root / "kafka.err").open("wb")
            with errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.kafka.cluster", "--while", str(run)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
            _started.append(process)
            assert process.stdout is not None
            with process.stdout:
                line = process.stdout.readline().decode().strip()
            if not line:
                pytest.fail(f"no broker came up: {(root / 'kafka.err').read_text()[-2000:]}")
            told.write_text(line)
        return told.read_text()


def empty(url: str, *beginnings: str) -> None:
    """Delete the topics whose names begin so, and forget their groups."""
    log = KafkaLog(url)
    names = [name for name in log.topics() if name.startswith(beginnings)]
    for name in names:
        log.delete_topic(name)
    for group in {name.removesuffix(".tasks") for name in names if name.endswith(".tasks")}:
        log.forget_group(group)
    log.close()
