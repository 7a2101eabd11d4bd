"""A topic's history over both tiers, tables folded from it, and generations compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.core.errors import AsOfError, HandoverGapError, UnknownNameError
from headwater.engine.compare import Output, compare, compare_outputs, compare_tables
from headwater.engine.control import Control
from headwater.engine.generation import Generation
from headwater.engine.history import dump_table, fold_table, range_of, read_topic, require_topic
from headwater.log import open_log
from headwater.log.interface import Log
from headwater.table.changelog import encode_changes

_NUMBERS = itertools.count()
TOPOLOGY = {
    "subs": [{"topics": ["clicks"], "tables": ["spend"], "agents": ["a"], "partitions": 2, "first_task": 0}]
}


@pytest.fixture
def log() -> Iterator[Log]:
    log = open_log(f"memory://history-{next(_NUMBERS)}")
    yield log
    log.close()


@pytest.fixture
def archive(log: Log, tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(f"file://{tmp_path}/archive", log.log_id)
    yield archive
    archive.close()


def append(log: Log, topic: str, count: int, *, partition: int = 0) -> None:
    at = log.end_offset(topic, partition)
    numbers = range(at, at + count)
    log.append(
        [Append(topic, partition, [n * 10 for n in numbers], [b"k"] * count, [b"%d" % n for n in numbers])]
    )


def values(log: Log, archive: Archive | None, topic: str, *bounds: int) -> list[bytes | None]:
    return [value for batch in read_topic(log, archive, topic, 0, *bounds) for value in batch.values]


def test_history_is_whole_wherever_the_log_was_trimmed(log: Log, archive: Archive) -> None:
    log.create_topic("t", 1)
    append(log, "t", 5)
    Archiver(log, archive, ["t"]).until_idle()
    append(log, "t", 5)
    want = [b"%d" % n for n in range(10)]
    for trimmed in (0, 2, 5):
        log.trim("t", 0, trimmed)
        assert values(log, archive, "t") == want
        assert values(log, archive, "t", 1, 9) == want[1:9]
        assert range_of(log, archive, "t", 0) == (0, 10)


def test_history_of_a_topic_that_the_log_no_longer_has_is_the_archives(log: Log, archive: Archive) -> None:
    log.create_topic("t", 1)
    append(log, "t", 3)
    Archiver(log, archive, ["t"]).until_idle()
    log.delete_topic("t")
    assert values(log, archive, "t") == [b"0", b"1", b"2"]


def test_offsets_that_neither_tier_has_are_a_gap_that_is_named(log: Log, archive: Archive) -> None:
    log.create_topic("t", 1)
    append(log, "t", 10)
    log.trim("t", 0, 4)
    with pytest.raises(HandoverGapError, match=r"t/0 has no offsets 2\.\.3"):
        values(log, archive, "t", 2)


def test_an_unknown_topic_is_refused_with_near_names(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    with pytest.raises(UnknownNameError, match=r"no topic 'click'.*did you mean 'clicks'"):
        require_topic(log, archive, "click")


def ran(
    log: Log, name: str, rows: dict[bytes, bytes | None], *, time: int, read: int, **more: object
) -> Generation:
    """Write what an engine leaves: a changelog, and an epochs record of the task of partition 0."""
    changelog = f"app.{name}.changelog.spend"
    for topic, partitions in ((changelog, 1), (f"app.{name}.epochs", 1)):
        log.create_topic(topic, partitions)
    keys = list(rows)
    times = [time] * len(keys)
    blobs = encode_changes(keys, list(rows.values()), times, ([0] * len(keys),) * 4)
    log.append([Append(changelog, 0, [time] * len(blobs), [None] * len(blobs), blobs)])
    record = {"task": 0, "time": time, "read": {"clicks/0": read}}
    log.append([Append(f"app.{name}.epochs", 0, [time], [b"0"], [msgspec.json.encode(record)])])
    generation = Generation(name, "app", topology=TOPOLOGY, **more)  # type: ignore[arg-type]
    Control(log, None, "app").put(generation)
    return generation


def test_a_table_is_folded_as_of_an_instant_its_task_has_passed(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    append(log, "clicks", 9)
    generation = ran(log, "live", {b"a": b"1", b"b": b"2"}, time=100, read=4)
    ran(log, "live", {b"a": b"3", b"b": None}, time=200, read=8)
    assert fold_table(log, archive, "app", generation, "spend") == {0: {b"a": b"3"}}
    assert fold_table(log, archive, "app", generation, "spend", as_of=199) == {0: {b"a": b"1", b"b": b"2"}}
    assert fold_table(log, archive, "app", generation, "spend", as_of=200) == {0: {b"a": b"3"}}
    with pytest.raises(AsOfError, match="its task has not reached yet"):
        fold_table(log, archive, "app", generation, "spend", as_of=201)


def test_a_task_at_its_end_answers_for_later_instants_too(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    append(log, "clicks", 4)
    generation = ran(log, "live", {b"a": b"1"}, time=100, read=4)
    assert fold_table(log, archive, "app", generation, "spend", as_of=10_000) == {0: {b"a": b"1"}}


def test_an_instant_before_the_generation_began_is_refused(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    generation = ran(log, "v2", {b"a": b"1"}, time=100, read=0, time_from=50)
    with pytest.raises(AsOfError, match="what is kept goes from"):
        fold_table(log, archive, "app", generation, "spend", as_of=49)


def test_an_unknown_table_is_refused_with_near_names(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    generation = ran(log, "live", {b"a": b"1"}, time=1, read=0)
    with pytest.raises(UnknownNameError, match="no table 'spent'; did you mean 'spend'"):
        fold_table(log, archive, "app", generation, "spent")


def test_a_dump_is_in_the_order_of_keys_over_all_partitions(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    generation = ran(log, "live", {b"b": b"2", b"a": b'{"y":1,"x":2}'}, time=1, read=0)
    assert list(dump_table(log, archive, "app", generation, "spend")) == [
        '{"key":"a","value":{"x":2,"y":1}}',
        '{"key":"b","value":2}',
    ]


def test_generations_that_differ_name_the_keys(log: Log, archive: Archive) -> None:
    log.create_topic("clicks", 1)
    a = ran(log, "live", {b"same": b"1", b"gone": b"2", b"other": b"3"}, time=1, read=0)
    b = ran(log, "v2", {b"same": b"1", b"other": b"4", b"new": b"5"}, time=1, read=0)
    found = compare(log, archive, "app", a, b)
    assert found.differs
    [table] = found.tables
    assert (table.only_a, table.only_b, table.changed) == (1, 1, 1)
    assert [(row.key, row.a, row.b) for row in table.rows] == [
        (b"gone", b"2", None),
        (b"new", None, b"5"),
        (b"other", b"3", b"4"),
    ]
    assert not compare(log, archive, "app", a, a).differs


def test_two_spellings_of_one_value_are_equal_but_two_numbers_are_not() -> None:
    assert not compare_tables("t", {0: {b"k": b'{"a":1,"b":2}'}}, {0: {b"k": b'{"b": 2, "a": 1}'}}).differs
    assert compare_tables(
        "t", {0: {b"k": b"18446744073709551617"}}, {0: {b"k": b"18446744073709551616"}}
    ).differs
    assert compare_tables("t", {0: {b"k": b"\xff"}}, {0: {b"k": b"\xfe"}}).differs


def test_layouts_of_different_partition_counts_are_compared_by_key() -> None:
    assert not compare_tables("t", {0: {b"a": b"1", b"b": b"2"}}, {0: {b"b": b"2"}, 1: {b"a": b"1"}}).differs


def test_local_rows_of_one_key_are_compared_by_partition() -> None:
    one, other = {0: {b"k": b"1"}, 1: {b"k": b"2"}}, {0: {b"k": b"2"}, 1: {b"k": b"1"}}
    assert compare_tables("t", one, other).differs
    assert not compare_tables("t", one, one).differs


def test_outputs_are_compared_as_multisets_and_by_order_per_key() -> None:
    a: list[Output] = [(b"1", 10), (b"2", 20)]
    b: list[Output] = [(b"2", 20), (b"1", 10)]
    later: list[Output] = [(b"1", 11), (b"2", 20)]
    swapped = compare_outputs("out", 0, {b"k": a}, {b"k": b})
    assert (swapped.only_a, swapped.only_b, swapped.order, swapped.keys) == (0, 0, 1, (b"k",))
    doubled = compare_outputs("out", 0, {b"k": a}, {b"k": [*a, a[1]]})
    assert (doubled.only_a, doubled.only_b, doubled.order) == (0, 1, 0)
    assert compare_outputs("out", 0, {b"k": a}, {b"k": later}).differs, "the time counts"
    assert not compare_outputs("out", 0, {None: a}, {None: list(a)}).differs


def test_outputs_of_the_first_generation_are_its_derived_records_of_the_topic(
    log: Log, archive: Archive
) -> None:
    log.create_topic("clicks", 1)
    a, b = (ran(log, name, {b"k": b"1"}, time=1, read=0) for name in ("live", "v2"))
    for topic in ("alerts", "app.v2.out.alerts"):
        log.create_topic(topic, 1)
        derived = ((("hw", b"\0\0\0\0\0"),),)
        log.append([Append(topic, 0, [7], [b"k"], [b"1"], derived)])
    log.append([Append("alerts", 0, [8], [b"k"], [b"by hand"])])
    assert not compare(log, archive, "app", a, b).differs
    log.append([Append("app.v2.out.alerts", 0, [9], [b"k"], [b"2"])])
    found = compare(log, archive, "app", a, b)
    assert [(o.topic, o.partition, o.only_a, o.only_b) for o in found.outputs] == [("alerts", 0, 0, 1)]
