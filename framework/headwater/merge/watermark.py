"""Watermark clock of one source partition: how far its event time has come, as its own records say, one after the other.

The clock is the greatest event time so far. A record that is more than `max_jump` ahead of it moves nothing by itself, so
that one timestamp in year 9999 closes nothing; each that follows such a one and is as far ahead moves the clock by `max_jump`,
so that a clock that stood still catches up. Event times -1 and 0, which both stand for "none", don't move it. What the very first record says is
believed once a second one bears it out: if that one is more than `max_jump` older, the first was the odd one and counts
for nothing. The watermark is the clock minus `lateness`.
Invariant: both columns are a function of the partition's records in offset order, never of how they were cut (I11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.lazy import LazyColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

NEVER = -(1 << 63)
"""The watermark before anything is known; also before all effective times."""

END_OF_TIME = (1 << 63) - 1
"""The watermark after an END-OF-TIME mark: everything closes."""

MAX_JUMP_MS = 86_400_000
"""By how much one record raises a clock at most, where the topic says nothing."""

_NO_TIME = (-1, 0)


class WatermarkClock:
    """The clock of one partition. Times are ms since the epoch."""

    __slots__ = (
        "believed_from",
        "clock",
        "ended",
        "first",
        "is_far",
        "lateness_ms",
        "max_jump_ms",
        "suspects",
    )

    def __init__(self, lateness_ms: int = 0, max_jump_ms: int = MAX_JUMP_MS) -> None:
        """Begin before the first record."""
        self.lateness_ms = lateness_ms
        self.max_jump_ms = max_jump_ms
        self.clock = NEVER
        self.ended = False
        # What the first record said, and the place of the one that bore it out (None: it is still to come).
        self.first = NEVER
        self.believed_from: int | None = None
        # Records that were too far ahead: their places, and that of the next record, which may bear them out.
        self.suspects: list[tuple[int, int | None]] = []
        self.is_far = False

    def own(self) -> int:
        """Return the watermark before the next record."""
        if self.ended:
            return END_OF_TIME
        return NEVER if self.clock == NEVER else max(NEVER, self.clock - self.lateness_ms)

    def reached(self) -> int:
        """Return what the partition counts for in its task's watermark now."""
        return self.own() if self.ended or self.believed_from is not None else NEVER

    def restore(
        self,
        clock: int,
        first: int,
        believed_from: int | None,
        place: int,
        suspects: Sequence[tuple[int, int | None]] = (),
    ) -> None:
        """Go back to how things stood before the record at `place`, where the clock was `clock`."""
        self.ended = clock == END_OF_TIME
        is_second = believed_from is not None and place == believed_from
        self.clock = first if clock == NEVER and is_second else clock
        is_believed = believed_from is not None and place > believed_from
        self.first = first if is_believed or is_second else self.clock
        self.believed_from = believed_from if is_believed else None
        self.suspects = [
            (at, following if following is not None and following < place else None)
            for at, following in suspects
            if at < place
        ]
        self.is_far = bool(self.suspects) and self.suspects[-1][1] is None

    def suspects_from(self, place: int) -> list[tuple[int, int | None]]:
        """Return the suspects that a restart at a place needs to know."""
        return [(at, following) for at, following in self.suspects if following is None or following >= place]

    def advance(
        self, before: int, times: Sequence[int], timestamps: Sequence[int], places: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Take records; return the own watermark before each, and what the partition counts for after each.

        `times` are their effective times and `before` the one ahead of them: where no record jumps, they are the clock.
        """
        if self.ended:
            ends = [END_OF_TIME] * len(timestamps)
            return ends, ends
        if (
            self.believed_from is not None
            and not self.is_far
            and self.clock == before >= 0
            and times[-1] - before <= self.max_jump_ms
            and times[-1] < END_OF_TIME
        ):
            self.clock = times[-1]
            return _shifted(before, times, self.lateness_ms)
        return self._one_by_one(timestamps, places)

    def _one_by_one(
        self, timestamps: Sequence[int], places: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        own: list[int] = []
        reached: list[int] = []
        jump, lateness, clock = self.max_jump_ms, self.lateness_ms, self.clock
        believed = self.believed_from is not None
        for stamp, place in zip(timestamps, places, strict=True):
            # A record of the last millisecond there is isn't the END-OF-TIME: a restart would take its clock for that.
            time = min(stamp, END_OF_TIME - 1)
            watermark = NEVER if clock == NEVER else clock - lateness
            if time not in _NO_TIME:
                was_far = self._note(place, is_far=clock != NEVER and time > clock + jump)
                if clock == NEVER:
                    clock = self.first = time
                elif self.is_far:
                    if was_far:
                        clock = min(clock + jump, END_OF_TIME - 1)
                        believed, self.believed_from = True, self.believed_from if believed else place
                elif not believed:
                    believed, self.believed_from = True, place
                    if time < clock - jump:
                        watermark, clock = NEVER, time
                    elif time > clock:
                        clock = time
                elif time > clock:
                    clock = time
            own.append(watermark if watermark > NEVER else NEVER)
            reached.append(max(NEVER, clock - lateness) if believed else NEVER)
        self.clock = clock
        return own, reached

    def _note(self, place: int, *, is_far: bool) -> bool:
        """Note whether a record is too far ahead; return whether the one before it was."""
        was_far = self.is_far
        if was_far:
            self.suspects[-1] = (self.suspects[-1][0], place)
        if is_far:
            self.suspects.append((place, None))
        self.is_far = is_far
        return was_far


def _shifted(before: int, times: Sequence[int], lateness_ms: int) -> tuple[Sequence[int], Sequence[int]]:
    """Return the watermarks before and after each record, where the clock is its effective time."""
    if isinstance(times, LazyColumn):
        array = times.array
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if array.type != pa.int64():
            array = array.cast(pa.int64())
        reached = pc.subtract(array, lateness_ms) if lateness_ms else array
        first = pa.array([before - lateness_ms], pa.int64())
        return LazyColumn(pa.concat_arrays([first, reached[:-1]])), LazyColumn(reached)
    after = [time - lateness_ms for time in times] if lateness_ms else times
    return [before - lateness_ms, *after[:-1]], after
