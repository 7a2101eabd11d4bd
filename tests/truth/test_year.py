"""The full year, where someone fetched it: SQL over the fetched files gives the stored hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.truth.make import truths_of
from tests.truth.rows import YEAR_AS_OF, YEAR_START, year_truths


@pytest.mark.slow
def test_sql_over_the_fetched_year_gives_the_stored_hashes(flights_year: Path) -> None:
    computed = truths_of(flights_year, as_of=YEAR_AS_OF, start=YEAR_START)
    facts = {
        name: {"columns": list(truth.columns), "rows": len(truth.lines), "sha256": truth.sha256}
        for name, truth in computed.items()
    }
    assert facts == year_truths()
