"""Ends of partitions on real brokers: markers, aborted records, nothing, one record, compacted holes; and times."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from headwater.archive import open_archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, TopicPartition
from headwater.log.kafka import KafkaLog
from headwater.source.bounds import offset_at_or_after
from tests.equivalence.world import World
from tests.kafka.counting import counting

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]


@pytest.fixture
def world(broker: str, tmp_path: Path) -> World:
    name = f"ends{secrets.token_hex(3)}"
    return World(lambda: counting(name), tmp_path, f"kafka://{broker}")


def produce(
    broker: str, topic: str, partition: int, values: list[tuple[str, int]], *, abort: bool = False
) -> None:
    """Produce one transaction as someone else would, and wait until its marker is there."""
    producer = Producer({"bootstrap.servers": broker, "transactional.id": secrets.token_hex(4)})
    producer.init_transactions(30)
    producer.begin_transaction()
    for key, value in values:
        producer.produce(topic, str(value).encode(), key.encode(), partition, timestamp=1_000_000 + value)
    producer.flush(30)
    (producer.abort_transaction if abort else producer.commit_transaction)(30)
    # One more that is aborted waits for the last one's marker.
    producer.begin_transaction()
    producer.abort_transaction(30)


def rows_of(world: World, generation: str = "live") -> dict[str, dict[str, int]]:
    return {row["key"]: row["value"] for row in map(json.loads, world.dump("totals", generation))}


def sums(values: list[tuple[str, int]]) -> dict[str, dict[str, int]]:
    counts: Counter[str] = Counter(key for key, _ in values)
    return {key: {"n": n, "sum": sum(v for k, v in values if k == key)} for key, n in counts.items()}


def test_partitions_that_end_in_markers_aborted_records_nothing_or_one_record_come_to_their_ends(
    world: World, broker: str
) -> None:
    """I5, I13: `worker --until-idle`, recovery, archiving and replays in both orders all end, and agree."""
    topic = f"{world.app_id}-in"
    log = KafkaLog(world.log_url)
    log.create_topic(topic, 4)
    seen: list[tuple[str, int]] = []

    def more(partition: int, values: list[tuple[str, int]], *, abort: bool = False) -> None:
        produce(broker, topic, partition, values, abort=abort)
        seen.extend([] if abort else values)

    more(0, [("a", n) for n in range(5)])  # ends in a commit marker
    more(2, [("b", 1), ("b", 2)])
    more(2, [("b", 777), ("x", 778)], abort=True)  # ends in aborted records and their marker
    more(3, [("c", 9)])
    world.work()
    assert rows_of(world) == sums(seen)
    world.work()  # recovers from the changelog, finds nothing to do, and ends
    more(0, [("a", 50)], abort=True)
    world.work()  # the tables' changelogs end in markers too
    more(2, [("b", 60)])
    world.work()
    assert rows_of(world) == sums(seen)
    world.archive()
    archive = world.open_archive(log)
    for partition in range(4):
        assert archive.end(topic, partition) in (log.end_offset(topic, partition), None)
    values = [v for p in range(4) for b in archive.read(topic, p, 0) for v in b.values]
    assert sorted(int(value or b"") for value in values) == sorted(v for _, v in seen)
    world.trim(topic)
    for order in ("time", "live"):
        world.replay(f"by_{order}", order=order)
        assert rows_of(world, f"by_{order}") == sums(seen), order
        assert world.dump("totals", f"by_{order}") == world.dump("totals")
    archive.close()
    log.close()


def test_a_compacted_topic_with_holes_is_worked_archived_and_replayed(world: World, broker: str) -> None:
    """`next` comes from the position: offsets without records are passed, and never stop a reader."""
    topic = f"{world.app_id}-in"
    log = KafkaLog(world.log_url)
    log.create_topic(
        topic,
        1,
        {
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100",
        },
    )
    for start in range(0, 30, 10):
        values = [str(n).encode() for n in range(start, start + 10)]
        log.append(
            [
                Append(
                    topic,
                    0,
                    [5 + 1000 * (start + n) for n in range(10)],
                    [b"k%d" % (n % 3) for n in range(10)],
                    values,
                )
            ],
            atomic=False,
        )
        time.sleep(0.3)  # segments are rolled by time: there is no event to wait for
    end_s, late = time.monotonic() + 60, 100_000
    while True:
        reader = KafkaLog(world.log_url)
        kept = [o for b in _batches(reader, topic) for o in b]
        reader.close()
        if len(kept) < 25:
            break
        assert time.monotonic() < end_s, "the cleaner did not run"
        late += 1000
        log.append([Append(topic, 0, [late], [b"k9"], [b"99"])], atomic=False)
        time.sleep(0.5)
    world.work()
    found = rows_of(world)
    # The cleaner goes on meanwhile: what was worked lies between what there was before and what there is after.
    reader = KafkaLog(world.log_url)
    after = [o for b in _batches(reader, topic) for o in b]
    reader.close()
    assert len(after) <= sum(row["n"] for row in found.values()) <= len(kept)
    world.archive()
    archive = world.open_archive(log)
    assert archive.end(topic, 0) == log.end_offset(topic, 0)
    for order in ("time", "live"):
        world.replay(f"by_{order}", order=order)
        assert set(rows_of(world, f"by_{order}")) == set(found)
    archive.close()
    log.close()


def _batches(log: KafkaLog, topic: str) -> list[list[int]]:
    end, position, found = log.end_offset(topic, 0), 0, []
    while position < end:
        batch = log.read(topic, 0, position, end=end)
        assert batch.base == position < batch.next
        found.append(list(batch.offsets))
        position = batch.next
    return found


def test_an_offset_for_a_time_is_kafkas_own_answer_from_log_archive_and_across_the_handover(
    broker: str, tmp_path: Path
) -> None:
    """I12: timestamps are out of order; the log is trimmed in the middle, and what was archived answers for it."""
    topic = f"times{secrets.token_hex(3)}"
    log = KafkaLog(f"kafka://{broker}")
    log.create_topic(topic, 1)
    times = [50, 30, 90, 10, 90, 20, 120, 40, 130, 125, 5, 140]
    for time_ms in times:
        log.append([Append(topic, 0, [1_700_000_000_000 + time_ms], [None], [b"v"])], atomic=False)
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "times"})
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    info = log.topic(topic)
    assert info is not None
    archive.bind({topic: info})
    asked = [1_700_000_000_000 + t + d for t in times for d in (-1, 0, 1)]

    def kafkas(time_ms: int) -> int | None:
        found = consumer.offsets_for_times([KafkaPartition(topic, 0, time_ms)], timeout=30)[0].offset
        return None if found < 0 else int(found)

    expected = {time_ms: kafkas(time_ms) for time_ms in asked}
    assert {t: log.offset_for_time(topic, 0, t) for t in asked} == expected
    Archiver(log, archive, [topic]).until_idle()
    assert {t: archive.offset_for_time(topic, 0, t) for t in asked} == expected
    log.trim(topic, 0, log.end_offset(topic, 0) // 2)
    assert {t: offset_at_or_after(archive, log, topic, 0, t) for t in asked} == expected
    # A marker's time is when it was written: Kafka names it, and it is no record.
    log.append([Append(topic, 0, [1_700_000_000_001, 1_700_000_000_200], [None] * 2, [b"v"] * 2)])
    log.append([Append(topic, 0, [1_700_000_000_300], [None], [b"v"])])
    assert kafkas(1_700_000_000_250) == 14
    assert log.offset_for_time(topic, 0, 1_700_000_000_250) == 15
    consumer.close()
    archive.close()
    log.close()


def test_a_topic_made_again_is_not_taken_for_its_forerunner(broker: str, tmp_path: Path) -> None:
    """The topic's id and the cluster's stand in the archive's paths."""
    topic = f"again{secrets.token_hex(3)}"
    log = KafkaLog(f"kafka://{broker}")
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    archiver = Archiver(log, archive, [topic])
    for value in (b"old", b"new"):
        log.create_topic(topic, 1)
        log.append([Append(topic, 0, [5], [None], [value])])
        archiver.until_idle()
        info = log.topic(topic)
        assert info is not None
        archive.bind({topic: info})
        assert [v for b in archive.read(topic, 0, 0) for v in b.values] == [value]
        log.delete_topic(topic)
    assert log.log_id in {path.name for path in (tmp_path / "v1").iterdir()}
    archive.close()
    log.close()


def test_what_brokers_trimmed_first_is_a_gap_in_the_archive_with_an_alarm(
    broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """I16: never silent."""
    topic = f"gap{secrets.token_hex(3)}"
    log = KafkaLog(f"kafka://{broker}")
    log.create_topic(topic, 1)
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    archiver = Archiver(log, archive, [topic])

    def append(count: int) -> None:
        log.append([Append(topic, 0, [5] * count, [None] * count, [b"v"] * count)], atomic=False)

    append(3)
    archiver.until_idle()
    append(4)
    log.trim(topic, 0, 5)
    archiver.until_idle()
    info = log.topic(topic)
    assert info is not None
    archive.bind({topic: info})
    assert [(s.base, s.next, s.gap is not None) for s in archive.segments(topic, 0)] == [
        (0, 3, False),
        (3, 5, True),
        (5, 7, False),
    ]
    assert archiver.counts.lost == 2
    assert "trimmed before they were archived" in caplog.text
    archive.close()
    log.close()


def test_the_end_of_what_is_written_counts_open_transactions_and_the_stable_end_does_not(broker: str) -> None:
    """KAFKA-10167: a changelog is recovered to the one, an archive goes up to the other."""
    topic = f"open{secrets.token_hex(3)}"
    log = KafkaLog(f"kafka://{broker}")
    log.create_topic(topic, 1)
    producer = Producer({"bootstrap.servers": broker, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(30)
    log.append([Append(topic, 0, [5], [None], [b"behind"])], atomic=False)
    assert (log.end_offset(topic, 0), log.end_offset(topic, 0, uncommitted=True)) == (0, 2)
    assert log.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}
    assert log.read(topic, 0, 0).next == 0, "nothing can be seen, and nobody waits for it"
    producer.commit_transaction(30)
    assert log.read(topic, 0, 0, end=2).values[0] == b"open", "who knows that it is there waits for it"
    log.close()
