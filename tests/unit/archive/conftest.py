"""A log in memory, an archive in a folder, and records to put in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.log import open_log
from headwater.log.interface import Log

_numbers = itertools.count()


@pytest.fixture
def log() -> Iterator[Log]:
    made = open_log(f"memory://archive-{next(_numbers)}")
    made.create_topic("orders", 1)
    yield made
    made.close()


@pytest.fixture
def archive(tmp_path: Path, log: Log) -> Iterator[Archive]:
    made = open_archive(f"file://{tmp_path}/archive", log.log_id)
    yield made
    made.close()
