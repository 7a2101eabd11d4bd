"""A shop in a folder of its own for each test, so that tests may run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.shop_runs import Shop


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Return an empty shop; what its test leaves running is ended. Slow tests start workers as people do."""
    made = Shop(tmp_path)
    made.forks = request.node.get_closest_marker("slow") is None
    yield made
    made.close()
