"""The full year, where someone fetched it: live, replay, handover and as-of through the command line are all SQL's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.equivalence.year import show


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("partitions", [1, 4])
def test_the_year_gives_the_same_tables_however_it_is_worked(
    flights_year: Path, tmp_path: Path, partitions: int
) -> None:
    """Holds promises 1, 2 and 4: one code path, replay equals live, the archive is the log."""
    assert show(flights_year, tmp_path, partitions).failures == []
