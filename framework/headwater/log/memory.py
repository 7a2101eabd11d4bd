"""MemoryLog: the log in this process's memory, shared by name, for tests; nothing outlives the process.

Threads: any number may use one object or several of one name; each call holds the one lock of that name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING

from headwater.core.batch import Batch, TopicPartition
from headwater.core.errors import LogUnavailableError
from headwater.core.names import check_topic
from headwater.log.extent import check_append, check_transaction, fitting, record_sizes
from headwater.log.group import GroupState, chosen
from headwater.log.interface import (
    READ_BYTES_MAX,
    Assignment,
    Log,
    Membership,
    Placed,
    TopicInfo,
    Transaction,
)
from headwater.log.lease import BootClock
from headwater.log.refusal import check_partitions, trimmed, unknown_partition, unknown_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from headwater.core.batch import Append, Headers
    from headwater.log.lease import LeaseClock


@dataclass(slots=True)
class _Partition:
    """Records from offset `start` on; the first entry of each column is the one at `start`."""

    start: int = 0
    timestamps: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    @property
    def next(self) -> int:
        return self.start + len(self.values)

    def append(self, append: Append) -> None:
        self.timestamps.extend(append.timestamps)
        self.keys.extend(append.keys)
        self.values.extend(append.values)
        self.headers.extend(
            [()] * len(append) if append.headers is None else [h or () for h in append.headers]
        )

    def trim(self, before: int) -> None:
        count = min(before, self.next) - self.start
        if count > 0:
            self.start += count
            for column in (self.timestamps, self.keys, self.values, self.headers):
                del column[:count]


@dataclass(slots=True)
class _Store:
    """What all logs of one name share."""

    log_id: str = field(default_factory=lambda: secrets.token_hex(8))
    lock: RLock = field(default_factory=RLock)
    topics: dict[str, tuple[TopicInfo, list[_Partition]]] = field(default_factory=dict)
    groups: dict[str, GroupState] = field(default_factory=dict)
    positions: dict[str, dict[TopicPartition, int]] = field(default_factory=dict)
    version: int = 0


_STORES: dict[str, _Store] = {}
_STORES_LOCK = RLock()


class MemoryMembership(Membership):
    """One member of a group of a MemoryLog."""

    def __init__(self, store: _Store, clock: LeaseClock, group: str, member: str) -> None:
        """Stand for a member that has joined."""
        self.group = group
        self.member = member
        self._store = store
        self._clock = clock

    def heartbeat(self) -> Assignment:
        """Renew the lease and take free tasks."""
        with self._store.lock:
            self._store.version += 1
            return self._store.groups[self.group].heartbeat(self.member, self._clock.monotonic_s())

    def release(self, tasks: Collection[int]) -> None:
        """Give up tasks."""
        with self._store.lock:
            self._store.groups[self.group].release(self.member, tasks)
            self._store.version += 1

    def leave(self) -> None:
        """Give up all tasks and the membership."""
        with self._store.lock:
            self._store.groups[self.group].leave(self.member)
            self._store.version += 1


class MemoryLog(Log):
    """A log in memory; logs of one name in one process are one log."""

    def __init__(self, name: str, *, clock: LeaseClock | None = None) -> None:
        """Open the log of that name, making it where there is none; leases run by `clock`."""
        self.url = f"memory://{name}"
        self._clock = clock or BootClock()
        with _STORES_LOCK:
            self._shared = _STORES.setdefault(name, _Store())
        self.log_id = self._shared.log_id
        self._closed = False

    @property
    def _store(self) -> _Store:
        if self._closed:
            raise LogUnavailableError(f"the log {self.url} is closed; open it anew")
        return self._shared

    def _partition(self, topic: str, partition: int) -> _Partition:
        found = self._store.topics.get(topic)
        if found is None:
            raise unknown_topic(self.url, topic, self._store.topics)
        if not 0 <= partition < len(found[1]):
            raise unknown_partition(self.url, topic, partition, len(found[1]))
        return found[1][partition]

    def topics(self) -> dict[str, TopicInfo]:
        """Return all topics by name."""
        with self._store.lock:
            return {name: info for name, (info, _) in sorted(self._store.topics.items())}

    def topic(self, name: str) -> TopicInfo | None:
        """Return a topic, or None."""
        with self._store.lock:
            found = self._store.topics.get(name)
            return None if found is None else found[0]

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Make a topic, or return the one that is there."""
        del config  # a broker's
        check_topic(name)
        with self._store.lock:
            found = self._store.topics.get(name)
            check_partitions(name, partitions, None if found is None else found[0].partitions)
            if found is None:
                info = TopicInfo(name, secrets.token_hex(8), partitions)
                found = self._store.topics[name] = (info, [_Partition() for _ in range(partitions)])
                self._store.version += 1
            return found[0]

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records."""
        with self._store.lock:
            if self._store.topics.pop(name, None) is not None:
                self._store.version += 1

    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset still in the log."""
        with self._store.lock:
            return self._partition(topic, partition).start

    def end_offset(self, topic: str, partition: int, *, uncommitted: bool = False) -> int:
        """Return one past the last offset."""
        del uncommitted  # no transaction is ever open here
        with self._store.lock:
            return self._partition(topic, partition).next

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, uncommitted: bool = False
    ) -> dict[TopicPartition, int]:
        """Return several end offsets, taken at one moment."""
        del uncommitted
        with self._store.lock:
            return {TopicPartition(*tp): self._partition(*tp).next for tp in partitions}

    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return the earliest offset whose timestamp is >= `time_ms`, or None."""
        with self._store.lock:
            part = self._partition(topic, partition)
            found = (part.start + at for at, time in enumerate(part.timestamps) if time >= time_ms)
            return next(found, None)

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Batch:
        """Return records from `offset` on, before `end`, at most `bytes_max`."""
        with self._store.lock:
            part = self._partition(topic, partition)
            if offset < part.start:
                raise trimmed(topic, partition, offset, part.start)
            low, high = offset - part.start, min(part.next, part.next if end is None else end) - part.start
            if low >= high:
                return Batch.empty(topic, partition, offset)
            # A look-ahead bounded in records keeps a read of a long partition from weighing all of it.
            high = min(high, low + bytes_max // 24 + 1)
            count, nbytes = fitting(
                record_sizes(part.keys[low:high], part.values[low:high], part.headers[low:high]), bytes_max
            )
            high = low + count
            headers = part.headers[low:high]
            return Batch(
                topic, partition, offset, offset + count, range(offset, offset + count), part.timestamps[low:high],
                part.keys[low:high], part.values[low:high], headers if any(headers) else None, nbytes=nbytes,
            )  # fmt: skip

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Drop records with offsets below `before`."""
        with self._store.lock:
            self._partition(topic, partition).trim(before)
            self._store.version += 1

    def commit(self, transaction: Transaction) -> Placed:
        """Append and move positions, all or nothing."""
        check_transaction(transaction)
        for append in transaction.appends:
            check_append(append)
        with self._store.lock:
            member = transaction.member
            if member is not None:
                group = self._store.groups.get(member.group) or GroupState(member.group, 0)
                group.check(member.member, transaction.tasks)
            parts = [self._partition(append.topic, append.partition) for append in transaction.appends]
            bases: dict[TopicPartition, int] = {}
            for append, part in zip(transaction.appends, parts, strict=True):
                bases.setdefault(TopicPartition(append.topic, append.partition), part.next)
                part.append(append)
            if member is not None:
                self._store.positions.setdefault(member.group, {}).update(transaction.positions)
            self._store.version += 1
            return Placed(bases, {tp: self._partition(*tp).next for tp in bases})

    def positions(
        self, group: str, of: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return a group's committed next offsets."""
        with self._store.lock:
            return chosen(self._store.positions.get(group, {}), of)

    def forget_group(self, group: str) -> None:
        """Remove a group's positions."""
        with self._store.lock:
            self._store.positions.pop(group, None)
            self._store.version += 1

    def join(
        self,
        group: str,
        tasks: int,
        *,
        lease_s: float = 10.0,
        name: str | None = None,
        process: int | None = None,
    ) -> Membership:
        """Join a group."""
        del name, process  # nothing is ever left open here
        with self._store.lock:
            state = self._store.groups.get(group) or GroupState(group, tasks)
            member = secrets.token_hex(8)
            state.join(member, tasks, lease_s, self._clock.monotonic_s())
            self._store.groups[group] = state
            self._store.version += 1
            return MemoryMembership(self._store, self._clock, group, member)

    def members(self, group: str) -> int:
        """Return how many members with a running lease a group has."""
        with self._store.lock:
            state = self._store.groups.get(group)
            return 0 if state is None else state.running(self._clock.monotonic_s())

    def version(self) -> int:
        """Return the number of changes so far."""
        return self._store.version

    def close(self) -> None:
        """Let go; the records stay for other logs of this name."""
        self._closed = True
