"""Merge a task's channels into one order: by (effective time, topic, partition, offset), group by group.

Protocol
1. Channels are filled from sources; each says up to which effective time it is complete (`progress`), or that it is done.
2. `cut` takes the records that no channel still waited for can precede: the next group. Live, a channel that has caught
   up with its log isn't waited for (a group is what has arrived); in a replay in time order every channel is, until it
   is done, so the order is total.
3. A group's cut is the next place of each channel; `cut_at` takes exactly a given cut, which is how a replay in live
   order repeats what live did.
Invariant: a channel is never reordered.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from headwater.merge.channel import END_OF_TIME, NEVER, Channel, Piece, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

GROUP_RECORDS_MAX = 10_000
"""A group is at most this long, so that an epoch can end in time."""

SHARE_MIN = 64
"""So many records of each channel are looked at for a group at least."""


@dataclass(slots=True)
class Group:
    """One step of a task: records in merged order, as columns, and the cut that describes it.

    `channels` has the channel number of each record, or one number for all.
    """

    piece: Piece
    channels: Sequence[int] | int
    cut: dict[str, int]

    def __len__(self) -> int:
        return len(self.piece)


class Merge:
    """The channels of one task."""

    def __init__(self, channels: Iterable[Channel], *, records_max: int = GROUP_RECORDS_MAX) -> None:
        """Take channels; their order here is their number."""
        self.channels = list(channels)
        self.records_max = records_max

    def waiting(self) -> int:
        """Return how many records wait."""
        return sum(channel.size for channel in self.channels)

    def cut(self, is_awaited: Callable[[Channel], bool]) -> Group | None:
        """Return the next group, or None where a channel that `is_awaited` must be filled first."""
        if len(self.channels) == 1:
            channel = self.channels[0]
            return self._single(0, channel, min(channel.size, self.records_max)) if channel.size else None
        horizon: int | None = None
        for channel in self.channels:
            if not channel.done and is_awaited(channel):
                horizon = channel.progress if horizon is None else min(horizon, channel.progress)
        counts = [self._count_below(channel, horizon) for channel in self.channels]
        return self._take(counts)

    def cut_at(self, cut: Mapping[str, int]) -> Group | None:
        """Return the group that a recorded cut describes, or None where its records aren't all here yet."""
        counts = []
        for channel in self.channels:
            end = cut.get(channel.name, channel.position)
            counts.append(channel.count_below(end))
            if channel.covered < end and not channel.done:
                return None
        return self._take(counts, limit=False)

    def _count_below(self, channel: Channel, horizon: int | None) -> int:
        """Count records that may go: all, or those with effective time strictly below the horizon."""
        if horizon is None:
            return channel.size
        return 0 if horizon == NEVER else channel.count_before(horizon)

    def _take(self, counts: list[int], *, limit: bool = True) -> Group | None:
        busy = [at for at, count in enumerate(counts) if count]
        if not busy:
            return None
        if len(busy) == 1:
            at = busy[0]
            count = min(counts[at], self.records_max) if limit else counts[at]
            return self._single(at, self.channels[at], count)
        pieces, order = self._in_order(busy, counts, limit=limit)
        if limit and len(order) > self.records_max:
            order = order[: self.records_max]
        taken = dict.fromkeys(busy, 0)
        for _, at, index in order:
            taken[at] = index + 1
        for at, count in taken.items():
            _discard(self.channels[at], count)
        numbers = [at for _, at, _ in order]
        return Group(_gather(pieces, order), numbers, self._cuts())

    def _in_order(
        self, busy: list[int], counts: list[int], *, limit: bool
    ) -> tuple[dict[int, Piece], list[tuple[Any, int, int]]]:
        """Return the front of each channel, and a beginning of their merged order; all of it where there is no limit.

        Far more may wait than a group takes: of each channel only a share is looked at. What is left there may come before
        what follows the share's last record elsewhere, so the order ends below that.
        """
        sorts = {at: self.channels[at].sort for at in busy}
        share = max(SHARE_MIN, 2 * self.records_max // len(busy)) if limit else max(counts)
        if share < max(counts):
            pieces = {at: join(self.channels[at].front(min(counts[at], share))) for at in busy}
            order = _merged(pieces, sorts)
            bound: Any = (END_OF_TIME + 1,)
            for at in busy:
                if counts[at] > share:
                    bound = min(bound, (pieces[at].times[-1], *sorts[at]))
            below = bisect_left(order, bound, key=itemgetter(0))
            if below:
                return pieces, order[:below]
        pieces = {at: join(self.channels[at].front(counts[at])) for at in busy}
        return pieces, _merged(pieces, sorts)

    def _single(self, at: int, channel: Channel, count: int) -> Group:
        pieces = []
        while count:
            piece = channel.take(count)
            pieces.append(piece)
            count -= len(piece)
        return Group(join(pieces), at, self._cuts())

    def nothing(self) -> Group:
        """Return a group without records: marks alone have moved something."""
        return Group(Piece([], [], [], [], None, [], [], None), 0, self._cuts())

    def _cuts(self) -> dict[str, int]:
        return {channel.name: channel.position for channel in self.channels}


def _discard(channel: Channel, count: int) -> None:
    while count:
        count -= len(channel.take(count))


def _merged(pieces: dict[int, Piece], sorts: dict[int, tuple[str, int]]) -> list[tuple[Any, int, int]]:
    """Return (sort key, channel, index) of all records in merged order; each channel's own order stays."""
    entries: list[tuple[Any, int, int]] = []
    for at, piece in pieces.items():
        topic, partition = sorts[at]
        entries.extend(((time, topic, partition), at, index) for index, time in enumerate(piece.times))
    # Stable by construction: keys rise along each channel, and equal keys of one channel stay in its order.
    entries.sort(key=itemgetter(0))
    return entries


def _gather(pieces: dict[int, Piece], order: list[tuple[Any, int, int]]) -> Piece:
    with_headers = any(piece.headers is not None for piece in pieces.values())

    with_watermarks = all(len(piece.watermarks) for piece in pieces.values())

    def column(name: str) -> list[Any]:
        columns = {at: getattr(piece, name) for at, piece in pieces.items()}
        return [columns[at][index] for _, at, index in order]

    headers = None
    if with_headers:
        headers = [h[i] if (h := pieces[at].headers) is not None else () for _, at, i in order]
    causes = None
    if any(piece.causes is not None for piece in pieces.values()):
        # A source record that is merged with repartition records is its own cause; the task fills in its topic.
        def cause(number: int) -> list[int]:
            out = []
            for _, at, i in order:
                c = pieces[at].causes
                if c is not None:
                    out.append(c[number][i])
                else:
                    out.append(-1 if number < 2 else pieces[at].offsets[i] if number == 2 else 0)
            return out

        causes = (cause(0), cause(1), cause(2), cause(3))
    return Piece(
        column("times"), column("timestamps"), column("keys"), column("values"), headers, column("offsets"),
        column("places"), causes, None, column("watermarks") if with_watermarks else (),
        column("reached") if with_watermarks else (),
    )  # fmt: skip
