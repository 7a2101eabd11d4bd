"""A partition's past and present as one: the archive to its end, then the log from exactly there.

Protocol
1. While the archive reaches beyond the position, read the archive.
2. At its end, read the log from exactly the position.
3. Where the log says it was trimmed above the position, look at the archive again: records are trimmed only once they
   are archived, so it has grown: back to 1. Looked at after the refusal, never before it, or a trim could slip between.
4. Where it has not grown, the offsets are in neither: a gap, which raises HandoverGapError or, if allowed, is passed.
Invariant: offsets leave here strictly rising; batches tile them (I12).
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from headwater.core.batch import Batch
from headwater.core.errors import HandoverGapError, OffsetTrimmedError
from headwater.source.interface import FETCH_BYTES_MAX, Source
from headwater.source.live import LiveSource
from headwater.source.replay import ReplaySource

if TYPE_CHECKING:
    from concurrent.futures import Future

    from headwater.archive.archive import Archive
    from headwater.log.interface import Log


class HandoverSource(Source):
    """Reads the archive and then the log, as if they were one."""

    def __init__(
        self,
        archive: Archive,
        log: Log,
        topic: str,
        partition: int,
        position: int,
        *,
        allow_gaps: bool = False,
    ) -> None:
        """Begin at `position`; with `allow_gaps` a gap is passed as an empty batch that covers it."""
        self._archive = archive
        self._log = log
        self.topic = topic
        self.partition = partition
        self.position = position
        self._allow_gaps = allow_gaps
        info = log.topic(topic)
        if info is not None:
            archive.bind({topic: info})
        self._replay = ReplaySource(archive, topic, partition, position, allow_gaps=allow_gaps)
        self._live = LiveSource(log, topic, partition, position)
        self._in_archive = True
        self._cold: Future[Batch | None] | None = None

    def ahead(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Future[Any] | None:
        """Begin to read a distant archive."""
        if not self._in_archive or not self._archive.is_remote:
            return None
        if self._cold is None:
            self._cold = self._archive.submit(lambda: self._from_archive(bytes_max))
        return None if self._cold.done() else self._cold

    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        """Return the records that follow, from whichever tier has them."""
        while True:
            if self._cold is not None:
                cold, self._cold = self._cold, None
                batch = cold.result()
            elif self._in_archive:
                batch = self._from_archive(bytes_max)
            else:
                batch = self._from_log(bytes_max)
            if batch is not None:
                self.position = batch.next
                return batch

    def _from_archive(self, bytes_max: int) -> Batch | None:
        batch = self._replay.fetch(bytes_max=bytes_max)
        if batch.next > batch.base:
            return batch
        # The plan it followed may be old: the archive grew meanwhile.
        archived = self._archive.end(self.topic, self.partition)
        if archived is None or archived <= self.position:
            self._in_archive = False
            self._live.seek(self.position)
        return None

    def _from_log(self, bytes_max: int) -> Batch | None:
        try:
            return self._live.fetch(bytes_max=bytes_max)
        except OffsetTrimmedError as trimmed:
            archived = self._archive.end(self.topic, self.partition)
            if archived is not None and archived > self.position:
                self._in_archive = True
                self._replay.seek(self.position)
                return None
            return self._pass_gap(trimmed.start, archived)

    def _pass_gap(self, end: int, archived: int | None) -> Batch:
        base = self.position
        if not self._allow_gaps:
            raise HandoverGapError(
                f"{self.topic}/{self.partition} has no offsets {base}..{end - 1}: the archive ends at {archived or 0}, the log "
                f"begins at {end}; start from offset {end}, or allow gaps (--allow-gaps)",
                base=base,
                end=end,
            ) from None
        self._live.seek(end)
        return Batch.empty(self.topic, self.partition, base, end)

    @property
    def at_end(self) -> bool:
        """Whether the last fetch, where it gave nothing, had come to the log's end."""
        return not self._in_archive and self._live.at_end

    def _forget_cold(self) -> None:
        """Wait for what a thread reads, and drop it: it moves what is moved here."""
        if self._cold is not None:
            cold, self._cold = self._cold, None
            if not cold.cancel():
                wait([cold])

    def seek(self, offset: int) -> None:
        """Move the position; the archive is asked first again."""
        self._forget_cold()
        self.position = offset
        self._replay.seek(offset)
        self._in_archive = True

    def end_offset(self) -> int:
        """Return the log's end (the archive never reaches beyond it)."""
        return max(self.position, self._live.end_offset())

    def close(self) -> None:
        """Drop what was read ahead."""
        self._forget_cold()
        self._replay.close()
        self._live.close()
