"""Where a task's agents stand when an epoch is collected: positions, read offsets, clocks, and what a restart must know of
records that `take` holds back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.engine.plan import DECODE
from headwater.merge.channel import END_OF_TIME, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from headwater.engine.inputs import Input
    from headwater.merge.channel import Channel
    from headwater.stream.frame import Rows, Work


@dataclass(frozen=True, slots=True)
class Held:
    """Inputs and channels as they stand, and by agent the work that is dispatched but not finished.

    Invariant: nothing at or after a position is reflected in what the epoch commits, everything before it is (I2, I3).
    """

    inputs: Sequence[Input]
    channels: Sequence[Channel]
    works: Mapping[str, Sequence[Work]]

    def positions(
        self, reads: Mapping[str, set[int]], resume: Mapping[str, Mapping[int, int]]
    ) -> dict[str, dict[str, int]]:
        """Return the next place of each reader in each channel of the inputs it reads.

        `resume` has, by reader, the places that it had finished before the task was taken up.
        """
        places = {DECODE: {at: channel.position for at, channel in enumerate(self.channels)}}
        for reader, wanted in reads.items():
            places[reader] = {at: c.position for at, c in enumerate(self.channels) if c.input in wanted}
        for reader, mine in places.items():
            for at, place in resume.get(reader, {}).items():
                mine[at] = max(mine.get(at, 0), place)
            for work in self.works.get(reader, ()):
                for index, place in enumerate(work.places):
                    at = work.channel_at(index)
                    mine[at] = min(mine[at], place)
        return {
            reader: {self.channels[at].name: place for at, place in mine.items()}
            for reader, mine in places.items()
        }

    def reads(self) -> dict[str, int]:
        """Return by input ("topic/partition") the offset to read from, so that all that isn't finished is seen again."""
        reads = {i.name: i.read_position() for i in self.inputs}
        for work in self._all():
            for index, offset in enumerate(work.offsets):
                name = self.inputs[work.input_at(index)].name
                reads[name] = min(reads[name], offset)
        return reads

    def clocks(self) -> dict[str, int]:
        """Return each channel's clock at the place it will be read from, so that effective times come out the same."""
        clocks = {c.name: c.clock_at_position() for c in self.channels}
        for work in self._all():
            for index, time in enumerate(work.times):
                name = self.channels[work.channel_at(index)].name
                clocks[name] = min(clocks[name], time)
        return {name: clock for name, clock in clocks.items() if clock != NEVER}

    def watermark_clocks(self) -> dict[int, int]:
        """Return, by channel, the watermark clock at the place it will be read from (see ChannelTime)."""
        found = {}
        for at, channel in enumerate(self.channels):
            found[at] = _clock_of(channel, channel.watermark_at_position())
        least: dict[int, int] = {}
        for work in self._all():
            for index, place in enumerate(work.places):
                at = work.channel_at(index)
                if place >= least.get(at, place + 1):
                    continue
                least[at] = place
                # Marks behind a held record come again; what they said before is in what the channel counts for.
                own = work.watermarks[index] if len(work.watermarks) else NEVER
                is_source = self.channels[at].watermark is not None
                found[at] = _clock_of(self.channels[at], own) if is_source else NEVER
        return found

    def marks(self, rows: Rows, *, is_kept: bool) -> dict[str, Any]:
        """Return what a restart must know of channels that have ended, and of records that come again.

        `rows` are the open epoch's; `is_kept`: watermarks are.
        """
        marks: dict[str, Any] = {}
        # Not while anything of a channel is to be read again: a channel that is restored as ended is read no further.
        # The mark that ends it follows what waits, so it is read again as well.
        held = {
            channel
            for work in self._all()
            for channel in ([work.channels] if isinstance(work.channels, int) else work.channels)
        }
        ended = {
            c.name: True
            for at, c in enumerate(self.channels)
            if c.done and c.sender is not None and not c.size and at not in held
        }
        if ended:
            marks["ended"] = ended
        cuts = {work.rows[0]: work.cut for work in self._all() if work.cut is not None}
        if cuts and len(self.channels) > 1:
            marks["held"] = [cuts[row] for row in sorted(cuts)]
        times = [
            (
                self.channels[work.channel_at(at)].name,
                work.places[at],
                rows.task_times[row],
                rows.task_watermarks[row] if is_kept else NEVER,
            )
            for work in self._all()
            for at, row in enumerate(work.rows)
            if is_kept or rows.task_times[row] != work.times[at]
        ]
        if times:
            marks["times"] = times
        return marks

    def _all(self) -> list[Work]:
        return [work for works in self.works.values() for work in works]


def _clock_of(channel: Channel, watermark: int) -> int:
    """Return the clock behind a watermark of a source partition; marks have none."""
    if channel.watermark is None or watermark in (NEVER, END_OF_TIME):
        return watermark
    return watermark + channel.watermark.lateness_ms
