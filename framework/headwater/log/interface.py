"""What every log promises: partitioned, durable, with transactions and groups. Held to by one contract-test suite.

All calls are synchronous and short (a read returns at most `bytes_max`); the engine keeps them off the event loop
where that pays. A log object is used by one thread at a time unless its class says more.

Protocol of a group
1. `join` makes a member; its lease runs from there and is renewed by `heartbeat`.
2. Each `heartbeat` says which tasks the member owns and which it should give up (`revoking`), so that tasks spread
   evenly; it gives them up by `release`, after committing or aborting what it has open. Free tasks are taken in
   `heartbeat`.
3. A member whose lease has run out may be removed by any other; its tasks become free, the generation rises.
4. `commit` with a membership checks, inside the same transaction, that the member is there and owns all its tasks.
Invariants: a task has at most one owner (I4); what a fenced member commits is refused whole (I18).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.core.batch import Append, Batch, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

READ_BYTES_MAX = 8 << 20
"""A read returns at most this much (or one record, if that is larger)."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as the log has it. `topic_id` differs when a topic is deleted and made again."""

    name: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is committed together: records, a group's positions, on behalf of a member's tasks.

    `positions` are next offsets by partition, kept under the member's group. Without a member nothing is fenced and
    `positions` must be empty. The order of `appends` to one partition is kept.
    """

    appends: Sequence[Append] = ()
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    member: Membership | None = None
    tasks: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """A member's part of a group at one moment. `revoking` is the part of `owned` it should release."""

    owned: frozenset[int]
    revoking: frozenset[int]
    generation: int
    members: int


class Membership(ABC):
    """One member of a group."""

    group: str
    member: str

    @abstractmethod
    def heartbeat(self) -> Assignment:
        """Renew the lease, take free tasks up to the fair share, and say what is owned.

        Raises FencedError where the lease ran out and the group went on without this member: it owns nothing, and
        may only join anew.
        """

    @abstractmethod
    def release(self, tasks: Collection[int]) -> None:
        """Give up tasks, so that others may take them. Raises FencedError as `heartbeat`."""

    @abstractmethod
    def leave(self) -> None:
        """Give up all tasks and the membership; a fenced member leaves in silence."""


class Watch(ABC):
    """Hears of commits by any process, for an event loop to wait on; it may also hear of nothing at all, or twice."""

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable after a commit can be seen, until `drain`."""

    @abstractmethod
    def drain(self) -> None:
        """Take what was heard; ask the log's `version` after it, never before. Doesn't block."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Idempotent."""


class Log(ABC):
    """A partitioned, durable log."""

    url: str
    log_id: str
    """Names this very log (a copy elsewhere or a new one in the same place has another)."""

    @abstractmethod
    def topics(self) -> dict[str, TopicInfo]:
        """Return all topics by name."""

    @abstractmethod
    def topic(self, name: str) -> TopicInfo | None:
        """Return a topic, or None."""

    @abstractmethod
    def create_topic(self, name: str, partitions: int) -> TopicInfo:
        """Make a topic, or return the one that is there. Raises PartitionCountError if it has another count."""

    @abstractmethod
    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records; no error where there is none."""

    @abstractmethod
    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset still in the log (the end offset where it is empty)."""

    @abstractmethod
    def end_offset(self, topic: str, partition: int) -> int:
        """Return one past the last committed offset."""

    @abstractmethod
    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the end offsets of several partitions, taken at one moment."""

    @abstractmethod
    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return the earliest offset in the log whose timestamp is >= `time_ms`, or None."""

    @abstractmethod
    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Batch:
        """Return committed records from `offset` on, before `end`: at most `bytes_max`, at least one if there is one.

        The batch's base is `offset`; an empty batch with next == offset means there is nothing yet. Raises
        OffsetTrimmedError below the start, UnknownNameError without such a topic, LogCorruptError.
        """

    @abstractmethod
    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records with offsets below `before`; the start offset becomes `before` (never above the end)."""

    @abstractmethod
    def commit(self, transaction: Transaction) -> dict[TopicPartition, int]:
        """Append and move positions, all or nothing, durably; return the base offset given in each partition.

        Raises FencedError where the member doesn't own one of `tasks`, UnknownNameError, LogUnavailableError.
        """

    @abstractmethod
    def positions(self, group: str) -> dict[TopicPartition, int]:
        """Return a group's committed next offsets."""

    @abstractmethod
    def forget_group(self, group: str) -> None:
        """Remove a group's positions (of a generation that was discarded)."""

    @abstractmethod
    def join(self, group: str, tasks: int, *, lease_s: float = 10.0) -> Membership:
        """Join a group whose tasks are numbered 0 to tasks - 1."""

    @abstractmethod
    def members(self, group: str) -> int:
        """Return how many members with a running lease a group has."""

    @abstractmethod
    def version(self) -> int:
        """Return a number that differs after any commit by any process; cheap enough to ask every 10 ms."""

    def watch(self) -> Watch | None:
        """Return a new watch, the caller's to close, or None where the log has none and its version must be polled.

        A committer that is killed between its commit and the telling is not heard: look now and then all the same.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Idempotent."""

    def append(self, appends: Sequence[Append]) -> dict[TopicPartition, int]:
        """Append records outside any group, all or nothing; return base offsets."""
        return self.commit(Transaction(appends))
