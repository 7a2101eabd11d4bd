"""A source yields one partition's batches in offset order from a position; live, replay and handover differ in nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

    from headwater.core.batch import Batch

FETCH_BYTES_MAX = 4 << 20


class Source(ABC):
    """One partition's records, whatever tier they lie in.

    Invariant: batches tile the offsets from the first position on; no gap, no overlap (I12).
    """

    topic: str
    partition: int
    position: int
    """The next offset that `fetch` will look at."""

    @abstractmethod
    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        """Return the records that follow, and move the position to the batch's `next`.

        An empty batch with next == base means there is nothing more now, or nothing at hand yet: `at_end` tells. Raises
        HandoverGapError, SegmentCorruptError.
        """

    @property
    def at_end(self) -> bool:
        """Whether the last fetch, where it gave nothing, had come to the end of what there is."""
        return True

    def ahead(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Future[Any] | None:
        """Begin, in a thread, what the next fetch would wait for a network for; None: the next fetch waits for nothing long.

        An event loop waits for what this returns before it fetches.
        """
        return None

    @abstractmethod
    def seek(self, offset: int) -> None:
        """Move the position."""

    @abstractmethod
    def end_offset(self) -> int:
        """Return one past the last offset there is now, in whatever tier."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""
