"""A partition's present: the records of the log, without an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.source.interface import FETCH_BYTES_MAX, Source

if TYPE_CHECKING:
    from headwater.core.batch import Batch
    from headwater.log.interface import Log


class LiveSource(Source):
    """Reads the log. Raises OffsetTrimmedError where the position is below the log's start."""

    def __init__(self, log: Log, topic: str, partition: int, position: int) -> None:
        """Begin at `position`."""
        self._log = log
        self.topic = topic
        self.partition = partition
        self.position = position

    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        """Return the records that follow; an empty batch where there is nothing yet."""
        batch = self._log.read(self.topic, self.partition, self.position, bytes_max=bytes_max)
        self.position = batch.next
        return batch

    def seek(self, offset: int) -> None:
        """Move the position."""
        self.position = offset

    def end_offset(self) -> int:
        """Return the log's end."""
        return self._log.end_offset(self.topic, self.partition)

    def close(self) -> None:
        """Nothing is held: the log belongs to whoever opened it."""
