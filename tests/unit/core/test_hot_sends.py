"""Sends in C and in Python: `stage` and `lay_out` give the same columns, headers and places, whatever is sent."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core import hot_python
from headwater.core.header import ORIGIN, Origin, behind_of, decode_origin, encode_varints
from headwater.core.partitioner import partition_of
from headwater.core.sending import Causes, Laid, Lane
from tests.unit.core.test_hot import implementations

NEVER, END = -(1 << 63), (1 << 63) - 1
TIMES = st.sampled_from([-1, 0, 1, 1_700_000_000_000, 1 << 62, -(1 << 62)]) | st.integers(-(1 << 62), 1 << 62)
WATERMARKS = st.sampled_from([NEVER, END]) | TIMES
KEYS = st.none() | st.binary(max_size=12)
NUMBERS = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 1 << 28, 1 << 35, (1 << 62) - 1])

ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, TIMES, TIMES, WATERMARKS), min_size=1, max_size=6)
"""By row: topic number, partition, offset, timestamp, task time, own watermark."""

SENDS = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["out", "other"]), st.none() | st.integers(0, 2), st.none() | TIMES, KEYS,
        KEYS, st.sampled_from([(), (("h", b"v"), ("n", None))]), st.none() | WATERMARKS,
    ),
    max_size=12,
)  # fmt: skip


def laid(
    made: Any, sends: list[Any], rows: list[tuple[int, ...]], *, single: bool, internal: bool, kept: bool
) -> Any:
    """Lay out all sends with one implementation, topic by topic as the engine does; return columns and counts."""
    found: dict[tuple[str, int], Laid] = {}
    columns: list[Any] = [[row[at] for row in rows] for at in range(6)]
    if single:
        columns[0], columns[1] = rows[0][0], rows[0][1]
    if not kept:
        columns[5] = []
    causes = Causes(*columns)

    def make(topic: str, target: int) -> Laid:
        return found.setdefault((topic, target), Laid([], [], [], [], [7]))

    app = b"" if internal else encode_varints(99)
    lanes = {
        topic: Lane(topic, 300, 3, 1, app, 2, internal, {}, partial(make, topic))
        for topic in ("out", "other")
    }
    counted, at, stops = [-1, 0], 0, []
    while at < len(sends):
        at = made.lay_out(sends, at, lanes[sends[at].topic], causes, counted)
        stops.append((at, tuple(counted)))
    return found, stops


@pytest.mark.parametrize("made", implementations())
@given(rows=ROWS, sends=SENDS, single=st.booleans(), internal=st.booleans(), kept=st.booleans())
def test_what_is_sent_is_laid_out_with_its_origin(
    made: Any, rows: list[tuple[int, ...]], sends: list[Any], single: bool, internal: bool, kept: bool
) -> None:
    staged = sorted((fields for fields in sends if fields[0] < len(rows)), key=lambda fields: fields[0])
    mine = [made.Send(*fields) for fields in staged]
    options = {"single": single, "internal": internal, "kept": kept}
    found, stops = laid(made, mine, rows, **options)
    twin = laid(hot_python, [hot_python.Send(*fields) for fields in staged], rows, **options)
    assert (found, stops) == twin
    sequences = dict.fromkeys(found, 7)
    places = dict.fromkeys(found, 0)
    emits: dict[int, int] = {}
    for row, topic, partition, timestamp, key, value, headers, watermark in staged:
        number, source, offset, stamp, time, own = rows[row]
        if single:
            number, source = rows[0][:2]
        target = partition if partition is not None else 1 if key is None else partition_of(key, 3)
        columns, at = found[topic, target], places[topic, target]
        places[topic, target] += 1
        time_of = stamp if timestamp is None else timestamp
        assert (columns.timestamps[at], columns.keys[at], columns.values[at]) == (time_of, key, value)
        assert columns.headers[at][:-1] == headers
        name, data = columns.headers[at][-1]
        emit = emits[row] = emits.get(row, -1) + 1
        origin = Origin(300, number, source, offset, emit, app=99)
        if internal:
            behind = (
                behind_of(own if watermark is None else watermark, time)
                if kept
                else 0
                if source != 2
                else None
            )
            sender = None if source == 2 else 2
            origin = Origin(
                300, number, source, offset, emit, sequences[topic, target], time - time_of, behind, sender
            )
            sequences[topic, target] += 1
        assert (name, decode_origin(data)) == (ORIGIN, origin)
    assert {place: columns.sequence[0] for place, columns in found.items()} == sequences


@pytest.mark.parametrize("made", implementations())
def test_sends_are_values(made: Any) -> None:
    send = made.Send(3, "out", None, 5, b"k", b"v")
    assert (send.row, send.topic, send.headers, send.watermark) == (3, "out", (), None)
    assert send == made.Send(3, "out", None, 5, key=b"k", value=b"v", headers=(), watermark=None)
    assert send != made.Send(4, "out", None, 5, b"k", b"v")
    assert "b'k'" in repr(send)
    send.row = 9
    assert send.row == 9
    with pytest.raises(TypeError):
        made.Send(1, "out")
    with pytest.raises(TypeError):
        hash(send)


@pytest.mark.parametrize("made", implementations())
def test_staging_stops_before_what_is_too_long(made: Any) -> None:
    sends: list[Any] = []
    rows, keys, values, times = [1, 1, 4], [b"a", b"b", b"c"], [b"1", None, b"333"], [10, 11, 12]
    assert made.stage(sends, "out", rows, keys, values, times, NEVER, 3) == 2
    assert sends == [
        made.Send(1, "out", None, 10, b"a", b"1", (), NEVER), made.Send(1, "out", None, 11, b"b", None, (), NEVER)
    ]  # fmt: skip
    assert made.stage(sends, "out", rows, keys, values, times, NEVER, 4) == 3
    with pytest.raises(ValueError, match=r"length|longer|shorter"):
        made.stage(sends, "out", [1], keys, values, times, NEVER, 4)


@pytest.mark.parametrize("made", implementations())
def test_a_row_that_is_not_there_is_an_error(made: Any) -> None:
    lane = Lane("out", 1, 1, 0, b"", 0, False, {}, lambda _: Laid([], [], [], [], [0]))
    causes = Causes(0, 0, [5], [6], [7], [])
    with pytest.raises(IndexError):
        made.lay_out([made.Send(1, "out", None, None, b"k", b"v")], 0, lane, copy.deepcopy(causes), [-1, 0])
