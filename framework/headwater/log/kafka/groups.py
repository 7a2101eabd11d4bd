"""Consumer groups as the brokers keep them: positions, members, removal."""

from __future__ import annotations

import logging
from threading import Event
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import GenerationError
from headwater.log.kafka.trouble import kafka_error, unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from confluent_kafka.admin import AdminClient

log_ = logging.getLogger(__name__)

CALL_S = 15.0
BROKER_DELAY_S = 20.0
"""Brokers look for transactions that have timed out every 10 s, unless they are set otherwise."""

NAMED_CALL_S = 2.0
NOBODYS = (1 << 31) - 1
"""A partition that no topic has: a coordinator answers that it has no position."""

_PAUSE_S = 0.05
_GONE = frozenset({KafkaError.GROUP_ID_NOT_FOUND})
_UNANSWERED = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError._WAIT_COORD,
        # While a coordinator moves or starts again; these are answered at once.
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


def group_positions(
    url: str, admin: AdminClient, group: str, asked: Collection[TopicPartition] = (), *, transaction_s: float
) -> dict[TopicPartition, int]:
    """Return a group's positions once no open transaction moves them (`require_stable`, KIP-447).

    Brokers name all partitions that have a position; one that is about to get its first must be `asked` for by name.
    `transaction_s` is how long a member's transaction may stay open. A broker that was killed may hold positions for unstable
    for ever whose transaction has ended long since (seen with 4.3): after twice that time and its own delay they are left out,
    as if they had never been given. By then whatever was open when they were first asked for is committed or aborted.
    """
    what = f"the positions of group {group!r}"
    request = ConsumerGroupTopicPartitions(group)
    try:
        if asked:
            known, moving = _ask(admin, request, stable=False)
            named = [KafkaPartition(*tp) for tp in sorted({*asked, *known, *moving})]
            request = ConsumerGroupTopicPartitions(group, named)
        return _settled(url, admin, request, 2 * transaction_s + BROKER_DELAY_S)
    except (KafkaException, TimeoutError) as error:
        raise unavailable(url, what, error) from error


def named_positions(
    url: str,
    settings: Mapping[str, Any],
    group: str,
    asked: Collection[TopicPartition],
    *,
    transaction_s: float,
) -> dict[TopicPartition, int]:
    """Return what `group_positions` does, of these partitions alone, by a consumer that joins nothing (`settings` are its own).

    For workers: librdkafka ends the process where an admin request finds that its connection to the coordinator has just gone
    (2.16, its issue 4605), which is when a broker starts again. A consumer says of what is unstable, and of a coordinator that
    isn't there, only that time is out; they are told apart by asking for a partition that nobody has.
    """
    what = f"the positions of group {group!r}"
    places = [KafkaPartition(*tp) for tp in sorted(asked)]
    if not places:
        return {}
    nobodys = KafkaPartition(places[0].topic, NOBODYS)
    patience_s = 2 * transaction_s + BROKER_DELAY_S
    moving_until_s: float | None = None
    consumer, pause = Consumer(dict(settings)), Event()
    try:
        answered_s = SYSTEM_CLOCK.monotonic_s()
        while True:
            asked_s = SYSTEM_CLOCK.monotonic_s()
            found = _committed(consumer, places)
            if found is not None:
                return found
            if _committed(consumer, [nobodys]) is not None:
                answered_s = SYSTEM_CLOCK.monotonic_s()
                if moving_until_s is None:
                    moving_until_s = asked_s + patience_s
                if answered_s >= moving_until_s:
                    break
            elif SYSTEM_CLOCK.monotonic_s() > answered_s + CALL_S:
                raise unavailable(url, what, KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            pause.wait(_PAUSE_S)
        alone = {place: _committed(consumer, [place]) for place in places}
    except KafkaException as error:
        raise unavailable(url, what, error) from error
    finally:
        consumer.close()
    _warn(
        url,
        group,
        patience_s,
        [TopicPartition(p.topic, p.partition) for p, got in alone.items() if got is None],
    )
    return {tp: offset for got in alone.values() if got is not None for tp, offset in got.items()}


def _committed(consumer: Consumer, places: list[KafkaPartition]) -> dict[TopicPartition, int] | None:
    """Return the positions of those that have one, or None where that isn't answered. Raises KafkaException."""
    found: dict[TopicPartition, int] = {}
    try:
        for place in consumer.committed(places, NAMED_CALL_S):
            if place.error is not None:
                raise KafkaException(place.error)
            if place.offset >= 0:
                found[TopicPartition(place.topic, place.partition)] = place.offset
    except KafkaException as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _UNANSWERED:
            return None
        raise
    return found


def _warn(url: str, group: str, patience_s: float, moving: Collection[TopicPartition]) -> None:
    log_.warning(
        "%s says for %.0f s that a transaction is about to move the positions of group %r in %s, longer than any may stay open; the "
        "records of epochs are read instead",
        url,
        patience_s,
        group,
        ", ".join(map(str, moving)),
    )


def _settled(
    url: str, admin: AdminClient, request: ConsumerGroupTopicPartitions, patience_s: float
) -> dict[TopicPartition, int]:
    """Return positions that nobody moves. Raises KafkaException, TimeoutError."""
    patient_until_s: float | None = None
    pause = Event()
    while True:
        asked_s = SYSTEM_CLOCK.monotonic_s()
        is_patient = patient_until_s is None or asked_s < patient_until_s
        try:
            found, moving = _ask(admin, request, stable=True)
        except KafkaException as error:
            # Where it was heard before that they are unstable, a call that isn't answered is asked again; then no more.
            passing = {KafkaError.UNSTABLE_OFFSET_COMMIT}
            if patient_until_s is not None:
                passing.add(KafkaError._TIMED_OUT)
            inner = kafka_error(error)
            if not is_patient or inner is None or inner.code() not in passing:
                raise
        else:
            if not moving:
                return found
            if not is_patient:
                _warn(url, request.group_id, patience_s, moving)
                return found
        if patient_until_s is None:
            patient_until_s = asked_s + patience_s
        pause.wait(_PAUSE_S)


def _ask(
    admin: AdminClient, request: ConsumerGroupTopicPartitions, *, stable: bool
) -> tuple[dict[TopicPartition, int], list[TopicPartition]]:
    """Return positions, and (where they must be `stable`) the partitions whose position a transaction is about to move.

    Raises KafkaException, TimeoutError.
    """
    found: dict[TopicPartition, int] = {}
    moving: list[TopicPartition] = []
    try:
        future = admin.list_consumer_group_offsets([request], require_stable=stable, request_timeout=CALL_S)
        places = future[request.group_id].result(CALL_S + 1).topic_partitions or []
    except KafkaException as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _GONE:
            return found, moving
        raise
    for place in places:
        tp = TopicPartition(place.topic, place.partition)
        if place.error is None:
            if place.offset >= 0:
                found[tp] = place.offset
        elif place.error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
            moving.append(tp)
        else:
            raise KafkaException(place.error)
    return found, moving


def group_members(url: str, admin: AdminClient, group: str) -> int:
    """Return how many members a group has; those that died count until their session runs out."""
    try:
        found = admin.describe_consumer_groups([group], request_timeout=CALL_S)[group].result(CALL_S + 1)
    except (KafkaException, TimeoutError) as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _GONE:
            return 0
        raise unavailable(url, f"the members of group {group!r}", error) from error
    return len(found.members)


def remove_group(url: str, admin: AdminClient, group: str) -> None:
    """Remove a group with its positions. Raises GenerationError while it has members."""
    try:
        admin.delete_consumer_groups([group], request_timeout=CALL_S)[group].result(CALL_S + 1)
    except (KafkaException, TimeoutError) as error:
        inner = kafka_error(error)
        if inner is not None and inner.code() in _GONE:
            return
        if inner is not None and inner.code() == KafkaError.NON_EMPTY_GROUP:
            raise GenerationError(
                f"group {group!r} still has members; stop its workers, or wait until their sessions have run out"
            ) from error
        raise unavailable(url, f"removing the group {group!r}", error) from error
