"""Records that break one agent of several, over Kafka: dead letters, redrive and replay as over the embedded log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.equivalence.place import Place
from tests.equivalence.test_failing_records import APP, show


@pytest.mark.broker
@pytest.mark.timeout(600)
def test_failing_records_over_kafka_leave_no_trace_but_a_dead_letter(
    alone: Callable[[], str], tmp_path: Path
) -> None:
    """Holds promise 5: nothing is skipped in silence."""
    show(Place(tmp_path / "place", APP, log=alone()), tmp_path, partitions=4, processes=2)
