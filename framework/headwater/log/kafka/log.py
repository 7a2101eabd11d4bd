"""KafkaLog: the log on a Kafka cluster, by confluent-kafka; what is read is read committed, always.

Reading has two ways. `tail` gives what a thread has fetched ahead and never waits; that is how workers read. `read`
gives all that is there, and waits for it; that is how tables recover, archivers copy and commands look.
Writing has two ways as well: the epochs of a member, in its own producer's transactions with its group's metadata, and
everything else by two producers of this object: idempotent, or transactional where records must come together.

Threads: any number may use one object. After a fork, open the log anew.
"""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from threading import Event, Lock
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException

from headwater.core.batch import Batch, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.crash import point
from headwater.core.errors import LogCorruptError, LogInterruptedError, LogUnavailableError, MisuseError
from headwater.log.extent import check_append, check_transaction
from headwater.log.interface import (
    READ_BYTES_MAX,
    Finding,
    Log,
    Membership,
    Placed,
    Tail,
    TopicInfo,
    Transaction,
    Watch,
)
from headwater.log.kafka.columns import AHEAD_MS_MAX
from headwater.log.kafka.cursor import Cursors
from headwater.log.kafka.examine import examine
from headwater.log.kafka.fetch import Bell, Fetcher, KafkaTail
from headwater.log.kafka.groups import group_members, group_positions, named_positions, remove_group
from headwater.log.kafka.member import KafkaMembership
from headwater.log.kafka.reach import reach
from headwater.log.kafka.sender import Sender
from headwater.log.kafka.settings import check_settings, member_settings, producer_settings, reader_settings
from headwater.log.kafka.topics import Topics
from headwater.log.kafka.trouble import unavailable
from headwater.log.refusal import trimmed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from headwater.core.batch import Append
    from headwater.log.interface import Divert

OPEN_S = 30.0
OUTSIDE_TRANSACTION_S = 60.0
VISIBLE_S = 30.0
LOOK_S = 0.5
"""How often `version` differs at least: what nobody here fetches can't be heard."""

READERS = "headwater.readers"
"""A name that librdkafka asks for; nothing is ever committed under it."""

_ID = re.compile(r"[a-zA-Z0-9._-]+\Z")


class KafkaLog(Log):
    """A log on Kafka."""

    send_waits = False

    def __init__(self, url: str, settings: Mapping[str, str] | None = None) -> None:
        """Connect to the brokers of `kafka://HOST:PORT[,HOST:PORT]`.

        `settings` are librdkafka's own, by its names. Raises MisuseError, LogUnavailableError where no broker answers.
        """
        servers = url.partition("://")[2].strip("/")
        if not servers:
            raise MisuseError(f"the log {url!r} names no broker; write kafka://HOST:PORT[,HOST:PORT]")
        self.url = f"kafka://{servers}"
        self._servers = servers
        self._settings = check_settings(settings or {})
        reach(self.url, servers)
        try:
            self._topics = Topics(self.url, servers, self._settings, first_s=OPEN_S)
        except KafkaException as error:
            raise MisuseError(
                f"the Kafka settings can't be used: {error.args[0].str()}; check their names and values"
            ) from error
        self.log_id = self._topics.cluster_id
        self._readers = reader_settings(servers, self._settings, READERS)
        self._cursors = Cursors(self.url, {**self._readers, "fetch.wait.max.ms": "10"}, self._topics)
        self._lock = Lock()
        self._fetchers: list[Fetcher] = []
        self._bells: list[Bell] = []
        self._members: list[KafkaMembership] = []
        self._single: Sender | None = None
        self._together: Sender | None = None
        self._outside = f"headwater.outside.{uuid.uuid4().hex}"
        self._ahead: Sender | None = None
        self._sending = Lock()
        self._sending_ahead = Lock()
        self._heard = 0
        # Where this object's members' commits end: decided, though their markers may still be on the way.
        self._written: dict[TopicPartition, int] = {}
        self._moved: dict[str, set[TopicPartition]] = {}
        # How long a member's transaction may stay open.
        self._transaction_s = float(self._settings.get("transaction.timeout.ms", 10_000)) / 1000
        self._closed = False

    # Topics

    def topics(self) -> dict[str, TopicInfo]:
        """Return all topics by name."""
        self._check_open()
        return self._topics.all()

    def topic(self, name: str) -> TopicInfo | None:
        """Return a topic, or None."""
        self._check_open()
        return self._topics.one(name)

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> TopicInfo:
        """Make a topic, or return the one that is there."""
        self._check_open()
        return self._topics.create(name, partitions, config or {})

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records."""
        self._check_open()
        self._topics.delete(name)
        self._cursors.forget(name, deleted=True)

    def start_offset(self, topic: str, partition: int) -> int:
        """Return the first offset still in the log."""
        self._check_place(topic, partition)
        return self._topics.start(topic, partition)

    def end_offset(self, topic: str, partition: int, *, uncommitted: bool = False) -> int:
        """Return the last stable offset, or with `uncommitted` the high watermark."""
        self._check_place(topic, partition)
        return self._topics.end(topic, partition, committed=not uncommitted)

    def end_offsets(
        self, partitions: Iterable[TopicPartition], *, uncommitted: bool = False
    ) -> dict[TopicPartition, int]:
        """Return several end offsets, by one request."""
        places = [TopicPartition(*tp) for tp in partitions]
        for tp in places:
            self._check_place(*tp)
        return self._topics.ends(places, committed=not uncommitted)

    def offset_for_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return Kafka's own answer where that is a record's; else go on from there to the first record at or after.

        Kafka may name a transaction's marker, whose timestamp is when it was written. What lies before 1970 stands at 1 ms
        in Kafka, and what lies far ahead at an hour from when it was sent: what such records' own headers say, counts.
        """
        self._check_place(topic, partition)
        position: int | None = self._topics.start(topic, partition)
        if time_ms <= SYSTEM_CLOCK.now_ms() + AHEAD_MS_MAX:
            position = self._topics.at_time(topic, partition, max(1, time_ms))
        if position is None:
            return None
        end = self._topics.end(topic, partition)
        while position < end:
            batch = self.read(topic, partition, position, end=end)
            for offset, time in zip(batch.offsets, batch.timestamps, strict=True):
                if time >= time_ms:
                    return offset
            if batch.next <= position:
                break
            position = batch.next
        return None

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete records below an offset."""
        self._check_place(topic, partition)
        self._topics.trim(topic, partition, before)
        self._cursors.forget(topic)

    # Reading

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        end: int | None = None,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Batch:
        """Return records from `offset` on, before `end`; wait for those that are there."""
        self._check_place(topic, partition)
        tp = TopicPartition(topic, partition)
        with self._cursors.lend(tp, offset) as cursor:
            return cursor.read(tp, offset, end, bytes_max, least=self._written.get(tp, 0))

    def tail(self, topic: str, partition: int, position: int) -> Tail:
        """Return a tail of what this object's fetchers read ahead."""
        self._check_place(topic, partition)
        return KafkaTail(topic, partition, position, self._fetcher_for, self._explain)

    def _fetcher_for(self, tp: TopicPartition) -> Fetcher:
        """Return a fetcher that has no lane of this partition: two tails of one may stand at different offsets."""
        with self._lock:
            self._check_open()
            for fetcher in self._fetchers:
                if not fetcher.has(tp):
                    return fetcher
            fetcher = Fetcher(self._readers, self._ring)
            self._fetchers.append(fetcher)
            return fetcher

    def _explain(self, tp: TopicPartition, position: int, error: KafkaError) -> Exception | None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            start, end = self._topics.start(*tp), self._topics.end(*tp, committed=False)
            if position < start:
                return trimmed(*tp, position, start)
            if position > end:
                return LogCorruptError(
                    f"{tp} ends at offset {end} in {self.url}, but {position} was asked for: the topic was made anew, or brokers "
                    "lost records; discard the generation and replay, or restore the topic"
                )
            return None
        self._topics.refuse_missing(*tp)
        return unavailable(self.url, f"reading {tp}@{position}", KafkaException(error))

    # Writing

    def append(self, appends: Sequence[Append], *, atomic: bool = True) -> Placed:
        """Append records outside any group; readers see them when this returns."""
        for append in appends:
            check_append(append)
            self._check_place(append.topic, append.partition)
        filled = [append for append in appends if len(append)]
        count = sum(map(len, filled))
        placed = Placed({}, {})
        if count:
            with self._sending:
                self._check_open()
                placed = self._append_together(filled) if atomic else self._append_each(filled)
        for append in appends:
            tp = TopicPartition(append.topic, append.partition)
            if tp not in placed:
                placed[tp] = placed.ends[tp] = self.end_offset(*tp)
        self._ring()
        return placed

    def _append_each(self, appends: Sequence[Append]) -> Placed:
        self._single = self._opened(self._single, self._settings)
        return self._single.append(appends)

    def send(self, appends: Sequence[Append]) -> None:
        """Hand records to a producer of their own, which sends them at once and in order."""
        for append in appends:
            check_append(append)
            self._check_place(append.topic, append.partition)
        with self._sending_ahead:
            self._check_open()
            # Nobody waits for more: what comes while a request is under way makes the next batch.
            self._ahead = self._opened(self._ahead, {"linger.ms": "0", **self._settings})
            self._ahead.send([append for append in appends if len(append)])

    def settle(self, divert: Divert | None = None) -> list[Append]:
        """Wait for what was sent."""
        with self._sending_ahead:
            # One that was given up has said why, and holds nothing any more.
            if self._ahead is None or not self._ahead.is_open:
                return []
            return self._ahead.settle(divert)

    def _append_together(self, appends: Sequence[Append]) -> Placed:
        self._together = self._opened(self._together, self._settings, self._outside)
        placed = self._together.commit("", appends, {}, None, None)
        self._await_visible(placed.ends)
        return placed

    def _opened(self, sender: Sender | None, settings: Mapping[str, str], name: str | None = None) -> Sender:
        """Return the sender, or a new one where there is none that can be used."""
        if sender is not None and sender.is_open:
            return sender
        made = Sender(
            self.url,
            self._topics,
            producer_settings(self._servers, settings, name, OUTSIDE_TRANSACTION_S),
            name,
        )
        made.open(OPEN_S)
        return made

    def _await_visible(self, written: Mapping[TopicPartition, int]) -> None:
        """Wait until the transaction's markers are written: the commit is decided before readers see it."""
        deadline_s = SYSTEM_CLOCK.monotonic_s() + VISIBLE_S
        waiting, pause = dict(written), Event()
        while waiting:
            ends = self._topics.ends(list(waiting))
            waiting = {tp: end for tp, end in waiting.items() if ends[tp] < end}
            if not waiting:
                return
            if SYSTEM_CLOCK.monotonic_s() > deadline_s:
                places = ", ".join(map(str, sorted(waiting)))
                raise LogInterruptedError(
                    f"{self.url} committed a transaction that readers don't see yet in {places}: another transaction is open "
                    "before it; nothing needs to be done again"
                )
            pause.wait(0.002)

    def commit(self, transaction: Transaction) -> Placed:
        """Append and move positions, all or nothing: one transaction of the member's producer."""
        check_transaction(transaction)
        member = transaction.member
        if member is None:
            return self.append(transaction.appends)
        if not isinstance(member, KafkaMembership):
            raise MisuseError("the member of a transaction on Kafka is one that joined there")
        self._check_open()
        for append in transaction.appends:
            check_append(append)
            self._check_place(append.topic, append.partition)
        member.check(transaction.tasks)
        filled = [append for append in transaction.appends if len(append)]
        if not filled and not transaction.positions:
            return Placed({}, {})
        point("log.before_begin")
        placed = member.sender.commit(
            member.group,
            filled,
            transaction.positions,
            lambda: member.metadata(transaction.tasks),
            transaction.divert,
        )
        point("log.after_commit")
        self._written.update(placed.ends)
        self._moved.setdefault(member.group, set()).update(transaction.positions)
        self._heard += 1
        return placed

    # Groups

    def positions(
        self, group: str, of: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, int]:
        """Return a group's committed next offsets, after transactions that move them have ended."""
        self._check_open()
        if of is not None:
            settings = reader_settings(self._servers, self._settings, group)
            return named_positions(self.url, settings, group, of, transaction_s=self._transaction_s)
        tasks = self._topics.one(f"{group}.tasks")
        asked = (
            {TopicPartition(tasks.name, n) for n in range(tasks.partitions)} if tasks is not None else set()
        )
        return group_positions(
            self.url,
            self._topics.admin,
            group,
            asked | self._moved.get(group, set()),
            transaction_s=self._transaction_s,
        )

    def forget_group(self, group: str) -> None:
        """Remove a group's positions; nobody may be in it."""
        self._check_open()
        remove_group(self.url, self._topics.admin, group)
        self._moved.pop(group, None)

    def members(self, group: str) -> int:
        """Return how many members a group has."""
        self._check_open()
        return group_members(self.url, self._topics.admin, group)

    def join(
        self,
        group: str,
        tasks: int,
        *,
        lease_s: float = 10.0,
        name: str | None = None,
        process: int | None = None,
    ) -> Membership:
        """Join a group through its tasks topic."""
        self._check_open()
        if tasks < 1 or lease_s <= 0:
            raise MisuseError(
                f"can't join group {group!r} with {tasks} tasks and a lease of {lease_s} s; give both above 0"
            )
        topic = f"{group}.tasks"
        self._topics.create(topic, tasks, {})
        own = f"{group}.{name if name and _ID.match(name) else uuid.uuid4().hex}"
        settings = member_settings(self._servers, self._settings, group, lease_s, process)
        self._transaction_s = max(self._transaction_s, lease_s)
        # A transaction that outlives its member's session would hold back the positions of whoever takes over.
        sender = Sender(
            self.url, self._topics, producer_settings(self._servers, self._settings, own, lease_s), own
        )
        sender.open(OPEN_S)
        try:
            member = KafkaMembership(self.url, group, topic, tasks, settings, sender)
        except BaseException:
            sender.close()
            raise
        with self._lock:
            self._members.append(member)
        return member

    # News

    def version(self) -> int:
        """Return a number that differs after something was fetched or committed here, and every half second."""
        self._check_open()
        return (self._heard << 32) + int(SYSTEM_CLOCK.monotonic_s() / LOOK_S)

    def watch(self) -> Watch | None:
        """Return a watch that hears what is fetched."""
        bell = Bell(self._forget_bell)
        with self._lock:
            self._bells.append(bell)
        return bell

    def _forget_bell(self, bell: Bell) -> None:
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)

    def _ring(self) -> None:
        self._heard += 1
        with self._lock:
            bells = list(self._bells)
        for bell in bells:
            bell.ring()

    def examine(self) -> list[Finding]:
        """Look at the brokers' settings that our guarantees hang on, and for transactions that nobody ends."""
        self._check_open()
        return examine(self.url, self._topics)

    # Life

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailableError(f"the log {self.url} is closed; open it anew")

    def _check_place(self, topic: str, partition: int) -> None:
        self._check_open()
        self._topics.check(topic, partition)

    def close(self) -> None:
        """Leave groups, end threads, disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for member in self._members:
            member.leave()
        for fetcher in self._fetchers:
            fetcher.close()
        self._cursors.close()
        for sender in (self._single, self._together, self._ahead):
            if sender is not None:
                with suppress(KafkaException):
                    sender.close()
