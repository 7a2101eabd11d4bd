"""The only place that reads the wall clock and the monotonic clock, so that nothing else does by accident."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time is asked of."""

    def now_ms(self) -> int:
        """Return wall-clock time in ms since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never goes back and counts sleep of the process."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return wall-clock time in ms since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()


class ManualClock:
    """A clock for tests that moves only when told to."""

    def __init__(self, now_ms: int = 0) -> None:
        """Start at `now_ms`."""
        self._now_ms = float(now_ms)

    def now_ms(self) -> int:
        """Return the time set."""
        return int(self._now_ms)

    def monotonic_s(self) -> float:
        """Return the time set, in seconds."""
        return self._now_ms / 1000

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now_ms += seconds * 1000


SYSTEM_CLOCK = SystemClock()
