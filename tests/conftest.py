"""What every test shares: hypothesis's profiles, and the full year of flights where someone fetched it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.sharing import Sharing, turn

# The gate must give the same answer twice: examples come from the test's own name, and no deadline,
# because a shared machine stalls. `HYPOTHESIS_PROFILE=explore` looks for new examples instead.
settings.register_profile(
    "gate",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


BROKER_TIMEOUT_S = 400
"""The first test on a broker waits until Maven has fetched its jars, and until it is up."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: tests wait for brokers, processes and disks."""
    return 1 + (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests in our way."""
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests on brokers time, and put all in an order in which none waits for another."""
    for item in items:
        if item.get_closest_marker("broker") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(BROKER_TIMEOUT_S))
    items.sort(key=turn)


@pytest.fixture(autouse=True)
def _log_levels_of_a_new_process() -> None:
    """A command that an earlier test ran in this process has set its level: what this test looks for must not go by it."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("headwater").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the bootstrap servers of a Kafka broker that this run shares."""
    from tests.kafka.shared import shared_broker

    return shared_broker(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def flights_year() -> Path:
    """Return the folder with the full year's streams (`python -m headwater_apps.flights.fetch DIR`)."""
    folder = os.environ.get("HEADWATER_FLIGHTS_YEAR")
    if folder is None:
        pytest.skip("the full year is not here: fetch it, and set HEADWATER_FLIGHTS_YEAR to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def nexmark_events() -> Path:
    """Return the generator's events: 100,000 of them, in order (`nexmark-gen` of benchmarks/nexmark_gen)."""
    file = os.environ.get("HEADWATER_NEXMARK_EVENTS")
    if file is None:
        pytest.skip("no Nexmark events are here: generate them, and set HEADWATER_NEXMARK_EVENTS to the file")
    return Path(file)
