"""Names of internal topics, the origin header, Kafka's partitioner."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import NameRefusedError
from headwater.core.header import (
    Origin,
    behind_of,
    decode_origin,
    decode_varints,
    encode_origin,
    encode_varints,
    watermark_of,
)
from headwater.core.names import (
    NAMED_KINDS,
    PLAIN_KINDS,
    InternalTopic,
    check_part,
    check_topic,
    control_topic,
    group_of,
    internal_topic,
    parse_internal,
    refuse_internal,
)  # fmt: skip
from headwater.core.partitioner import murmur2, partition_of

PARTS = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
TOPICS = st.from_regex(r"[a-zA-Z0-9._-]{1,60}", fullmatch=True).filter(lambda name: name not in (".", ".."))


@st.composite
def internal_names(draw: Any) -> tuple[str, str, str, str]:
    kind = draw(st.sampled_from(NAMED_KINDS + PLAIN_KINDS))
    name = ""
    if kind == "out":
        name = draw(TOPICS)
    elif kind == "repartition":
        name = f"{draw(PARTS)}.{draw(PARTS)}"
    elif kind in NAMED_KINDS:
        name = draw(PARTS)
    return draw(PARTS), draw(PARTS), kind, name


@given(internal_names())
def test_made_names_are_parsed_to_what_they_were_made_of(parts: tuple[str, str, str, str]) -> None:
    app, *_ = parts
    name = internal_topic(*parts)
    assert parse_internal(name, app) == InternalTopic(*parts)
    assert str(InternalTopic(*parts)) == name == check_topic(name)
    assert parse_internal(name, app + "x") is None
    with pytest.raises(NameRefusedError, match="internal topic"):
        refuse_internal(name, app)


@given(TOPICS | internal_names().map(".".join).map(lambda name: name.rstrip(".")), PARTS)
def test_what_is_parsed_is_made_to_the_same_name(topic: str, app: str) -> None:
    parsed = parse_internal(topic, app)
    if parsed is not None:
        assert internal_topic(parsed.app, parsed.generation, parsed.kind, parsed.name) == topic


def test_the_examples_of_the_formats_page() -> None:
    assert internal_topic("flights", "live", "changelog", "totals") == "flights.live.changelog.totals"
    assert internal_topic("flights", "v2", "out", "alerts") == "flights.v2.out.alerts"
    assert internal_topic("flights", "live", "dead") == "flights.live.dead"
    assert (group_of("flights", "live"), control_topic("flights")) == ("flights.live", "flights.control")
    for topic in (
        "departures",
        "flights.live.deadly",
        "flights..tasks",
        "flights.live.changelog",
        "flights.live.dead.x",
    ):
        assert refuse_internal(topic, "flights") == topic
    with pytest.raises(NameRefusedError):
        refuse_internal("flights.control", "flights")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "a.b", "x" * 101, "a\n"])
def test_names_of_parts_that_a_topic_could_not_hold_are_refused(name: str) -> None:
    with pytest.raises(NameRefusedError, match="choose another name"):
        check_part(name, "a table")
    with pytest.raises(NameRefusedError):
        internal_topic("flights", "live", "changelog", name or "a.b")


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "é", "x" * 250, "a\n"])
def test_topic_names_that_kafka_would_refuse_are_refused(name: str) -> None:
    with pytest.raises(NameRefusedError, match="choose another name"):
        check_topic(name)


@pytest.mark.parametrize(("kind", "name"), [("changelog", ""), ("tasks", "x"), ("nonsense", "")])
def test_a_kind_that_is_not_there_is_a_bug(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="no internal topic kind"):
        internal_topic("a", "g", kind, name)


@given(st.lists(st.integers(0, 2**70), max_size=8))
def test_varints_come_back(numbers: list[int]) -> None:
    data = encode_varints(*numbers)
    assert decode_varints(data) == numbers
    if numbers and numbers[-1] > 0x7F:
        with pytest.raises(ValueError, match="cut off"):
            decode_varints(data[:-1])


def test_varints_are_leb128() -> None:
    assert encode_varints(0, 127, 128, 624_485) == bytes([0, 0x7F, 0x80, 1, 0xE5, 0x8E, 0x26])
    with pytest.raises(ValueError):
        encode_varints(-1)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=5, max_size=7), st.booleans())
def test_origins_come_back(numbers: list[int], is_output: bool) -> None:
    origin = Origin(*numbers[:5])._replace(app=numbers[-1]) if is_output else Origin(*numbers)
    assert decode_origin(encode_origin(origin)) == origin


@pytest.mark.parametrize("data", [b"", b"\1\2\3\4", b"\1" * 10, b"\1\2\3\4\x80"])
def test_what_is_no_origin_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_origin(data)


@pytest.mark.parametrize(
    ("key", "expected"),
    # The vectors of Kafka's own UtilsTest.testMurmur2.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF
    for partitions in (1, 2, 3, 4, 7, 100):
        assert partition_of(key, partitions) == (expected & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=400), st.integers(1, 64))
def test_a_home_is_a_partition_and_always_the_same(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@given(
    st.lists(st.integers(0, 1 << 63), min_size=6, max_size=6),
    st.integers(-(1 << 64), 1 << 64),
    st.integers(0, 1 << 63),
    st.none() | st.integers(0, 99),
)
def test_watermark_and_sender_in_the_header(
    numbers: list[int], ahead: int, behind: int, sender: int | None
) -> None:
    """I10: what a group_by sends says its own watermark, and who sent it where the source's partition doesn't."""
    origin = Origin(*[*numbers, ahead])._replace(behind=behind, sender=sender)
    assert decode_origin(encode_origin(origin)) == origin


@given(st.sampled_from([-(1 << 63), (1 << 63) - 1]) | st.integers(-(10**14), 10**14), st.integers(0, 10**12))
def test_a_watermark_is_written_relative_to_the_time(watermark: int, ahead: int) -> None:
    time = watermark + ahead if abs(watermark) < 1 << 62 else ahead
    assert watermark_of(behind_of(watermark, time), time) == watermark
