"""Watcher: what a task has to do when its watermark passes something: operators, event-time timers."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Something of a task that waits for its watermark."""

    @property
    def due(self) -> int:
        """The least watermark at which there is something to do; END_OF_TIME + 0 where nothing waits but the end."""
        ...

    async def advance(self, row: int, watermark: int) -> None:
        """Do what is due at a watermark; `row` is the row that brought it, the cause of all that this makes."""
        ...
