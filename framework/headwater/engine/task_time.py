"""A task's watermark: the least over its channels, row by row, and which channels count.

Protocol, for one group
1. `settle` before its rows: channels without rows in it that are drained count for what their last mark said, repartition
   channels with rows for what the marks before their first row said; what is empty and never had a record, or was quiet
   for its `idle_after`, no longer counts. What a wall clock or an epoch decided is written into the group's cut.
2. `column` gives the task's watermark after each row; a source channel counts for what its own clock says at each.
A replay in live order is given the cuts, and decides nothing itself.
Invariant: the watermark never goes back, and a channel that always counted is never behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.core.clock import SYSTEM_CLOCK
from headwater.engine.positions import ChannelTime
from headwater.merge.channel import END_OF_TIME, NEVER

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headwater.engine.inputs import Input
    from headwater.engine.positions import TaskState
    from headwater.merge.channel import Channel
    from headwater.merge.merge import Group

REACHED = "reached:"
OUT = "out:"
IN = "in:"
"""Begin the names in a cut that say what a channel counts for, that it counts no longer, and that it does again."""


class TaskTime:
    """The watermark of one task. `is_kept` is false where nothing in the task's sub-topology asks for it."""

    def __init__(
        self, inputs: Sequence[Input], *, is_kept: bool, idles: bool = False, looped: Collection[str] = ()
    ) -> None:
        """Begin before all records.

        `idles`: a wall clock may decide (a live run, not a replay). `looped`: topics whose records come from this very
        task, so that to wait for them would be to wait for itself. What each task reads whole (a global table) is looked up
        and not waited for either.
        """
        self.inputs = inputs
        self.channels: list[Channel] = [channel for an_input in inputs for channel in an_input.channels]
        self.looped = {
            at
            for at, channel in enumerate(self.channels)
            if inputs[channel.input].broadcast or inputs[channel.input].tp.topic in looped
        }
        self.is_kept = is_kept
        self.idles = idles
        self.watermark = NEVER
        self.reached = [NEVER] * len(self.channels)
        self.ignored: set[int] = set()
        self.begun: set[int] = set()
        self.moved = 0
        """The channel whose mark moved the task last: the cause of what that brings about."""

    def begin(self, state: TaskState) -> None:
        """Take up where a committed epoch ended."""
        self.watermark = NEVER if state.watermark is None else state.watermark
        for at, channel in enumerate(self.channels):
            time = state.watermarks.get(channel.name)
            if time is not None:
                self.reached[at] = time.reached
                if time.ignored:
                    self.ignored.add(at)
                if time.begun:
                    self.begun.add(at)

    @property
    def is_idle(self) -> bool:
        """Whether nothing in this task counts: whoever it sends to needn't wait for it."""
        return len(self.ignored | self.looped) == len(self.channels)

    def has_news(self, *, sends: bool) -> bool:
        """Tell whether marks alone, or silence, move the task's watermark now (`sends`: or its being idle)."""
        if not self.is_kept:
            return False
        reached, ignored = self._settled({})
        if sends and (len(ignored | self.looped) == len(self.channels)) != self.is_idle:
            return True
        return self._least(reached, ignored) > self.watermark

    def is_over(self) -> bool:
        """Tell whether the watermark won't move any more, so that nothing more is closed by it."""
        if not self.is_kept:
            return True
        ended = all(c.done and not c.size for at, c in enumerate(self.channels) if at not in self.looped)
        return ended and not self.has_news(sends=True)

    def idle_in_s(self) -> float | None:
        """Return in how many seconds an input's silence will count, or None."""
        if not self.is_kept or not self.idles:
            return None
        now_s = SYSTEM_CLOCK.monotonic_s()
        waits = [
            i.caught_up_s + i.idle_after_s - now_s
            for i in self.inputs
            if i.idle_after_s is not None and i.caught_up and not self.ignored.issuperset(self._of(i))
        ]
        return max(0.001, min(waits)) if waits else None

    def settle(self, group: Group, recorded: Mapping[str, int] | None) -> None:
        """Settle what counts before a group's rows; the group's cut is told, or tells (`recorded`)."""
        if not self.is_kept:
            return
        if recorded is not None:
            self._repeat(recorded)
            group.cut.update(
                {name: at for name, at in recorded.items() if name.startswith((REACHED, OUT, IN))}
            )
        else:
            reached, ignored = self._settled(_first_rows(group))
            for at, channel in enumerate(self.channels):
                if reached[at] != self.reached[at]:
                    group.cut[REACHED + channel.name] = reached[at]
                    self.moved = at
                if (at in ignored) != (at in self.ignored):
                    group.cut[(OUT if at in ignored else IN) + channel.name] = 1
            self.reached, self.ignored = reached, ignored
        self.watermark = max(self.watermark, self._least(self.reached, self.ignored))

    def column(self, group: Group) -> Sequence[int]:
        """Return the task's watermark after each row of a group, and move it."""
        if not self.is_kept:
            return ()
        piece, count = group.piece, len(group)
        if isinstance(group.channels, int):
            at = group.channels
            self._begin(at)
            if self.channels[at].sender is not None or at in self.looped:
                return [self.watermark] * count
            others = self._least(self.reached, self.ignored | {at}, none=END_OF_TIME)
            before, column = self.watermark, piece.reached
            self.reached[at] = max(self.reached[at], column[-1])
            if others != END_OF_TIME or column[0] < before:
                column = [max(before, min(others, reached)) for reached in column]
            self.watermark = max(before, column[-1])
            return column
        return self._mixed(piece.reached, group.channels)

    def _mixed(self, column: Sequence[int], channels: Sequence[int]) -> list[int]:
        out = []
        reached, watermark = self.reached, self.watermark
        is_source = [c.sender is None and at not in self.looped for at, c in enumerate(self.channels)]
        least = self._least(reached, self.ignored)
        for at, here in zip(channels, column, strict=True):
            if at in self.ignored or at not in self.begun:
                self._begin(at)
                least = self._least(reached, self.ignored)
            was = reached[at]
            if is_source[at] and here > was:
                reached[at] = here
                if was == least:
                    least = self._least(reached, self.ignored)
            if least > watermark:
                watermark = least
            out.append(watermark)
        self.watermark = watermark
        return out

    def _begin(self, at: int) -> None:
        self.begun.add(at)
        self.ignored.discard(at)

    def _least(self, reached: Sequence[int], ignored: set[int], *, none: int | None = None) -> int:
        """Return the least of what counts; where nothing does, the greatest of all: what is silent holds nobody back."""
        waited = [(at, value) for at, value in enumerate(reached) if at not in self.looped]
        counted = [value for at, value in waited if at not in ignored]
        if counted:
            return min(counted)
        return max((value for _, value in waited), default=NEVER) if none is None else none

    def _settled(self, first_rows: Mapping[int, int]) -> tuple[list[int], set[int]]:
        """Return what channels count for, and which don't count, given what marks before first rows of a group said."""
        reached, ignored = list(self.reached), set(self.ignored)
        for at, channel in enumerate(self.channels):
            an_input = self.inputs[channel.input]
            if at in first_rows:
                if channel.sender is not None:
                    reached[at] = max(reached[at], first_rows[at])
                    ignored.discard(at)
                continue
            if channel.size:
                continue
            reached[at] = max(reached[at], channel.tail)
            if channel.sender is not None:
                if channel.is_idle:
                    ignored.add(at)
                else:
                    ignored.discard(at)
            elif channel.tail == END_OF_TIME:
                ignored.discard(at)
            elif (at not in self.begun and self._is_empty(an_input, channel)) or self._is_away(an_input):
                ignored.add(at)
        return reached, ignored

    def _is_empty(self, an_input: Input, channel: Channel) -> bool:
        """Tell whether an input without a record holds nobody back. What a replay itself sends on may come yet."""
        return channel.done or (an_input.caught_up and not an_input.is_shadow)

    def _is_away(self, an_input: Input) -> bool:
        return (
            self.idles
            and an_input.idle_after_s is not None
            and an_input.caught_up
            and SYSTEM_CLOCK.monotonic_s() - an_input.caught_up_s >= an_input.idle_after_s
        )

    def _repeat(self, recorded: Mapping[str, int]) -> None:
        for at, channel in enumerate(self.channels):
            if (reached := recorded.get(REACHED + channel.name)) is not None:
                self.reached[at], self.moved = max(self.reached[at], reached), at
            if OUT + channel.name in recorded:
                self.ignored.add(at)
            if IN + channel.name in recorded:
                self.ignored.discard(at)

    def _of(self, an_input: Input) -> set[int]:
        return {at for at, channel in enumerate(self.channels) if channel.input == an_input.number}

    def states(self, clocks: Mapping[int, int], reads: Mapping[str, int]) -> dict[str, ChannelTime]:
        """Return what a restart needs of each channel.

        `clocks` has, by channel, the clock where it will be read again, `reads` by input the offset of that.
        """
        found = {}
        for at, channel in enumerate(self.channels):
            clock = channel.watermark
            time = ChannelTime(
                clocks[at],
                NEVER if clock is None else clock.first,
                None if clock is None else clock.believed_from,
                self.reached[at],
                at in self.ignored,
                at in self.begun,
                channel.is_idle,
                [] if clock is None else clock.suspects_from(reads.get(channel.name, 0)),
            )
            if time != ChannelTime():
                found[channel.name] = time
        return found


def moves_watermarks(cut: Mapping[str, int]) -> bool:
    """Tell whether a recorded cut says anything of what channels count for."""
    return any(name.startswith((REACHED, OUT, IN)) for name in cut)


def _first_rows(group: Group) -> dict[int, int]:
    """Return by channel what the marks before its first row in the group said."""
    if not len(group):
        return {}
    reached = group.piece.reached
    if isinstance(group.channels, int):
        return {group.channels: reached[0]}
    found: dict[int, int] = {}
    for index, at in enumerate(group.channels):
        if at not in found:
            found[at] = reached[index]
    return found
