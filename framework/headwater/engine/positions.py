"""The `epochs` topic: what each task committed with each epoch, and how the last record of a task is found.

The authoritative positions are here, in the same transaction as everything else. To find a task's last record without
reading the topic from its start, each commit notes, as the group's position of the tasks topic's partition of that
number, where the epochs topic ended just before: the task's last record is the first one of its key from there on.
Brokers forget the positions of a group that was idle for some days; then the topic is read from its start, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import RecoveryError
from headwater.core.names import group_of, internal_topic
from headwater.engine.history import read_topic
from headwater.merge.channel import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headwater.archive.archive import Archive
    from headwater.core.batch import Batch
    from headwater.log.interface import Log, Placed
    from headwater.merge.channel import Channel


@dataclass(slots=True)
class ChannelTime:
    """What a restart needs of one channel for watermarks.

    `clock`: before the record that will be read first (of a repartition channel: what its marks had said there). `first`,
    `believed_from` and `suspects`: see WatermarkClock. `reached`: what the channel counts for in its task. `ignored`: it does not
    count. `begun`: a record of it was taken. `idle`: its sender says that nothing counts there.
    """

    clock: int = NEVER
    first: int = NEVER
    believed_from: int | None = None
    reached: int = NEVER
    ignored: bool = False
    begun: bool = False
    idle: bool = False
    suspects: list[tuple[int, int | None]] = field(default_factory=list)

    def restore(self, channel: Channel) -> None:
        """Set a channel back to this, once its places are."""
        if channel.watermark is not None:
            channel.watermark.restore(
                self.clock, self.first, self.believed_from, channel.covered, self.suspects
            )  # fmt: skip
            channel.tail = channel.watermark.reached()
        else:
            channel.tail = self.clock
        channel.is_idle = self.idle


@dataclass(slots=True)
class TaskState:
    """What one epochs record says of one task.

    `positions`: by agent, then channel name, the next place (offset, or emit sequence in a repartition channel);
    `read`: by "topic/partition" the offset to read from; `clocks`: effective time by channel; `changelog`: by table the
    next changelog offset; `emitted`: by "topic/partition" the next emit sequence of this task's channel there; `seen`: by
    "topic/partition" how far records were dispatched, whatever agents hold back; `watermark`: the task's; `watermarks`:
    by channel; `timers`: by event-time timer the number of the last multiple that was run.
    """

    task: int
    sub: int = 0
    partition: int = 0
    epoch: int = 0
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    groups: list[dict[str, int]] = field(default_factory=list)
    time: int | None = None
    clocks: dict[str, int] = field(default_factory=dict)
    changelog: dict[str, int] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    watermark: int | None = None
    watermarks: dict[str, ChannelTime] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the record's value."""
        return msgspec.json.encode(self)


_DECODER = msgspec.json.Decoder(TaskState)


class Positions:
    """Reads and writes one generation's task states."""

    def __init__(self, log: Log, app: str, generation: str, archive: Archive | None = None) -> None:
        """Name the topics; `create` makes them. The archive has what was trimmed of the epochs topic."""
        self.log = log
        self.archive = archive
        self.group = group_of(app, generation)
        self.epochs = internal_topic(app, generation, "epochs")
        self.tasks = internal_topic(app, generation, "tasks")
        self._hint = -1
        # What was read for tasks without positions: their last states, and up to where.
        self._folded: dict[int, TaskState] = {}
        self._folded_to = -1

    def create(self, tasks: int) -> None:
        """Make the topics where they are missing. Raises PartitionCountError for another number of tasks."""
        self.log.create_topic(self.epochs, 1)
        info = self.log.topic(self.tasks)
        if info is not None and info.partitions != tasks and not self.log.positions(self.group):
            # Left by a topology that came to nothing; the topic holds no records, only the group's positions.
            self.log.delete_topic(self.tasks)
        self.log.create_topic(self.tasks, tasks)

    def hint(self) -> int:
        """Return what a commit notes for its tasks: an offset past each one's last record, and not past the topic's end."""
        return self.log.end_offset(self.epochs, 0) if self._hint < 0 else self._hint

    def committed(self, placed: Placed) -> None:
        """Note where a commit's epochs records end: the next hint, without asking the log each time."""
        self._hint = max(self._hint, placed.ends.get(TopicPartition(self.epochs, 0), -1))

    def append(self, states: Iterable[TaskState], timestamp: int) -> Append:
        """Return the epochs records of one commit."""
        chosen = list(states)
        return Append(
            self.epochs,
            0,
            [timestamp] * len(chosen),
            [str(state.task).encode() for state in chosen],
            [state.encode() for state in chosen],
        )

    def load(self, tasks: Iterable[int]) -> dict[int, TaskState]:
        """Return the last state of each task that has one. Raises RecoveryError where positions and records disagree."""
        asked = list(tasks)
        places = [TopicPartition(self.tasks, task) for task in asked]
        positions = self.log.positions(self.group, places)
        # Asked for after the positions: a commit that moved them lies before it, seen by readers or not yet.
        end = self.log.end_offset(self.epochs, 0, uncommitted=True)
        # Tasks that are taken now may have records of other workers up to here.
        self._hint = max(self._hint, end)
        hints = {tp.partition: positions[tp] for tp in places if tp in positions}
        states = self._hinted(hints, end)
        if len(hints) < len(asked):
            self._fold(end)
            states.update({t: self._folded[t] for t in asked if t not in hints and t in self._folded})
        return states

    def _hinted(self, hints: Mapping[int, int], end: int) -> dict[int, TaskState]:
        states: dict[int, TaskState] = {}
        missing = set(hints)
        for start in sorted(set(hints.values())):
            if not any(hints[t] == start for t in missing):
                continue
            for batch in read_topic(self.log, self.archive, self.epochs, 0, start, end):
                for at, task, value in _records(batch):
                    if task in missing and at >= hints[task]:
                        states[task] = _DECODER.decode(value)
                        missing.discard(task)
                if all(hints[t] != start for t in missing):
                    break
        if missing:
            raise RecoveryError(
                f"group {self.group} has positions for tasks {sorted(missing)}, but {self.epochs} has no record of them; "
                "the log was altered: restore it, or discard the generation and replay"
            )
        return states

    def _fold(self, end: int) -> None:
        """Read on to find the last record of each task."""
        start = None if self._folded_to < 0 else self._folded_to
        for batch in read_topic(self.log, self.archive, self.epochs, 0, start, end):
            for _, task, value in _records(batch):
                self._folded[task] = _DECODER.decode(value)
            self._folded_to = batch.next


def _records(batch: Batch) -> Iterator[tuple[int, int, bytes]]:
    """Yield offset, task and value of the records that are a task's."""
    for at, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
        if key is not None and key.isdigit() and value is not None:
            yield at, int(key), value
