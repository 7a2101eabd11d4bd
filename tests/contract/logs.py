"""Renamed: a log on a cluster that others use too, seen by a test as if it were its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from headwater.core.batch import Append, Batch, TopicPartition
from headwater.core.errors import HeadwaterError
from headwater.log.interface import (
    READ_BYTES_MAX,
    Divert,
    Log,
    Membership,
    Placed,
    Tail,
    TopicInfo,
    Transaction,
)


class Renamed(Log):
    """Puts a prefix before names of topics and groups, and takes it out of what comes back, errors too.

    Appends go without a transaction, so that offsets have no holes; transactions are those with a member.
    """

    def __init__(self, log: Log, prefix: str) -> None:
        self.inner = log
        self.url = log.url
        self.log_id = log.log_id
        self.prefix = prefix

    @contextmanager
    def plain(self) -> Iterator[None]:
        try:
            yield
        except HeadwaterError as error:
            error.args = tuple(str(part).replace(self.prefix, "") for part in error.args)
            raise

    def back(self, info: TopicInfo) -> TopicInfo:
        return TopicInfo(info.name.removeprefix(self.prefix), info.topic_id, info.partitions)

    def there(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(self.prefix + tp[0], tp[1])

    def here(self, tp: TopicPartition) -> TopicPartition:
        return TopicPartition(tp.topic.removeprefix(self.prefix), tp.partition)

    def topics(self) -> dict[str, TopicInfo]:
        with self.plain():
            return {
                name.removeprefix(self.prefix): self.back(info)
                for name, info in self.inner.topics().items()
                if name.startswith(self.prefix) and not name.endswith((".tasks", "in"))
            }

    def topic(self, name: str) -> TopicInfo | None:
        with self.plain():
            found = self.inner.topic(self.prefix + name)
            return None if found is None else self.back(found)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        with self.plain():
            return self.back(self.inner.create_topic(self.prefix + name, partitions, config))

    def delete_topic(self, name: str) -> None:
        with self.plain():
            self.inner.delete_topic(self.prefix + name)

    def start_offset(self, topic: str, partition: int) -> int:
        with self.plain():
            return self.inner.start_offset(self.prefix + topic, partition)

    def end_offset(self, topic: str, partition: int, *, uncommitted: bool = False) -> int:
        with self.plain():
            return self.inner.end_offset(self.prefix + topic, partition, uncommitted=uncommitted)

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, uncommitted: bool = False
    ) -> dict[TopicPartition, int]:
        with self.plain():
            found = self.inner.end_offsets(map(self.there, partitions), uncommitted=uncommitted)
            return {self.here(tp): end for tp, end in found.items()}

    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        with self.plain():
            return self.inner.offset_for_time(self.prefix + topic, partition, time_ms)

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Batch:
        with self.plain():
            return self.inner.read(self.prefix + topic, partition, offset, end=end, bytes_max=bytes_max)

    def tail(self, topic: str, partition: int, position: int) -> Tail:
        with self.plain():
            return self.inner.tail(self.prefix + topic, partition, position)

    def trim(self, topic: str, partition: int, before: int) -> None:
        with self.plain():
            self.inner.trim(self.prefix + topic, partition, before)

    def _appends(self, appends: Sequence[Append]) -> list[Append]:
        return [
            Append(self.prefix + a.topic, a.partition, a.timestamps, a.keys, a.values, a.headers)
            for a in appends
        ]

    def _placed(self, placed: Placed) -> Placed:
        ends = {self.here(tp): end for tp, end in placed.ends.items()}
        return Placed({self.here(tp): base for tp, base in placed.items()}, ends)

    def append(self, appends: Sequence[Append], *, atomic: bool = True) -> Placed:
        with self.plain():
            return self._placed(self.inner.append(self._appends(appends), atomic=False))

    @property
    def send_waits(self) -> bool:  # type: ignore[override]
        return self.inner.send_waits

    def send(self, appends: Sequence[Append]) -> None:
        with self.plain():
            self.inner.send(self._appends(appends))

    def settle(self, divert: Divert | None = None) -> list[Append]:
        with self.plain():
            return self.inner.settle(divert)

    def commit(self, transaction: Transaction) -> Placed:
        with self.plain():
            for topic in {topic for topic, _ in transaction.positions}:
                # Brokers keep positions of topics that are there only.
                self.inner.create_topic(self.prefix + topic, 2)
            return self._placed(
                self.inner.commit(
                    Transaction(
                        self._appends(transaction.appends),
                        {self.there(tp): offset for tp, offset in transaction.positions.items()},
                        transaction.member,
                        transaction.tasks,
                        transaction.divert,
                    )
                )
            )

    def positions(
        self, group: str, of: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        with self.plain():
            named = None if of is None else [self.there(tp) for tp in of]
            found = self.inner.positions(self.prefix + group, named)
            return {self.here(tp): offset for tp, offset in found.items()}

    def forget_group(self, group: str) -> None:
        with self.plain():
            self.inner.forget_group(self.prefix + group)

    def join(
        self,
        group: str,
        tasks: int,
        *,
        lease_s: float = 10.0,
        name: str | None = None,
        process: int | None = None,
    ) -> Membership:
        with self.plain():
            return self.inner.join(self.prefix + group, tasks, lease_s=lease_s, name=name, process=process)

    def members(self, group: str) -> int:
        with self.plain():
            return self.inner.members(self.prefix + group)

    def version(self) -> int:
        with self.plain():
            return self.inner.version()

    def close(self) -> None:
        self.inner.close()

    def remove(self, topics: Collection[str]) -> None:
        """Delete what a test made, for the sake of the broker's memory."""
        for topic in topics:
            self.inner.delete_topic(self.prefix + topic)
