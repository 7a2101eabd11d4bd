"""What every log promises of records, topics and transactions; one suite over all implementations."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest

from headwater.core.batch import Append, Batch, Headers, TopicPartition
from headwater.core.errors import (
    FencedError,
    LogUnavailableError,
    MisuseError,
    NameRefusedError,
    OffsetTrimmedError,
    PartitionCountError,
    UnknownNameError,
)
from headwater.log import open_log
from headwater.log.interface import Log, Transaction
from tests.contract.logs import Renamed

Reopen = Callable[[], Log]


@pytest.fixture(params=["memory", "file", pytest.param("kafka", marks=pytest.mark.broker)])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Open the test's log once more; all are closed at the end."""
    url = f"memory://{request.node.nodeid}" if request.param == "memory" else f"file://{tmp_path}/deep/log"
    prefix = ""
    if request.param == "kafka":
        url, prefix = f"kafka://{request.getfixturevalue('broker')}", f"{secrets.token_hex(4)}-"
    opened: list[Log] = []

    def open_it() -> Log:
        log = open_log(url)
        opened.append(Renamed(log, prefix) if prefix else log)
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def log(reopen: Reopen) -> Log:
    log = reopen()
    log.create_topic("t", 2)
    return log


def one(topic: str, partition: int, *values: bytes | None, time: int = 0) -> Append:
    return Append(topic, partition, [time] * len(values), [None] * len(values), list(values))


def rows(batch: Batch) -> list[tuple[int, int, bytes | None, bytes | None, Headers]]:
    return [
        (offset, batch.timestamps[at], batch.keys[at], batch.values[at], batch.headers_at(at))
        for at, offset in enumerate(batch.offsets)
    ]


def read_all(log: Log, topic: str, partition: int, **how: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    at = log.start_offset(topic, partition)
    while (batch := log.read(topic, partition, at, **how)).next > at:
        assert batch.base == at
        # Transactions leave markers in Kafka: offsets without a record.
        assert batch.next == at + len(batch) or (isinstance(log, Renamed) and batch.next > at + len(batch))
        values.extend(batch.values)
        at = batch.next
    return values


def test_records_come_back_byte_for_byte(log: Log) -> None:
    records: list[tuple[int, bytes | None, bytes | None, Headers]] = [
        (0, None, None, ()),
        (-1, b"", b"", (("a", None), ("a", b""), ("a", b"\x00"))),
        (2**63 - 1, b"\x00", b"x" * (1 << 20), (("", b"v"), ("ключ", b"\xff"))),
        (-(2**63), b"k", b"null", tuple((f"h{n}", b"%d" % n) for n in range(1000))),
    ]
    times, keys, values, headers = zip(*records, strict=True)
    bases = log.append([Append("t", 1, times, keys, values, headers)])
    assert bases == {TopicPartition("t", 1): 0}
    # A log may give what it has at hand: Kafka's clients get long records one by one.
    found, at, nbytes = [], 0, 0
    while (batch := log.read("t", 1, at)).next > at:
        found += rows(batch)
        at, nbytes = batch.next, nbytes + batch.nbytes
    assert found == [(at, *record) for at, record in enumerate(records)]
    assert nbytes > 1 << 20
    assert log.read("t", 0, 0).next == 0


@pytest.mark.parametrize("count", [1, 255, 300, 5000])
@pytest.mark.parametrize("with_headers", [False, True])
def test_appends_of_any_size_come_back_whole_and_in_slices(log: Log, count: int, with_headers: bool) -> None:
    times = [n * 7 % 11 for n in range(count)]
    keys = [None if n % 5 == 0 else b"k%d" % n for n in range(count)]
    values = [None if n % 7 == 0 else b"v" * (n % 300) for n in range(count)]
    headers: list[Headers] | None = None
    if with_headers:
        headers = [(("n", b"%d" % n),) if n % 3 else () for n in range(count)]
    log.append([Append("t", 0, times, keys, values, headers)])
    log.append([one("t", 0, b"last")])
    batch = log.read("t", 0, 0)
    expected = [
        (n, times[n], keys[n], values[n], () if headers is None else headers[n]) for n in range(count)
    ] + [(count, 0, None, b"last", ())]
    assert rows(batch) == expected
    part = log.read("t", 0, 0).slice(count // 2, count)
    assert rows(part) == expected[count // 2 : count]
    low, high = count // 3, max(count // 2, count // 3 + 1)
    assert rows(log.read("t", 0, low, end=high)) == expected[low:high]


def test_a_read_weighs_at_most_bytes_max_and_has_one_record_at_least(log: Log) -> None:
    sizes = [10, 5000, 10, 10, 70_000, 1, 0, 3000, 3000]
    log.append([one("t", 0, *[bytes(size) for size in sizes[:5]])])
    log.append([one("t", 0, *[bytes(size) for size in sizes[5:]])])
    for bytes_max in (1, 60, 4000, 80_000):
        at = 0
        while len(batch := log.read("t", 0, at, bytes_max=bytes_max)):
            weight = sum(24 + len(value or b"") for value in batch.values)
            assert weight <= bytes_max or len(batch) == 1
            assert batch.nbytes <= max(bytes_max, weight)
            at = batch.next
        assert at == len(sizes)
        assert [len(value or b"") for value in read_all(log, "t", 0, bytes_max=bytes_max)] == sizes


def test_reading_at_the_end_gives_an_empty_batch(log: Log) -> None:
    log.append([one("t", 0, b"a", b"b")])
    for batch in (log.read("t", 0, 2), log.read("t", 0, 1, end=1), log.read("t", 1, 0)):
        assert (len(batch), batch.base) == (0, batch.next)
    assert log.read("t", 0, 0, end=1).values == [b"a"]
    assert log.read("t", 0, 0, end=99).next == 2


def test_an_append_of_nothing_gives_the_end_offset(log: Log) -> None:
    log.append([one("t", 0, b"a")])
    assert log.append([one("t", 0)]) == {TopicPartition("t", 0): 1}
    assert log.append([]) == {}
    assert log.end_offset("t", 0) == 1


def test_several_appends_to_one_partition_keep_their_order(log: Log) -> None:
    log.append([one("t", 0, b"0")])
    bases = log.append([one("t", 0, b"1"), one("t", 1, b"x"), one("t", 0, b"2", b"3")])
    assert bases == {TopicPartition("t", 0): 1, TopicPartition("t", 1): 0}
    assert read_all(log, "t", 0) == [b"0", b"1", b"2", b"3"]
    assert log.end_offsets(bases) == {TopicPartition("t", 0): 4, TopicPartition("t", 1): 1}


def test_offset_for_time_is_the_earliest_offset_though_times_are_out_of_order(log: Log) -> None:
    times = [5, 3, 9, 1, 9, 2, 12, -4]
    for low in range(0, 8, 2):
        log.append([Append("t", 0, times[low : low + 2], [None] * 2, [b""] * 2)])
    for start in (0, 1, 3, 7):
        log.trim("t", 0, start)
        for time in (-(2**70), -5, 0, 2, 3, 5, 6, 9, 10, 12, 13, 2**70):
            expected = next((at for at in range(start, 8) if times[at] >= time), None)
            assert log.offset_for_time("t", 0, time) == expected, (start, time)
    assert log.offset_for_time("t", 1, 0) is None


def test_trim_moves_the_start_and_never_above_the_end(log: Log) -> None:
    log.append([one("t", 0, *[b"%d" % n for n in range(10)])])
    log.append([one("t", 0, b"10", b"11")])
    log.trim("t", 0, 4)
    assert (log.start_offset("t", 0), log.end_offset("t", 0)) == (4, 12)
    with pytest.raises(OffsetTrimmedError, match=r"t/0@3 .*start") as refused:
        log.read("t", 0, 3)
    assert refused.value.start == 4
    assert log.read("t", 0, 4).values[0] == b"4"
    log.trim("t", 0, 2)
    assert log.start_offset("t", 0) == 4
    log.trim("t", 0, 10)
    assert read_all(log, "t", 0) == [b"10", b"11"]
    log.trim("t", 0, 99)
    assert (log.start_offset("t", 0), log.end_offset("t", 0)) == (12, 12)
    assert log.append([one("t", 0, b"12")]) == {TopicPartition("t", 0): 12}
    assert read_all(log, "t", 0) == [b"12"]


def test_topics_are_made_once_and_differ_when_made_again(log: Log) -> None:
    first = log.create_topic("u", 3)
    assert log.create_topic("u", 3) == first
    assert log.topic("u") == first
    with pytest.raises(PartitionCountError, match="has 3 partitions, asked for 4"):
        log.create_topic("u", 4)
    log.append([one("u", 2, b"old")])
    log.delete_topic("u")
    log.delete_topic("u")
    assert log.topic("u") is None
    again = log.create_topic("u", 1)
    assert again.topic_id != first.topic_id
    assert (log.start_offset("u", 0), log.end_offset("u", 0)) == (0, 0)
    assert list(log.topics()) == ["t", "u"]


def test_wrong_names_and_columns_are_refused_and_nothing_is_kept(log: Log) -> None:
    with pytest.raises(NameRefusedError):
        log.create_topic("a/b", 1)
    with pytest.raises(MisuseError, match="0 partitions"):
        log.create_topic("u", 0)
    with pytest.raises(UnknownNameError, match="did you mean 't'"):
        log.read("tt", 0, 0)
    with pytest.raises(UnknownNameError, match="no partition 2"):
        log.end_offset("t", 2)
    with pytest.raises(UnknownNameError):
        log.append([one("t", 0, b"a"), one("t", -1, b"b")])
    with pytest.raises(MisuseError, match="lengths"):
        log.append([Append("t", 0, [0], [None], [b"", b""])])
    with pytest.raises(MisuseError, match="type str"):
        log.append([one("t", 0, b"a"), one("t", 0, "text")])  # type: ignore[arg-type]
    with pytest.raises(MisuseError, match="64 bits"):
        log.append([one("t", 0, b"a"), one("t", 0, b"b", time=2**63)])
    with pytest.raises(MisuseError, match="without a member"):
        log.commit(Transaction([one("t", 0, b"a")], {TopicPartition("t", 0): 1}))
    assert log.end_offset("t", 0) == 0


def test_a_transaction_moves_records_and_positions_together_or_not_at_all(log: Log) -> None:
    """I2, I18: what is refused leaves neither records nor positions."""
    log.create_topic("u", 1)
    member = log.join("g", 1)
    assert member.heartbeat().owned == {0}
    log.commit(Transaction([one("t", 0, b"a"), one("u", 0, b"b")], {TopicPartition("in", 0): 5}, member, [0]))
    with pytest.raises(UnknownNameError):
        log.commit(
            Transaction([one("t", 0, b"c"), one("no", 0, b"d")], {TopicPartition("in", 0): 6}, member, [0])
        )
    with pytest.raises(FencedError):
        log.commit(Transaction([one("t", 0, b"c")], {TopicPartition("in", 0): 6}, member, [0, 1]))
    assert (read_all(log, "t", 0), read_all(log, "u", 0)) == ([b"a"], [b"b"])
    assert log.positions("g") == {TopicPartition("in", 0): 5}
    assert log.positions("h") == {}
    member.leave()
    log.forget_group("g")
    assert log.positions("g") == {}


def test_a_transaction_of_20_mb_is_there_whole_or_not_at_all(log: Log) -> None:
    """I18: also where it is larger than one write transaction may be."""
    member = log.join("g", 1)
    chance = random.Random(20)  # not to be compressed: 20 MB must stay 20 MB
    values = [chance.randbytes(100_000) for _ in range(200)]
    large = [one("t", n % 2, value) for n, value in enumerate(values)]
    with pytest.raises(FencedError):
        log.commit(Transaction(large, {}, member, [0]))
    assert (log.end_offset("t", 0), log.read("t", 1, 0).next) == (0, 0)
    member.heartbeat()
    bases = log.commit(Transaction(large, {TopicPartition("in", 0): 1}, member, [0]))
    assert bases == {TopicPartition("t", 0): 0, TopicPartition("t", 1): 0}
    assert read_all(log, "t", 0) == values[0::2]
    assert read_all(log, "t", 1) == values[1::2]


def test_another_object_sees_what_was_committed_and_the_version_tells(log: Log, reopen: Reopen) -> None:
    other = reopen()
    assert other.log_id == log.log_id
    seen, own = other.version(), log.version()
    assert (other.version(), log.version()) == (seen, own)
    log.append([one("t", 0, b"a")])
    assert log.version() != own
    if log.url.startswith("kafka:"):
        # Nobody tells another client of a commit that it doesn't fetch: its version says to look, every half second.
        sleep(0.5)
    assert other.version() != seen
    assert other.read("t", 0, 0).values == [b"a"]


def test_a_log_outlives_its_closing_and_a_closed_one_says_so(log: Log, reopen: Reopen) -> None:
    log.append([one("t", 0, b"a")])
    info = log.topic("t")
    log.close()
    log.close()
    with pytest.raises(LogUnavailableError, match="closed"):
        log.read("t", 0, 0)
    again = reopen()
    assert again.topic("t") == info
    assert read_all(again, "t", 0) == [b"a"]


def test_an_unknown_url_is_refused() -> None:
    for url in ("redis://x", "./folder", "file://"):
        with pytest.raises(MisuseError, match="file://DIR"):
            open_log(url)
