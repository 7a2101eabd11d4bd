"""Channel: records waiting to be merged that keep one order: one source partition, or what one upstream task sent to one
partition of a repartition topic.

Effective time of a record of a source partition is the running maximum of event time there; of a repartition record it
is the sender's task time when it was sent (carried in its header), so it rises along the channel and doesn't depend on
where epochs or marks fell. Watermarks are kept apart from it (see `watermark`), and only where somebody asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from headwater.core.lazy import LazyColumn
from headwater.merge.watermark import END_OF_TIME, NEVER, WatermarkClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.core.batch import Batch, Headers

_TIMES, _PLACES = attrgetter("times"), attrgetter("places")

__all__ = ["END_OF_TIME", "NEVER", "Channel", "Piece", "join"]


class Piece:
    """Consecutive records of one channel, as columns; `places` rise by channel order, `offsets` are the topic's own.

    `watermarks` are the own watermarks before each record, `reached` what the channel counts for in the task's watermark
    after each; both are empty where nobody asks.
    """

    __slots__ = (
        "causes",
        "decoded",
        "headers",
        "keys",
        "offsets",
        "places",
        "reached",
        "times",
        "timestamps",
        "values",
        "watermarks",
    )

    def __init__(
        self,
        times: Sequence[int],
        timestamps: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers] | None,
        offsets: Sequence[int],
        places: Sequence[int],
        causes: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]] | None,
        decoded: Sequence[Any] | None = None,
        watermarks: Sequence[int] = (),
        reached: Sequence[int] = (),
    ) -> None:
        """Take equally long columns; `causes` are topic number, partition, offset, emit, or None for the record itself.

        `decoded` are the values as the topic's codec gives them, where they were decoded ahead.
        """
        self.decoded = decoded
        self.times = times
        self.timestamps = timestamps
        self.keys = keys
        self.values = values
        self.headers = headers
        self.offsets = offsets
        self.places = places
        self.causes = causes
        self.watermarks = watermarks
        self.reached = reached

    def __len__(self) -> int:
        return len(self.times)

    def part(self, start: int, end: int) -> Piece:
        """Return entries [start, end)."""
        return self if start == 0 and end == len(self) else self._cut(slice(start, end))

    def _cut(self, part: slice) -> Piece:
        return Piece(
            self.times[part], self.timestamps[part], self.keys[part], self.values[part],
            None if self.headers is None else self.headers[part], self.offsets[part], self.places[part],
            None if self.causes is None else tuple(column[part] for column in self.causes),  # type: ignore[arg-type]
            None if self.decoded is None else self.decoded[part], self.watermarks[part], self.reached[part],
        )  # fmt: skip


class Channel:
    """One ordered run of records of a task. `name` is "topic/partition", or "topic/partition#sender".

    `watermark` is the clock of a source partition (None: nobody asks, or a repartition channel, whose marks say how far
    its sender is). `tail` is what the channel counts for once all that was added is taken; `tail_at` is the offset of the
    mark that said so, and None where a record did. `is_idle`: nothing counts in the sender's task, whose inputs are empty or
    quiet.
    """

    __slots__ = (
        "clock",
        "covered",
        "done",
        "input",
        "is_idle",
        "name",
        "pieces",
        "progress",
        "sender",
        "size",
        "skip_below",
        "sort",
        "start",
        "tail",
        "tail_at",
        "watermark",
    )

    def __init__(self, name: str, input_number: int, sender: int | None, sort: tuple[str, int]) -> None:
        """Begin empty. `sort` orders records of equal effective time: topic, then partition (of origin)."""
        self.name = name
        self.input = input_number
        self.sender = sender
        self.sort = sort
        self.clock = NEVER
        self.progress = NEVER
        self.covered = 0
        self.skip_below = 0
        self.pieces: deque[Piece] = deque()
        self.size = 0
        self.start = 0
        self.done = False
        self.watermark: WatermarkClock | None = None
        self.tail = NEVER
        self.tail_at: int | None = None
        self.is_idle = False

    def add_batch(self, batch: Batch, decoded: Sequence[Any] | None = None) -> None:
        """Take a batch of a source partition; `decoded` are its values, where they were decoded already."""
        self.covered = batch.next
        if not len(batch):
            return
        timestamps, before = batch.lazy_timestamps, self.clock
        # Mostly time rises already, and then the running maximum is the column itself.
        times: Sequence[int] = timestamps
        if timestamps[0] < self.clock or not _rises(timestamps):
            times = list(accumulate(timestamps, max, initial=self.clock))[1:]
        self.clock = self.progress = times[-1]
        offsets = batch.offsets
        piece = Piece(
            times, timestamps, batch.lazy_keys, batch.values, batch.headers, offsets, offsets, None, decoded
        )
        if self.watermark is not None:
            piece.watermarks, piece.reached = self.watermark.advance(before, times, timestamps, offsets)
            self.tail, self.tail_at = self.watermark.reached(), None
        self._add(piece)

    def end_time(self, offset: int | None) -> None:
        """Take an END-OF-TIME mark of a source partition (`offset` None: the bounded end counts as one)."""
        if self.watermark is not None:
            self.watermark.ended = True
        self.tail, self.tail_at = END_OF_TIME, self.covered if offset is None else offset

    def add_mark(self, watermark: int, offset: int) -> None:
        """Take a mark of a repartition channel: the sender's watermark, after all records that it sent before."""
        if watermark > self.tail:
            self.tail, self.tail_at = watermark, offset

    def add_piece(self, piece: Piece) -> None:
        """Take records of a repartition topic that one upstream task sent."""
        self.covered = piece.places[-1] + 1
        self.clock = self.progress = max(self.progress, piece.times[-1])
        self._add(piece)

    @property
    def position(self) -> int:
        """The place of the first waiting record, or one past all that was read; holes before it are passed."""
        return self.pieces[0].places[self.start] if self.pieces else self.covered

    def clock_at_position(self) -> int:
        """Return the clock from which the waiting records get the same effective times again."""
        return self.pieces[0].times[self.start] if self.pieces else self.clock

    def watermark_at_position(self) -> int:
        """Return the watermark before the first waiting record: of a repartition channel what its marks had said."""
        if not self.pieces:
            return self.tail if self.watermark is None else self.watermark.own()
        piece = self.pieces[0]
        column = piece.reached if self.watermark is None else piece.watermarks
        return column[self.start] if len(column) else NEVER

    def _add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def take(self, count: int) -> Piece:
        """Remove and return records from the front: `count`, or what the first piece has, whichever is less."""
        whole, start = self.pieces[0], self.start
        end = min(start + count, len(whole))
        piece = whole.part(start, end)
        # A cursor, so that taking a long piece in groups copies each record once.
        if end == len(whole):
            self.pieces.popleft()
            self.start = 0
        else:
            self.start = end
        self.size -= end - start
        return piece

    def front(self, count: int) -> list[Piece]:
        """Return the first `count` waiting records, which stay."""
        out, start = [], self.start
        for piece in self.pieces:
            if count <= 0:
                break
            end = min(start + count, len(piece))
            out.append(piece.part(start, end))
            count -= end - start
            start = 0
        return out

    def count_before(self, time: int) -> int:
        """Return how many waiting records have an effective time below this one."""
        return self._count(time, _TIMES)

    def count_below(self, place: int) -> int:
        """Return how many waiting records have a place below this one."""
        return self._count(place, _PLACES)

    def _count(self, bound: int, column: Callable[[Piece], Sequence[int]]) -> int:
        count, start = 0, self.start
        for piece in self.pieces:
            # In the whole column: a part of it would be converted anew each time.
            end = bisect_left(column(piece), bound, start)
            count += end - start
            if end < len(piece):
                break
            start = 0
        return count

    def first_offset(self) -> int | None:
        """Return the topic offset of the first waiting record."""
        return self.pieces[0].offsets[self.start] if self.pieces else None

    def drop(self) -> None:
        """Forget all that waits."""
        self.pieces.clear()
        self.size = self.start = 0


def _rises(column: Sequence[int]) -> bool:
    if isinstance(column, LazyColumn):
        array = column.array
        return len(array) < 2 or bool(pc.all(pc.less_equal(array[:-1], array[1:])).as_py())
    return sorted(column) == list(column)


def join(pieces: Sequence[Piece]) -> Piece:
    """Return pieces of one channel as one."""
    if len(pieces) == 1:
        return pieces[0]

    def chain(columns: list[Any]) -> list[Any]:
        out: list[Any] = []
        for column in columns:
            out.extend(column)
        return out

    headers: list[Headers] | None = None
    if any(p.headers is not None for p in pieces):
        headers = chain([p.headers if p.headers is not None else [()] * len(p) for p in pieces])
    causes = None
    if pieces[0].causes is not None:
        causes = tuple(chain([p.causes[i] for p in pieces if p.causes is not None]) for i in range(4))
    return Piece(
        chain([p.times for p in pieces]), chain([p.timestamps for p in pieces]), chain([p.keys for p in pieces]),
        chain([p.values for p in pieces]), headers, chain([p.offsets for p in pieces]),
        chain([p.places for p in pieces]), causes,  # type: ignore[arg-type]
        None if any(p.decoded is None for p in pieces) else chain([p.decoded for p in pieces]),
        chain([p.watermarks for p in pieces]), chain([p.reached for p in pieces]),
    )  # fmt: skip
