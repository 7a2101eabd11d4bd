"""Topics of a cluster: made, described, measured and trimmed by the admin client."""

from __future__ import annotations

from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import LogInterruptedError, MisuseError
from headwater.core.names import check_topic
from headwater.log.interface import TopicInfo
from headwater.log.kafka.settings import admin_settings
from headwater.log.kafka.trouble import MOVING, UNKNOWN_PLACE, is_denied, kafka_error, unavailable
from headwater.log.refusal import check_partitions, unknown_partition, unknown_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CALL_S = 15.0
SETTLE_S = 20.0
REFRESH_S = 2.0
FIRST_LOOK_S = 2.0
LOOK_S = 0.5
FRESH_S = 2.0
"""How long what is known of topics is good for."""

_PAUSE = Event()

MADE_WITH = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "message.timestamp.type": "CreateTime",
    # A changelog blob, an epochs record or a dead letter may be larger than a broker's default of 1 MB.
    "max.message.bytes": "16777216",
}


class Topics:
    """What the cluster's topics are, and where their offsets begin and end. Any thread may ask."""

    def __init__(self, url: str, servers: str, given: Mapping[str, str], *, first_s: float) -> None:
        """Connect. Raises LogUnavailableError or LogInterruptedError where no broker answers within `first_s`."""
        self._url = url
        self._admin = AdminClient(admin_settings(servers, given))
        self._known: dict[str, tuple[TopicInfo, float]] = {}
        try:
            self._admin.list_topics(timeout=min(FIRST_LOOK_S, first_s))
        except KafkaException:
            _await_answer(url, admin_settings(servers, given), first_s)
        try:
            described = self._admin.describe_cluster(request_timeout=first_s).result(first_s + 1)
        except (KafkaException, TimeoutError) as error:
            raise unavailable(url, "the first call", error) from error
        self.cluster_id = str(described.cluster_id)

    def all(self) -> dict[str, TopicInfo]:
        """Return the topics, without the brokers' own."""
        try:
            names = [n for n in self._admin.list_topics(timeout=CALL_S).topics if not n.startswith("__")]
        except KafkaException as error:
            raise unavailable(self._url, "listing topics", error) from error
        found = dict(sorted(self._described(names).items()))
        now_s = SYSTEM_CLOCK.monotonic_s()
        self._known = {name: (info, now_s) for name, info in found.items()}
        return found

    def one(self, name: str) -> TopicInfo | None:
        """Return a topic, or None."""
        known = self._known.get(name)
        if known is not None and SYSTEM_CLOCK.monotonic_s() - known[1] < FRESH_S:
            return known[0]
        found = self._described([name]).get(name)
        if found is not None:
            self._known[name] = (found, SYSTEM_CLOCK.monotonic_s())
        else:
            self._known.pop(name, None)
        return found

    def _described(self, names: list[str]) -> dict[str, TopicInfo]:
        if not names:
            return {}
        futures = self._admin.describe_topics(TopicCollection(names), request_timeout=CALL_S)
        found = {}
        for name, future in futures.items():
            try:
                topic = future.result(CALL_S + 1)
            except (KafkaException, TimeoutError) as error:
                inner = kafka_error(error)
                if inner is not None and inner.code() in (
                    KafkaError.UNKNOWN_TOPIC_OR_PART,
                    KafkaError.TOPIC_EXCEPTION,
                    KafkaError._UNKNOWN_TOPIC,
                ):
                    continue
                raise unavailable(self._url, f"describing {name}", error) from error
            found[name] = TopicInfo(name, _topic_id(topic.topic_id), len(topic.partitions))
        return found

    def check(self, topic: str, partition: int) -> TopicInfo:
        """Return the topic. Raises UnknownNameError where it or the partition isn't there."""
        known = self._known.get(topic)
        info = self.one(topic) if known is None else known[0]
        if info is None:
            raise unknown_topic(self._url, topic, self.all())
        if not 0 <= partition < info.partitions:
            raise unknown_partition(self._url, topic, partition, info.partitions)
        return info

    def refuse_missing(self, topic: str, partition: int) -> None:
        """Ask the brokers anew, and raise UnknownNameError where the topic or partition isn't there any more."""
        self._known.pop(topic, None)
        self.check(topic, partition)

    def create(self, name: str, partitions: int, config: Mapping[str, str]) -> TopicInfo:
        """Make a topic, or return the one that is there."""
        check_topic(name)
        found = self.one(name)
        check_partitions(name, partitions, None if found is None else found.partitions)
        if found is not None:
            if config:
                self._check_config(name, config)
            return found
        new = NewTopic(name, num_partitions=partitions, config={**MADE_WITH, **config})
        try:
            self._admin.create_topics([new], operation_timeout=CALL_S)[name].result(CALL_S + 5)
        except (KafkaException, TimeoutError) as error:
            inner = kafka_error(error)
            if inner is not None and inner.code() in (KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION):
                raise MisuseError(
                    f"topic {name!r} can't be made as declared: {inner.str()}; mend app.topic(kafka=…)"
                ) from error
            if inner is None or inner.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise unavailable(self._url, f"making the topic {name}", error) from error
        deadline_s = SYSTEM_CLOCK.monotonic_s() + SETTLE_S
        while SYSTEM_CLOCK.monotonic_s() < deadline_s:
            found = self.one(name)
            if found is not None and self._has_leaders(name):
                check_partitions(name, partitions, found.partitions)
                return found
            _PAUSE.wait(0.02)
        raise LogInterruptedError(
            f"{self._url} made the topic {name}, but its partitions have no leaders yet; try again"
        )

    def _check_config(self, name: str, wanted: Mapping[str, str]) -> None:
        """Raise MisuseError where a topic that is there is kept otherwise than declared: it is never altered silently."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            found = self._admin.describe_configs([resource], request_timeout=CALL_S)[resource].result(
                CALL_S + 1
            )
        except (KafkaException, TimeoutError) as error:
            raise unavailable(self._url, f"asking how topic {name} is kept", error) from error
        for setting, value in wanted.items():
            there = found[setting].value if setting in found else None
            if there != value:
                raise MisuseError(
                    f"topic {name!r} has {setting}={there}, declared is {value}; alter the topic with kafka-configs.sh, or "
                    "declare what it has"
                )

    def _has_leaders(self, name: str) -> bool:
        try:
            topic = self._admin.list_topics(topic=name, timeout=CALL_S).topics[name]
        except KafkaException as error:
            raise unavailable(self._url, f"looking at {name}", error) from error
        return (
            topic.error is None
            and bool(topic.partitions)
            and all(p.leader >= 0 for p in topic.partitions.values())
        )

    def delete(self, name: str) -> None:
        """Remove a topic; return when no broker knows it."""
        if self.one(name) is None:
            return
        try:
            self._admin.delete_topics([name], operation_timeout=CALL_S)[name].result(CALL_S + 5)
        except (KafkaException, TimeoutError) as error:
            inner = kafka_error(error)
            if inner is None or inner.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise unavailable(self._url, f"deleting the topic {name}", error) from error
        self._known.pop(name, None)
        deadline_s = SYSTEM_CLOCK.monotonic_s() + SETTLE_S
        while name in self._admin.list_topics(timeout=CALL_S).topics:
            if SYSTEM_CLOCK.monotonic_s() > deadline_s:
                raise LogInterruptedError(f"{self._url} still lists {name}, which was deleted; try again")
            _PAUSE.wait(0.02)
        self._known.pop(name, None)

    def offsets(
        self, partitions: Iterable[TopicPartition], spec: Any, *, committed: bool = True
    ) -> dict[TopicPartition, int]:
        """Return offsets by one request: ends (committed: the last stable ones), starts, or the first at or after a time."""
        asked = [TopicPartition(*tp) for tp in partitions]
        if not asked:
            return {}
        for tp in asked:
            self.check(*tp)
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        deadline_s = SYSTEM_CLOCK.monotonic_s() + CALL_S
        while True:
            try:
                futures = self._admin.list_offsets(
                    {KafkaPartition(*tp): spec for tp in asked}, isolation_level=level, request_timeout=CALL_S
                )
                return {
                    TopicPartition(tp.topic, tp.partition): future.result(CALL_S + 1).offset
                    for tp, future in futures.items()
                }
            except (KafkaException, TimeoutError) as error:
                inner = kafka_error(error)
                # A leader that just moved, or a topic that was just made.
                if inner is not None and inner.code() in UNKNOWN_PLACE:
                    for tp in asked:
                        self.refuse_missing(*tp)
                if inner is None or inner.code() not in MOVING or SYSTEM_CLOCK.monotonic_s() > deadline_s:
                    raise unavailable(self._url, "asking for offsets", error) from error
                self._refresh()
                _PAUSE.wait(0.05)

    def _refresh(self) -> None:
        """Have the client learn who leads which partition: by itself it goes on by what it knows for 30 s."""
        with suppress(KafkaException):  # what asks next says what is wrong
            self._admin.list_topics(timeout=REFRESH_S)

    def ends(
        self, partitions: Iterable[TopicPartition], *, committed: bool = True
    ) -> dict[TopicPartition, int]:
        """Return several partitions' ends."""
        return self.offsets(partitions, OffsetSpec.latest(), committed=committed)

    def end(self, topic: str, partition: int, *, committed: bool = True) -> int:
        """Return one partition's end."""
        tp = TopicPartition(topic, partition)
        return self.offsets([tp], OffsetSpec.latest(), committed=committed)[tp]

    def start(self, topic: str, partition: int) -> int:
        """Return one partition's first offset."""
        tp = TopicPartition(topic, partition)
        return self.offsets([tp], OffsetSpec.earliest())[tp]

    def at_time(self, topic: str, partition: int, time_ms: int) -> int | None:
        """Return Kafka's own answer for a time."""
        tp = TopicPartition(topic, partition)
        found = self.offsets([tp], OffsetSpec.for_timestamp(max(0, time_ms)))[tp]
        return None if found < 0 else found

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete records below an offset."""
        self.check(topic, partition)
        start, end = self.start(topic, partition), self.end(topic, partition)
        if min(before, end) <= start:
            return
        place = KafkaPartition(topic, partition, min(before, end))
        try:
            for future in self._admin.delete_records([place], request_timeout=CALL_S).values():
                future.result(CALL_S + 1)
        except (KafkaException, TimeoutError) as error:
            raise unavailable(self._url, f"trimming {topic}/{partition}", error) from error

    @property
    def admin(self) -> AdminClient:
        """Return the client, for what concerns groups."""
        return self._admin


def _await_answer(url: str, settings: Mapping[str, str], within_s: float) -> None:
    """Return when a broker answers; say at once where it refuses who asks, which calls don't tell and clients alone hear."""
    heard: list[KafkaError] = []
    client = AdminClient({**settings, "error_cb": heard.append})
    deadline_s = SYSTEM_CLOCK.monotonic_s() + within_s
    while True:
        try:
            client.list_topics(timeout=LOOK_S)
            return
        except KafkaException as error:
            client.poll(0)
            denied = next((told for told in heard if is_denied(told)), None)
            heard.clear()
            if denied is not None:
                raise unavailable(url, "the first call", KafkaException(denied)) from error
            if SYSTEM_CLOCK.monotonic_s() > deadline_s:
                protocol = settings.get("security.protocol", "plaintext")
                raise unavailable(url, f"the first call, by security.protocol={protocol}", error) from error


def _topic_id(topic_id: Any) -> str:
    """Return a topic id as letters that a folder's name may hold."""
    return f"{topic_id.get_most_significant_bits() & (2**64 - 1):016x}{topic_id.get_least_significant_bits() & (2**64 - 1):016x}"
