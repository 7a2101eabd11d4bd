"""How the processes of a test run share the tests: so that none waits for what another holds.

Protocol
1. Files whose tests have the shared broker for themselves go to one process, first of all.
2. Everything else goes to whoever is free, test by test; what needs the broker last, when it is up, and before the rest of
   that the tests with brokers of their own, which are the longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

ALONE = frozenset(f"tests/kafka/test_{name}.py" for name in ("event_time", "failing", "flights", "follow"))


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Takes the tests of those files as one piece of work; every other test is one."""

    def _split_scope(self, nodeid: str) -> str:
        return "alone" if nodeid.partition("::")[0] in ALONE else nodeid


def turn(item: pytest.Item) -> int:
    """Return the place of a test in the order of all."""
    if item.nodeid.partition("::")[0] in ALONE:
        return 0
    if item.get_closest_marker("broker") is None:
        return 1
    return 2 if "new_cluster" in getattr(item, "fixturenames", ()) else 3
