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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.core.batch import Append, Batch, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

Divert = Callable[[Append, int, str], Append | None]
"""What is asked for a record that a log refuses: its append, its place in it, the reason. See Transaction."""

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

    `divert` is asked where the log refuses one record for itself (its size, its timestamp): it gets the append, the
    record's index in it and the reason, and returns what is appended in its place (a dead letter), or None to refuse the
    whole. A log that refuses no record for itself never asks.
    """

    appends: Sequence[Append] = ()
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    member: Membership | None = None
    tasks: Collection[int] = ()
    divert: Divert | None = None


class Placed(dict[TopicPartition, int]):
    """Where a commit put its records: the first offset in each partition; `ends`: one past the last.

    Between the two others may have written: in a log whose transactions are written before they are committed.
    """

    __slots__ = ("ends",)

    def __init__(self, bases: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Take both, for the same partitions."""
        super().__init__(bases)
        self.ends = dict(ends)


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

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, from any thread, when a heartbeat would say something new; a log may never call it."""
        del changed


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a log that an operator may want to know; `advice` is empty where nothing is wrong."""

    check: str
    found: str
    advice: str = ""


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


class Tail:
    """Reads one partition as it grows, from a position; for one thread at a time.

    Unlike `read`, `fetch` never waits: it may give nothing though there is something, and then the log's version differs
    once it has come. `at_end` tells whether the last fetch, where it gave nothing, had come to the partition's end.
    """

    at_end = True

    def __init__(self, log: Log, topic: str, partition: int, position: int) -> None:
        """Begin at `position`."""
        self._log = log
        self.topic = topic
        self.partition = partition
        self.position = position

    def fetch(self, *, bytes_max: int = READ_BYTES_MAX) -> Batch:
        """Return the records that follow. Raises OffsetTrimmedError below the start, UnknownNameError, LogCorruptError."""
        batch = self._log.read(self.topic, self.partition, self.position, bytes_max=bytes_max)
        self.position = batch.next
        return batch

    def seek(self, offset: int) -> None:
        """Move the position."""
        self.position = offset

    def close(self) -> None:
        """Let go of what was read ahead. Idempotent."""


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
    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Make a topic, or return the one that is there. Raises PartitionCountError if it has another count.

        `config` are a broker's names for how the topic is kept (`retention.ms`, `cleanup.policy`…); logs without brokers
        keep everything until it is trimmed.
        """

    @abstractmethod
    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records; no error where there is none."""

    @abstractmethod
    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset still in the log (the end offset where it is empty)."""

    @abstractmethod
    def end_offset(self, topic: str, partition: int, *, uncommitted: bool = False) -> int:
        """Return one past the last committed offset, where no open transaction comes before it.

        With `uncommitted`, one past whatever was written, in open transactions too: what had been committed when this was
        asked lies before it, also where readers can't see it for a moment yet.
        """

    @abstractmethod
    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, uncommitted: bool = False
    ) -> dict[TopicPartition, int]:
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

        The batch's base is `offset`, its `next` is past offsets without records too; an empty batch with next == offset
        means there is nothing yet. With `end` the open transactions before it are waited for. Raises OffsetTrimmedError
        below the start, UnknownNameError without such a topic, LogCorruptError, LogInterruptedError.
        """

    def tail(self, topic: str, partition: int, position: int) -> Tail:
        """Return a new tail of a partition, the caller's to close."""
        return Tail(self, topic, partition, position)

    @abstractmethod
    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records with offsets below `before`; the start offset becomes `before` (never above the end)."""

    @abstractmethod
    def commit(self, transaction: Transaction) -> Placed:
        """Append and move positions, all or nothing, durably; return the base offset given in each partition.

        Raises FencedError where the member doesn't own one of `tasks`, UnknownNameError, LogUnavailableError.
        """

    @abstractmethod
    def positions(
        self, group: str, of: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return a group's committed next offsets: all, or those `of` these partitions that have one.

        Workers name what they ask for: that can be asked while a distant log's servers come and go.
        """

    @abstractmethod
    def forget_group(self, group: str) -> None:
        """Remove a group's positions (of a generation that was discarded)."""

    @abstractmethod
    def join(
        self,
        group: str,
        tasks: int,
        *,
        lease_s: float = 10.0,
        name: str | None = None,
        process: int | None = None,
    ) -> Membership:
        """Join a group whose tasks are numbered 0 to tasks - 1.

        `name` is the same at each start of a worker on the same state: what an earlier one of that name left open is
        settled at once. `process` numbers the processes of one state folder: it tells static members apart; who has none is none.
        """

    @abstractmethod
    def members(self, group: str) -> int:
        """Return how many members with a running lease a group has."""

    @abstractmethod
    def version(self) -> int:
        """Return a number that differs after any commit by any process; cheap enough to ask every 10 ms.

        It may differ for no reason, and where records are fetched ahead, it differs once a tail can give them.
        """

    def watch(self) -> Watch | None:
        """Return a new watch, the caller's to close, or None where the log has none and its version must be polled.

        A committer that is killed between its commit and the telling is not heard: look now and then all the same.
        """
        return None

    def examine(self) -> list[Finding]:
        """Look at the log as `headwater doctor` does: what it runs on, and what of it will bite."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections. Idempotent."""

    send_waits: bool = True
    """Whether `send` takes a disk's time, so that an event loop should have a thread call it."""

    def send(self, appends: Sequence[Append]) -> None:
        """Hand records over, outside any group: in the order of `appends` in each partition, behind all sent before.

        They may be on their way when this returns; `settle` waits for them and has the errors.
        """
        self.append(appends, atomic=False)

    def settle(self, divert: Divert | None = None) -> list[Append]:
        """Wait until all that was sent is there; return what `divert` gives for records that the log refuses for themselves.

        Raises ValueRefusedError where it gives nothing for one, LogInterruptedError where it isn't known of all that they are
        there: whoever sent does it again.
        """
        return []

    def append(self, appends: Sequence[Append], *, atomic: bool = True) -> Placed:
        """Append records outside any group, all or nothing; return base offsets. Readers see them when this returns.

        Without `atomic` a failure may leave some of them, which may cost less.
        """
        del atomic
        return self.commit(Transaction(appends))
