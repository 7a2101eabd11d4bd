"""A partition's past: the records of the archive, up to its end or an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.batch import Batch
from headwater.source.interface import FETCH_BYTES_MAX, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.archive.archive import Archive


class ReplaySource(Source):
    """Reads the archive. At its end it says "nothing more now", and goes on once the archive has grown."""

    def __init__(
        self,
        archive: Archive,
        topic: str,
        partition: int,
        position: int,
        *,
        end: int | None = None,
        allow_gaps: bool = False,
    ) -> None:
        """Begin at `position`, stop before `end`; with `allow_gaps` a gap is passed as an empty batch."""
        self._archive = archive
        self.topic = topic
        self.partition = partition
        self.position = position
        self._end = end
        self._allow_gaps = allow_gaps
        self._batches: Iterator[Batch] | None = None
        self._rest: Batch | None = None

    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        """Return the records that follow. Raises HandoverGapError at a gap, SegmentCorruptError."""
        batch = self._rest if self._rest is not None else self._following()
        self._rest = None
        if batch is None:
            return Batch.empty(self.topic, self.partition, self.position)
        if batch.nbytes > bytes_max and len(batch) > 1:
            rows = max(1, len(batch) * bytes_max // batch.nbytes)
            if rows < len(batch):
                cut = batch.offsets[rows]
                batch, self._rest = batch.slice(batch.base, cut), batch.slice(cut, batch.next)
        self.position = batch.next
        return batch

    def _following(self) -> Batch | None:
        if self._batches is None:
            self._batches = self._archive.read(
                self.topic, self.partition, self.position, end=self._end, allow_gaps=self._allow_gaps
            )
        batches, self._batches = self._batches, None
        batch = next(batches, None)
        if batch is not None:
            # Kept only on success: after an error or the end, the next fetch looks at the archive anew.
            self._batches = batches
        return batch

    def seek(self, offset: int) -> None:
        """Move the position."""
        self.position = offset
        self._batches = self._rest = None

    def end_offset(self) -> int:
        """Return where this source ends now: the archive's end or `end`, at least the position."""
        archived = self._archive.end(self.topic, self.partition)
        end = 0 if archived is None else archived
        return max(self.position, end if self._end is None else min(end, self._end))

    def close(self) -> None:
        """Drop what was read ahead."""
        self._batches = self._rest = None
