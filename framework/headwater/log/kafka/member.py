"""KafkaMembership: a member of a consumer group that owns partitions of the tasks topic; records are read elsewhere.

Protocol
1. A thread polls the consumer, so that rebalances are heard at once; `listen` tells the engine of them.
2. Tasks that are to be given up are named by `heartbeat` as `revoking`; the rebalance waits until `release`.
3. Lost tasks (the session ran out, the group went on) are given up at once: every later call raises FencedError.
4. A commit names the group's metadata as the thread took it last, and only then looks at what was lost: either the broker
   refuses an old generation, or this member does. One that is merely old is taken anew, and the commit tried again.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.clock import SYSTEM_CLOCK
from headwater.log.group import check_owned, fenced
from headwater.log.interface import Assignment, Membership
from headwater.log.kafka.trouble import replaced, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from headwater.log.kafka.sender import Sender

POLL_S = 0.05
RELEASE_S = 60.0
"""How long a rebalance waits for `release`; the engine gives an epoch 5 s to end, then aborts it."""

FIRST_S = 5.0
"""How long joining waits for the first assignment; brokers hold a group's first rebalance back for 3 s by default."""


class KafkaMembership(Membership):
    """One member of a group."""

    def __init__(
        self, url: str, group: str, topic: str, tasks: int, settings: Mapping[str, Any], sender: Sender
    ) -> None:
        """Join; `sender` is the member's producer, open, and closed by `leave`."""
        self.group = group
        self.sender = sender
        self.tasks = tasks
        self._url = url
        self._topic = topic
        self._incremental = "cooperative" in settings.get("partition.assignment.strategy", "cooperative")
        self._is_static = "group.instance.id" in settings
        self._consumer = Consumer(dict(settings))
        self._changed = Condition()
        self._owned: set[int] = set()
        self._announced: set[int] = set()
        self._revoking: set[int] = set()
        self._generation = 0
        self._is_lost = False
        self._is_leaving = False
        self._metadata: tuple[Any, str] = (None, "")
        self._is_asked = False
        self._trouble: KafkaError | None = None
        self._listener: Callable[[], None] | None = None
        self.member = ""
        try:
            self._consumer.subscribe(
                [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as error:
            raise unavailable(url, f"joining the group {group!r}", error) from error
        self._thread = Thread(target=self._run, name="kafka-member", daemon=True)
        self._thread.start()
        self._await_first()

    def _await_first(self) -> None:
        deadline_s = SYSTEM_CLOCK.monotonic_s() + FIRST_S
        with self._changed:
            while not self._generation and self._trouble is None:
                left_s = deadline_s - SYSTEM_CLOCK.monotonic_s()
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    # What the engine asks

    def heartbeat(self) -> Assignment:
        """Say what is owned; the session itself is kept by the client's own thread."""
        with self._changed:
            self._check()
            members = 1 if self._generation else 0
            self._announced = set(self._owned)
            return Assignment(frozenset(self._owned), frozenset(self._revoking), self._generation, members)

    def release(self, tasks: Collection[int]) -> None:
        """Let the rebalance that waits for these go on; tasks that nobody asks for come back at the next assignment."""
        with self._changed:
            self._check()
            for known in (self._owned, self._announced, self._revoking):
                known.difference_update(tasks)
            self._changed.notify_all()

    def leave(self) -> None:
        """Leave the group and close the producer. Idempotent."""
        with self._changed:
            if self._is_leaving:
                return
            self._is_leaving = True
            self._owned.clear()
            self._announced.clear()
            self._changed.notify_all()
        self._thread.join()
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()
        self.sender.close()

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when tasks come, go, or are asked for."""
        self._listener = changed

    def check(self, tasks: Collection[int]) -> None:
        """Raise FencedError unless all these tasks are owned, and were not lost meanwhile."""
        with self._changed:
            self._check()
            check_owned(self.group, self.member, self._announced, tasks)

    def metadata(self, tasks: Collection[int]) -> Any:
        """Return the group's metadata for a commit on behalf of tasks. Raises FencedError."""
        found, member = self._metadata
        # Asking librdkafka for it beside a poll hangs (confluent-kafka 2.16): the thread does, after its next poll.
        self._is_asked = True
        with self._changed:
            self._check()
            # An empty member id would pass the broker unfenced.
            if not member or member != self.member:
                raise fenced(self.group, self.member or "(none)")
            check_owned(self.group, member, self._announced, tasks)
        return found

    def _check(self) -> None:
        if self._is_lost or self._is_leaving:
            raise fenced(self.group, self.member)
        if self._trouble is not None and self._trouble.code() == KafkaError._FATAL and self._is_static:
            # What ends a static member's client; librdkafka says it in words alone.
            raise replaced(self.group, self._trouble.str())
        if self._trouble is not None:
            trouble = KafkaException(self._trouble)
            raise unavailable(self._url, f"being a member of {self.group!r}", trouble) from trouble

    # The thread's own

    def _refresh(self) -> None:
        self._is_asked = False
        self._metadata = (self._consumer.consumer_group_metadata(), self._consumer.memberid() or "")

    def _run(self) -> None:
        while not self._is_leaving:
            message = self._consumer.poll(POLL_S)
            if self._is_asked:
                self._refresh()
            error = None if message is None else message.error()
            if error is not None and (error.fatal() or error.code() in _HOPELESS):
                with self._changed:
                    self._trouble = error
                    self._changed.notify_all()
                self._tell()
                return

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        if self._is_leaving:
            return
        if self._incremental:
            # From 0: the group's positions of this topic are no offsets of it.
            places = [KafkaPartition(p.topic, p.partition, 0) for p in partitions]
            consumer.incremental_assign(places)
            if places:
                consumer.pause(places)
        self._refresh()
        with self._changed:
            self._owned.update(p.partition for p in partitions)
            self._generation += 1
            self.member = self.member or self._metadata[1]
            self._changed.notify_all()
        self._tell()

    def _on_revoke(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        del consumer  # gives the partitions up itself when this returns
        if self._is_leaving:
            return  # a client that is closing may refuse to tell its metadata
        asked = {p.partition for p in partitions}
        # The group's number has changed already; the epoch that is open is committed under the new one.
        self._refresh()
        deadline_s = SYSTEM_CLOCK.monotonic_s() + RELEASE_S
        with self._changed:
            self._revoking = asked & self._owned
        self._tell()
        with self._changed:
            while self._revoking and not self._is_leaving:
                left_s = deadline_s - SYSTEM_CLOCK.monotonic_s()
                if left_s <= 0:
                    self._is_lost = True
                    break
                self._changed.wait(left_s)
            self._owned -= asked
            self._announced -= asked
            self._revoking = set()
            self._generation += 1

    def _on_lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        del consumer, partitions
        with self._changed:
            self._is_lost = True
            for known in (self._owned, self._announced, self._revoking):
                known.clear()
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        listener = self._listener
        if listener is not None and not self._is_leaving:
            listener()


_HOPELESS = frozenset(
    {
        KafkaError._FATAL,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""What trying again doesn't mend."""
