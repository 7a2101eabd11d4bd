"""The hot tier: a partitioned, durable log behind one interface. `open_log` is the way in; clients load only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.errors import MisuseError

if TYPE_CHECKING:
    from headwater.log.interface import Log


def open_log(url: str) -> Log:
    """Open the log at `memory://NAME` (shared within the process by name) or `file://DIR` (made where there is none).

    Raises MisuseError for any other URL, LogUnavailableError where the place can't hold a log.
    """
    scheme, separator, place = url.partition("://")
    if separator and scheme == "memory":
        from headwater.log.memory import MemoryLog

        return MemoryLog(place)
    if separator and scheme == "file" and place:
        from headwater.log.embedded import EmbeddedLog

        return EmbeddedLog(place)
    raise MisuseError(
        f"can't open the log {url!r}: write file://DIR (a folder on this machine) or memory://NAME"
    )
