"""Intake: makes work of a group. Its records get rows in the open epoch, with their causes and times, and decoded values.

What comes again after a restart, because some agent had not finished it, gets the task times and watermarks it had then.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from headwater.core.errors import KeyRefusedError, ValueRefusedError
from headwater.engine.plan import DECODE
from headwater.engine.runner import DeadLetter
from headwater.merge.channel import NEVER
from headwater.stream.frame import Rows, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from headwater.engine.inputs import Input
    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import TaskState
    from headwater.engine.task_time import TaskTime
    from headwater.merge.channel import Channel, Piece
    from headwater.merge.merge import Group


class Intake:
    """The rows of one task's open epoch, and how records come into them."""

    def __init__(self, plan: RunPlan, partition: int) -> None:
        """Begin without inputs."""
        self.plan = plan
        self.partition = partition
        self.inputs: Sequence[Input] = ()
        self.channels: Sequence[Channel] = ()
        self.places: list[tuple[str, int]] = []
        self.rows = Rows()
        self.task_time = NEVER
        self._topic_numbers: list[int] = []
        self._single: tuple[int, int] | None = None
        # Of what comes again after a restart: up to where, by input, and the task times that other inputs had moved on.
        self._again: dict[int, int] = {}
        self._again_times: dict[tuple[str, int], tuple[int, int]] = {}

    def begin(self, inputs: Sequence[Input], channels: Sequence[Channel], state: TaskState | None) -> None:
        """Take records of these inputs, from where the last committed epoch ended."""
        self.inputs, self.channels = inputs, channels
        self.places = [an_input.tp for an_input in inputs]
        self._topic_numbers = [self.plan.number_of(an_input.tp.topic) for an_input in inputs]
        if len(channels) == 1 and channels[0].sender is None and not inputs[0].broadcast:
            self._single = (self._topic_numbers[0], self.partition)
            self.rows.single = self._single
        if state is None:
            return
        self.task_time = NEVER if state.time is None else state.time
        self._again = {
            an_input.number: seen
            for an_input in inputs
            if (seen := state.seen.get(an_input.name, 0)) > an_input.source.position
        }
        self._again_times = {
            (name, place): (time, watermark) for name, place, time, watermark in state.marks.get("times", ())
        }

    def begin_epoch(self) -> Rows:
        """Begin the next epoch's rows; return those of the last one."""
        old, self.rows = self.rows, Rows(self._single)
        return old

    def renumber(self, work: Work, old: Rows) -> Work:
        """Give records that `take` holds back rows in the new epoch."""
        first = len(self.rows)
        old.copy_to(self.rows, work.rows)
        fresh = work.slice(0)
        fresh.rows = range(first, first + len(work))
        return fresh

    def take(
        self, group: Group, time: TaskTime, seen: Mapping[int, int]
    ) -> tuple[Work, Work, list[DeadLetter]]:
        """Give the group's records rows, decode them, and set apart those that can't be decoded.

        Return all records, those that could be decoded, and what is said of the others; `seen` has, by channel, up to where
        that was said before.
        """
        piece, rows, first = group.piece, self.rows, len(self.rows)
        count = len(piece)
        # Effective times rise along the merge, except where a later group brings older records.
        times = piece.times
        if times[0] < self.task_time or not isinstance(group.channels, int):
            times = list(accumulate(times, max, initial=self.task_time))[1:]
        self.task_time = times[-1]
        # What agents are told of records that come again after a restart is what they were told then.
        watermarks = told = time.column(group)
        if self._again:
            times, told = self._times_again(piece, group, list(times), list(watermarks))
        rows.task_times.extend(times)
        if time.is_kept:
            rows.watermarks.extend(piece.watermarks)
            rows.task_watermarks.extend(told)
        rows.timestamps.extend(piece.timestamps)
        rows.keys.extend(piece.keys)
        self._causes(piece, group)
        channels = self.channels
        if isinstance(group.channels, int):
            inputs: int | list[int] = channels[group.channels].input
            values, refused = self._decode(self.inputs[inputs], piece)  # type: ignore[index]
        else:
            inputs = [channels[at].input for at in group.channels]
            values, refused = self._decode_mixed(inputs, piece)
        work = Work(
            range(first, first + count), values, piece.keys, piece.values, piece.timestamps, piece.offsets,
            piece.headers, inputs, self.places, group.channels, piece.places, piece.times, group.cut,
            piece.watermarks, watermarks,
        )  # fmt: skip
        if not refused:
            return work, work, []
        letters = []
        for at, error in refused.items():
            single = work.slice(at, at + 1)
            if single.places[0] >= seen.get(single.channel_at(0), 0) and self.plan.is_ours(
                single.headers_at(0)
            ):
                letters.append(DeadLetter(single, DECODE, error, 1))
        return work, work.pick([at for at in range(count) if at not in refused]), letters

    def take_mark(self, time: TaskTime) -> tuple[Work, Work, list[DeadLetter]]:
        """Give a mark that moved the watermark a row, as the cause of what that brings about; there is nothing to hand out."""
        rows, row = self.rows, len(self.rows)
        channel = self.channels[time.moved]
        an_input = self.inputs[channel.input]
        offset = max(0, an_input.source.position - 1) if channel.tail_at is None else channel.tail_at
        rows.task_times.extend([self.task_time])
        rows.timestamps.extend([self.task_time])
        rows.keys.extend([None])
        rows.cause_offsets.extend([offset])
        if rows.single is None:
            rows.cause_topics.extend([self._topic_numbers[channel.input]])
            rows.cause_partitions.extend([an_input.tp.partition])
            rows.cause_emits.extend([0])
        if time.is_kept:
            rows.watermarks.extend([NEVER])
            rows.task_watermarks.extend([time.watermark])
        nothing = Work(range(row, row), (), (), (), (), (), None, 0, self.places)
        return nothing, nothing, []

    def _times_again(
        self, piece: Piece, group: Group, times: list[int], watermarks: list[int]
    ) -> tuple[list[int], list[int]]:
        """Give records that were in hand before a restart the task times and watermarks they had then."""
        again = False
        for index, offset in enumerate(piece.offsets):
            at = group.channels if isinstance(group.channels, int) else group.channels[index]
            channel = self.channels[at]
            if offset < self._again.get(channel.input, 0):
                again = True
                then = self._again_times.get((channel.name, piece.places[index]))
                times[index] = piece.times[index] if then is None else then[0]
                if then is not None and watermarks:
                    watermarks[index] = then[1]
        if not again and all(i.read_position() >= self._again.get(i.number, 0) for i in self.inputs):
            self._again, self._again_times = {}, {}
        return times, watermarks

    def _causes(self, piece: Piece, group: Group) -> None:
        rows, count = self.rows, len(piece)
        if rows.single is not None:
            rows.cause_offsets.extend(piece.offsets)
            return
        if piece.causes is not None:
            topics, partitions = piece.causes[0], piece.causes[1]
            if not isinstance(group.channels, int):
                numbers = [self.channels[at].input for at in group.channels]
                topics = [
                    self._topic_numbers[numbers[i]] if topic < 0 else topic for i, topic in enumerate(topics)
                ]
                partitions = [
                    self.inputs[numbers[i]].tp.partition if p < 0 else p for i, p in enumerate(partitions)
                ]
            rows.cause_topics.extend(topics)
            rows.cause_partitions.extend(partitions)
            rows.cause_offsets.extend(piece.causes[2])
            rows.cause_emits.extend(piece.causes[3])
            return
        if isinstance(group.channels, int):
            number = self.channels[group.channels].input
            rows.cause_topics.extend([self._topic_numbers[number]] * count)
            rows.cause_partitions.extend([self.inputs[number].tp.partition] * count)
        else:
            numbers = [self.channels[at].input for at in group.channels]
            rows.cause_topics.extend([self._topic_numbers[number] for number in numbers])
            rows.cause_partitions.extend([self.inputs[number].tp.partition for number in numbers])
        rows.cause_offsets.extend(piece.offsets)
        rows.cause_emits.extend([0] * count)

    def _decode(self, an_input: Input, piece: Piece) -> tuple[Sequence[Any], dict[int, Exception]]:
        try:
            decoded = piece.decoded
            if decoded is None:
                decoded = an_input.codec.decode_all(piece.values)
            if an_input.check_key is not None:
                for key in piece.keys:
                    an_input.check_key(key)
        except (ValueRefusedError, KeyRefusedError):
            return self._decode_singly(
                [(an_input, key, value) for key, value in zip(piece.keys, piece.values, strict=True)]
            )
        return decoded, {}

    def decoded_anew(self, work: Work) -> Work:
        """Return records with their values decoded again: an agent that failed may have changed the ones it had."""
        fresh = work.slice(0)
        fresh.values = [
            None if data is None else self.inputs[work.input_at(at)].codec.decode(data)
            for at, data in enumerate(work.raw_values)
        ]
        return fresh

    def _decode_mixed(self, inputs: list[int], piece: Piece) -> tuple[Sequence[Any], dict[int, Exception]]:
        return self._decode_singly(
            [
                (self.inputs[at], key, value)
                for at, key, value in zip(inputs, piece.keys, piece.values, strict=True)
            ]
        )

    def _decode_singly(
        self, records: Sequence[tuple[Input, bytes | None, bytes | None]]
    ) -> tuple[list[Any], dict[int, Exception]]:
        decoded: list[Any] = []
        refused: dict[int, Exception] = {}
        for at, (an_input, key, value) in enumerate(records):
            try:
                decoded.append(None if value is None else an_input.codec.decode(value))
                if an_input.check_key is not None:
                    an_input.check_key(key)
            except (ValueRefusedError, KeyRefusedError) as error:
                if len(decoded) == at:
                    decoded.append(None)
                refused[at] = error
        return decoded, refused
