"""Where in a user's own code something was called from, for messages."""

from __future__ import annotations

import sys


def users_line() -> str:
    """Return the file and line of the nearest caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "headwater":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
