"""Named points at which a test kills the process, as `kill -9` would; without HEADWATER_CRASH they do nothing.

`HEADWATER_CRASH=name:n[,name:n]` kills at the n-th pass of a point (`*` counts passes of all points together);
`HEADWATER_CRASH_COUNT=FILE` gets the name of each point passed, the fatal one last, a line each.
"""

from __future__ import annotations

import os
import signal

from headwater.core.errors import MisuseError
from headwater.core.settings import read_environment

ANY = "*"


class _Plan:
    """What was asked for, and how often each point was passed in this process."""

    __slots__ = ("count_path", "kills", "passes", "total")

    def __init__(self, kills: dict[str, int], count_path: str | None) -> None:
        self.kills = kills
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
        if self.kills.get(name) == count or self.kills.get(ANY) == self.total:
            os.kill(os.getpid(), signal.SIGKILL)


_plan: _Plan | None = None
_is_read = False


def point(name: str) -> None:
    """Pass a named point: dies here when told to."""
    if not _is_read:
        _read_plan()
    if _plan is not None:
        _plan.note(name)


def parse_kills(text: str) -> dict[str, int]:
    """Return {name: n} for `name:n[,name:n]`. Raises MisuseError."""
    kills = {}
    for item in text.split(","):
        name, colon, count = item.strip().rpartition(":")
        if not colon or not name or not (count.isascii() and count.isdigit()) or int(count) < 1:
            raise MisuseError(f"HEADWATER_CRASH={text!r} can't be read at {item!r}; write name:n, n from 1")
        kills[name] = int(count)
    return kills


def _read_plan() -> None:
    global _is_read, _plan
    environment = read_environment()
    kills, count_path = environment.get("HEADWATER_CRASH"), environment.get("HEADWATER_CRASH_COUNT")
    if kills or count_path:
        _plan = _Plan(parse_kills(kills) if kills else {}, count_path or None)
    _is_read = True
