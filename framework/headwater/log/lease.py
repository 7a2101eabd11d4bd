"""Leases: the clock they run by, and which process on which boot of which machine holds one.

The clock is CLOCK_BOOTTIME (macOS: CLOCK_MONOTONIC, which there counts sleep): a laptop that slept past a lease
must find it expired, and a wall clock set back must not revive it. It starts anew with each boot, so a deadline
means something only together with the boot id. It is no event time and no wall clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseClock(Protocol):
    """What leases are reckoned by; `headwater.core.clock.ManualClock` will do in a test."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        ...


class BootClock:
    """Seconds since the machine started, sleep included; the same for all its processes."""

    def monotonic_s(self) -> float:
        """Return seconds since the boot."""
        return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class Process:
    """One process for good: a pid comes round again, a pid with its start time on one boot does not."""

    place: str
    pid: int
    started: str

    def is_gone(self) -> bool:
        """Whether the process has surely ended. One of another pid namespace can't be seen, so it counts as there."""
        here = this_process().place
        if self.place == here:
            return start_of(self.pid) != self.started
        return self.place.split("/")[0] != here.split("/")[0]


def start_of(pid: int) -> str | None:
    """Return a process's start time as the system tells it, or None where there is no such process."""
    if sys.platform == "linux":
        stat = _stat(pid)
        return None if stat is None or stat[0] in "ZX" else stat[19]
    return _ps(pid, "lstart=") or None


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger."""
    if sys.platform == "linux":
        stat = _stat(pid)
        return stat is not None and stat[0] in "Tt"
    return _ps(pid, "state=").startswith("T")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on (the name before it may hold anything)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _ps(pid: int, column: str) -> str:
    found = subprocess.run(["ps", "-o", column, "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what names this boot of this machine."""
    if sys.platform == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    found = subprocess.run(
        ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def this_process() -> Process:
    """Return the calling process (asked anew after a fork)."""
    return _process(os.getpid())


@lru_cache(maxsize=2)
def _process(pid: int) -> Process:
    # A pid means something only within its pid namespace: two containers may share the folder.
    space = os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else ""
    return Process(f"{boot_id()}/{space}", pid, start_of(pid) or "")
