"""Brokers for tests whose topics have fixed names, or that do things to brokers which others wouldn't bear."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kafka.cluster import Cluster
from tests.kafka.shared import empty, require_brokers


@pytest.fixture
def alone(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Return what empties the shared broker of everything but its own topics, and gives the log's URL.

    Tests that use it come one after the other, whatever process they run in; others name their topics by chance.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    url = f"kafka://{broker}"

    def clear() -> str:
        empty(url, *FIXED)
        return url

    with (root / "alone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield clear
        clear()


FIXED = (
    "departures",
    "flight",
    "orders",
    "receipts",
    "audits",
    "ranks",
    "failing",
    "holding",
    "numbers",
    "lists",
    "nexmark",
    "planes",
    "weather",
    *(f"q{number}" for number in range(23)),
    *(f"f{number:02}" for number in range(1, 13)),
)
"""How the topics of the apps begin that these tests share with those of the embedded log."""


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Return what starts brokers of the test's own."""
    require_brokers()
    started: list[Cluster] = []

    def start(brokers: int = 1, *, users: Mapping[str, str] | None = None, **settings: str) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster{len(started)}", brokers, settings=settings, users=users)
        started.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in started:
        cluster.close()
