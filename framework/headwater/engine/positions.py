"""The `epochs` topic: what each task committed with each epoch, and how the last record of a task is found.

The authoritative positions are here, in the same transaction as everything else. To find a task's last record without
reading the topic from its start, each commit notes, as the group's position of the tasks topic's partition of that
number, where the epochs topic ended just before: the task's last record is the first one of its key from there on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.batch import Append, TopicPartition
from headwater.core.errors import RecoveryError
from headwater.core.names import group_of, internal_topic
from headwater.merge.channel import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.log.interface import Log
    from headwater.merge.channel import Channel


@dataclass(slots=True)
class ChannelTime:
    """What a restart needs of one channel for watermarks.

    `clock`: before the record that will be read first (of a repartition channel: what its marks had said there). `first`
    and `believed_from`: see WatermarkClock. `reached`: what the channel counts for in its task. `ignored`: it does not
    count. `begun`: a record of it was taken. `idle`: its sender says that nothing counts there.
    """

    clock: int = NEVER
    first: int = NEVER
    believed_from: int | None = None
    reached: int = NEVER
    ignored: bool = False
    begun: bool = False
    idle: bool = False

    def restore(self, channel: Channel) -> None:
        """Set a channel back to this, once its places are."""
        if channel.watermark is not None:
            channel.watermark.restore(self.clock, self.first, self.believed_from, channel.covered)
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
    by channel.
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

    def encode(self) -> bytes:
        """Return the record's value."""
        return msgspec.json.encode(self)


_DECODER = msgspec.json.Decoder(TaskState)


class Positions:
    """Reads and writes one generation's task states."""

    def __init__(self, log: Log, app: str, generation: str) -> None:
        """Name the topics; `create` makes them."""
        self.log = log
        self.group = group_of(app, generation)
        self.epochs = internal_topic(app, generation, "epochs")
        self.tasks = internal_topic(app, generation, "tasks")

    def create(self, tasks: int) -> None:
        """Make the topics where they are missing. Raises PartitionCountError for another number of tasks."""
        self.log.create_topic(self.epochs, 1)
        info = self.log.topic(self.tasks)
        if info is not None and info.partitions != tasks and not self.log.positions(self.group):
            # Left by a topology that came to nothing; the topic holds no records, only the group's positions.
            self.log.delete_topic(self.tasks)
        self.log.create_topic(self.tasks, tasks)

    def hint(self) -> int:
        """Return what a commit notes for its tasks: the end of the epochs topic now."""
        return self.log.end_offset(self.epochs, 0)

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
        positions = self.log.positions(self.group)
        hints = {t: positions[tp] for t in tasks if (tp := TopicPartition(self.tasks, t)) in positions}
        states: dict[int, TaskState] = {}
        missing = set(hints)
        for start in sorted(set(hints.values())):
            if not any(hints[t] == start for t in missing):
                continue
            offset = start
            while missing and (batch := self.log.read(self.epochs, 0, offset)).next > offset:
                for at, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
                    task = int(key) if key is not None and key.isdigit() else -1
                    if task in missing and at >= hints[task] and value is not None:
                        states[task] = _DECODER.decode(value)
                        missing.discard(task)
                offset = batch.next
                if all(hints[t] != start for t in missing):
                    break
        if missing:
            raise RecoveryError(
                f"group {self.group} has positions for tasks {sorted(missing)}, but {self.epochs} has no record of them; "
                "the log was altered: restore it, or discard the generation and replay"
            )
        return states
