"""A partition's present: the records of the log, without an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.source.interface import FETCH_BYTES_MAX, Source

if TYPE_CHECKING:
    from headwater.core.batch import Batch
    from headwater.log.interface import Log, Tail


class LiveSource(Source):
    """Reads the log. Raises OffsetTrimmedError where the position is below the log's start."""

    def __init__(self, log: Log, topic: str, partition: int, position: int) -> None:
        """Begin at `position`; the log is asked for nothing before the first fetch."""
        self._log = log
        self.topic = topic
        self.partition = partition
        self.position = position
        self._tail: Tail | None = None

    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        """Return the records that follow; an empty batch where nothing is at hand."""
        tail = self._tail
        if tail is None:
            tail = self._tail = self._log.tail(self.topic, self.partition, self.position)
        batch = tail.fetch(bytes_max=bytes_max)
        self.position = batch.next
        return batch

    @property
    def at_end(self) -> bool:
        """Whether the last fetch that gave nothing had come to the log's end."""
        return self._tail is not None and self._tail.at_end

    def seek(self, offset: int) -> None:
        """Move the position."""
        self.position = offset
        if self._tail is not None:
            self._tail.seek(offset)

    def end_offset(self) -> int:
        """Return the log's end."""
        return self._log.end_offset(self.topic, self.partition)

    def close(self) -> None:
        """Let go of what was read ahead."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
