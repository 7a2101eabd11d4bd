"""An input: channels of a repartition topic told apart, marks and ends read, bounds kept, positions taken up again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.batch import Append, Headers
from headwater.core.errors import LogCorruptError
from headwater.core.header import MARK, ORIGIN, Origin, app_number, encode_origin
from headwater.core.values import codec_for
from headwater.engine.inputs import Input
from headwater.engine.positions import TaskState
from headwater.log import open_log
from headwater.log.interface import Log
from headwater.merge.channel import Channel
from headwater.source.live import LiveSource

_numbers = count()


@pytest.fixture
def log() -> Iterator[Log]:
    opened = open_log(f"memory://inputs-{next(_numbers)}")
    opened.create_topic("t", 1)
    yield opened
    opened.close()


def _append(
    log: Log, values: list[bytes | None], times: list[int], headers: list[Headers] | None = None
) -> None:
    log.append([Append("t", 0, times, [b"k"] * len(values), values, headers)])


def _input(log: Log, **options: Any) -> Input:
    made = Input("t", 0, LiveSource(log, "t", 0, 0), codec_for(None), **options)
    made.assign_number(0)
    made.restore(None, 0)
    return made


def _sent(sender: int, sequence: int, *, ahead: int = 0, offset: int = 0) -> Headers:
    return (("own", b"1"), (ORIGIN, encode_origin(Origin(1, 2, sender, offset, 0, sequence, ahead))))


def _mark(sender: int, time: int, *, end: bool = False) -> Headers:
    mark: dict[str, Any] = {"sender": sender, "time": time}
    return ((MARK, json.dumps(mark | ({"end": True} if end else {})).encode()),)


def _values(channel: Channel) -> list[bytes | None]:
    return [value for piece in channel.front(channel.size) for value in piece.values]


def test_records_of_several_senders_become_a_channel_each(log: Log) -> None:
    """I10: told apart by origin; effective time is the sender's task time, the place its emit sequence."""
    _append(
        log,
        [b"a0", b"b0", b"a1"],
        [5, 3, 4],
        [_sent(0, 0, offset=7), _sent(1, 0, ahead=2, offset=8), _sent(0, 1, ahead=6, offset=9)],
    )
    made = _input(log, senders=2)
    assert made.fill(1 << 20)
    first, second = made.channels
    assert (_values(first), _values(second)) == ([b"a0", b"a1"], [b"b0"])
    [piece] = first.front(first.size)
    assert (list(piece.times), list(piece.timestamps)) == ([5, 10], [5, 4])
    assert (list(piece.places), list(piece.offsets)) == ([0, 1], [0, 2])
    assert piece.causes is not None
    assert [list(column) for column in piece.causes] == [[2, 2], [0, 0], [7, 9], [0, 0]]
    assert piece.headers is not None
    assert list(piece.headers) == [(("own", b"1"),), (("own", b"1"),)]  # without the engine's own
    assert (first.name, second.name) == ("t/0#0", "t/0#1")
    assert not made.fill(1 << 20)
    assert made.caught_up


def test_marks_move_a_channels_progress_and_end_it(log: Log) -> None:
    _append(log, [b"a", None, None], [5, 9, 9], [_sent(0, 0), _mark(1, 9), _mark(0, 9, end=True)])
    made = _input(log, senders=2)
    made.fill(1 << 20)
    first, second = made.channels
    assert (first.progress, first.done) == (9, True)
    assert (second.progress, second.done) == (9, False)
    assert not made.ended
    _append(log, [None], [9], [_mark(1, 9, end=True)])
    made.fill(1 << 20)
    assert not made.ended  # a record still waits
    first.take(1)
    assert made.ended


def test_a_late_mark_never_moves_progress_back(log: Log) -> None:
    _append(log, [None, None], [9, 4], [_mark(0, 9), _mark(0, 4)])
    made = _input(log, senders=1)
    made.fill(1 << 20)
    assert made.channels[0].progress == 9


def test_a_record_that_no_task_sent_is_refused_by_its_offset(log: Log) -> None:
    _append(log, [b"a", b"stranger"], [1, 2], [_sent(0, 0), ()])
    made = _input(log, senders=1)
    with pytest.raises(LogCorruptError, match="t/0@1"):
        made.fill(1 << 20)


def test_after_a_restart_each_channel_goes_on_behind_what_its_slowest_reader_has_done(log: Log) -> None:
    """I1: emit sequences, not offsets: the topic is read from the least offset, what was done is passed over."""
    _append(
        log,
        [b"a0", b"b0", b"a1", b"b1"],
        [1, 2, 3, 4],
        [_sent(0, 0), _sent(1, 0), _sent(0, 1), _sent(1, 1)],
    )
    state = TaskState(
        0,
        positions={"one": {"t/0#0": 1, "t/0#1": 2}, "two": {"t/0#0": 2, "t/0#1": 2}},
        read={"t/0": 2},
        clocks={"t/0#0": 1, "t/0#1": 4},
        marks={"ended": {"t/0#1": True}},
    )
    made = _input(log, senders=2)
    made.restore(state, 0)
    assert made.source.position == 2
    made.fill(1 << 20)
    first, second = made.channels
    assert (_values(first), _values(second)) == ([b"a1"], [])
    assert (first.position, second.position) == (1, 2)
    assert (first.done, second.done) == (False, True)
    assert second.progress == 4


def test_a_bounded_read_ends_at_its_offset_though_more_is_there(log: Log) -> None:
    _append(log, [b"%d" % n for n in range(10)], list(range(10)))
    made = _input(log, end=4)
    assert made.fill(1 << 20)
    [channel] = made.channels
    assert _values(channel) == [b"0", b"1", b"2", b"3"]
    assert channel.done
    assert not made.ended
    channel.take(4)
    assert made.ended
    assert not made.fill(1 << 20)
    assert made.source.position == 4


@pytest.mark.parametrize("end", [0, 3])
def test_a_bounded_read_of_nothing_has_ended_at_once(log: Log, end: int) -> None:
    _append(log, [b"0", b"1", b"2"], [1, 2, 3])
    made = Input("t", 0, LiveSource(log, "t", 0, end), codec_for(None), end=end)
    made.restore(None, end)
    assert made.ended


@given(
    st.lists(st.integers(0, 9), max_size=20),
    st.one_of(st.none(), st.integers(0, 9)),
    st.one_of(st.none(), st.integers(0, 9)),
    st.integers(0, 20),
)
def test_bounds_keep_records_of_their_times_and_positions_pass_the_rest(
    times: list[int], low: int | None, high: int | None, end: int
) -> None:
    """Records outside [from, until) are skipped, and the position moves past them (I3)."""
    log = open_log(f"memory://inputs-{next(_numbers)}")
    log.create_topic("t", 1)
    if times:
        _append(log, [b"%d" % n for n in range(len(times))], times)
    end = min(end, len(times))
    made = _input(log, time_from=low, time_until=high, end=end)
    while made.fill(16):
        pass
    kept = [
        b"%d" % n
        for n, time in enumerate(times[:end])
        if (low is None or time >= low) and (high is None or time < high)
    ]
    [channel] = made.channels
    assert _values(channel) == kept
    while channel.size:
        channel.take(1)
    assert channel.position == made.read_position() == end
    assert made.ended


def test_what_the_apps_own_agents_wrote_is_passed_over_where_asked(log: Log) -> None:
    """A replay of a topic that the app both reads and writes takes others' records; its own come from the shadow."""
    own = ((ORIGIN, encode_origin(Origin(5, 0, 0, 0, 0, app=app_number("ours")))),)
    other = ((ORIGIN, encode_origin(Origin(5, 0, 0, 0, 0, app=app_number("theirs")))),)
    _append(log, [b"people's", b"own", b"another's"], [1, 2, 3], [(), own, other])
    made = _input(log, skip_app=app_number("ours"))
    made.fill(1 << 20)
    assert _values(made.channels[0]) == [b"people's", b"another's"]
