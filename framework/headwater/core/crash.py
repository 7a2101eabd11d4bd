"""Named points at which a test kills or stops the process, as `kill -9` and `kill -STOP` would; else they do nothing.

`HEADWATER_CRASH=name:n[=stop][,…]` kills at the n-th pass of a point (`*` counts passes of all points together), or
with `=stop` stops there until a SIGCONT: a zombie in the making.
`HEADWATER_CRASH_COUNT=FILE` gets the name of each point passed, the fatal one last, a line each.
"""

from __future__ import annotations

import os
import signal

from headwater.core.errors import MisuseError
from headwater.core.settings import read_environment

ANY = "*"
ACTIONS = {"": signal.SIGKILL, "kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class _Plan:
    """What was asked for, and how often each point was passed in this process."""

    __slots__ = ("count_path", "deeds", "passes", "total")

    def __init__(self, deeds: dict[tuple[str, int], signal.Signals], count_path: str | None) -> None:
        self.deeds = deeds
        self.count_path = count_path
        self.passes: dict[str, int] = {}
        self.total = 0

    def note(self, name: str) -> None:
        if self.count_path is not None:
            # Opened anew each time: O_APPEND keeps the lines of several processes whole, and nothing is buffered
            # when the process dies.
            descriptor = os.open(self.count_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, name.encode() + b"\n")
            finally:
                os.close(descriptor)
        self.total += 1
        count = self.passes[name] = self.passes.get(name, 0) + 1
        deed = self.deeds.get((name, count)) or self.deeds.get((ANY, self.total))
        if deed is not None:
            # To this very thread: a stop sent to the process may be taken by another one, and this one goes on until
            # that one has run, past the point and out of a transaction.
            signal.raise_signal(deed)


_plan: _Plan | None = None
_is_read = False


def point(name: str) -> None:
    """Pass a named point: dies here when told to."""
    if not _is_read:
        _read_plan()
    if _plan is not None:
        _plan.note(name)


def parse_deeds(text: str) -> dict[tuple[str, int], signal.Signals]:
    """Return {(name, n): signal} for `name:n[=stop][,…]`. Raises MisuseError."""
    deeds = {}
    for item in text.split(","):
        place, _, action = item.strip().partition("=")
        name, colon, count = place.rpartition(":")
        if (
            not colon
            or not name
            or not (count.isascii() and count.isdigit())
            or int(count) < 1
            or action not in ACTIONS
        ):
            raise MisuseError(
                f"HEADWATER_CRASH={text!r} can't be read at {item!r}; write name:n or name:n=stop, n from 1"
            )
        deeds[name, int(count)] = ACTIONS[action]
    return deeds


def _read_plan() -> None:
    global _is_read, _plan
    environment = read_environment()
    deeds, count_path = environment.get("HEADWATER_CRASH"), environment.get("HEADWATER_CRASH_COUNT")
    if deeds or count_path:
        _plan = _Plan(parse_deeds(deeds) if deeds else {}, count_path or None)
    _is_read = True
