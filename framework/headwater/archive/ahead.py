"""Row groups read ahead in threads, handed on in order, bounded in bytes.

From a distant storage several at a time: a row group takes a round trip, so one at a time would leave the reader waiting for
most of the time. From this machine's own disk one at a time, decoded beside the loop that works on the one before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from headwater.archive.reader import SegmentReader
from headwater.core.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor, Future

AHEAD_BYTES_MAX = 32 << 20
"""What one partition's reader of a distant storage holds under way or decoded, beside the row group it waits for."""
ONE = 1
"""The same for this machine's own disk: one row group, whatever its size."""
READERS_AHEAD_MAX = 16
"""So many readers of one archive on this machine's disk read ahead; of more the memory would count, not the time."""
THREADS = 8

Step = tuple[SegmentReader, int] | Batch
"""What to read next: a row group of a segment, or a batch that needs no reading (a gap, an empty segment)."""


def decode(step: Step) -> Batch:
    """Read and decode one step."""
    if isinstance(step, Batch):
        return step
    reader, index = step
    return reader.batch(reader.footer.row_groups[index])


def _cost(step: Step) -> int:
    return 0 if isinstance(step, Batch) else step[0].footer.row_groups[step[1]].nbytes


def _decode_alone(step: Step) -> Batch:
    # A reader of its own: they are for one thread at a time, and the parsed footer is shared anyway.
    return decode(step if isinstance(step, Batch) else (step[0].again(), step[1]))


def read_ahead(steps: Iterator[Step], pool: Executor, *, bytes_max: int = AHEAD_BYTES_MAX) -> Iterator[Batch]:
    """Yield the batches of steps in their order. An error of a step, or of finding the next, comes at its place."""
    waiting: deque[tuple[Future[Batch], int]] = deque()
    total = 0
    failure: Exception | None = None
    more = True

    def begin() -> None:
        nonlocal total, failure, more
        while more and (not waiting or total < bytes_max):
            try:
                step = next(steps, None)
            except Exception as error:
                failure, step = error, None
            if step is None:
                more = False
                return
            cost = max(1, _cost(step))
            waiting.append((pool.submit(_decode_alone, step), cost))
            total += cost

    try:
        begin()
        while waiting:
            future, cost = waiting.popleft()
            total -= cost
            # Before this one is waited for or worked on: that is the time to decode the next.
            begin()
            yield future.result()
        if failure is not None:
            raise failure
    finally:
        for future, _ in waiting:
            future.cancel()
