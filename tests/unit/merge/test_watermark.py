"""A partition's watermark clock against a naive one: record by record, however its records are cut, wherever it is begun again."""

from __future__ import annotations

from itertools import accumulate

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.batch import Batch
from headwater.merge.channel import END_OF_TIME, NEVER, Channel
from headwater.merge.watermark import WatermarkClock

JUMP, LATENESS = 50, 7

steps = st.sampled_from([0, 1, 2, 5, -3, -20, 40, 49, 50, 51, 400, -400])


@st.composite
def event_times(draw: st.DrawFn) -> list[int]:
    """Mostly rising times, with steps back, jumps, times of another age, and -1 and 0."""
    time, times = draw(st.sampled_from([1000, 5, -500])), []
    for step in draw(st.lists(steps, max_size=25)):
        time += step
        times.append(draw(st.sampled_from([time] * 12 + [0, -1, 10**13])))
    return times


def naive(times: list[int]) -> tuple[list[int], list[int]]:
    """Return own watermark before, and what the partition counts for after, each record, as the docs tell it."""
    own, reached = [], []
    clock, said, was_far = None, 0, False
    for time in times:
        before = NEVER if clock is None else clock - LATENESS
        if time not in (-1, 0):
            is_far = clock is not None and time > clock + JUMP
            if clock is None:
                clock, said = time, 1
            elif is_far:
                if was_far:
                    clock, said = clock + JUMP, 2
            elif said == 1 and time < clock - JUMP:
                clock, before, said = time, NEVER, 2
            else:
                clock, said = max(clock, time), 2
            was_far = is_far
        own.append(before)
        reached.append(NEVER if said < 2 or clock is None else clock - LATENESS)
    return own, reached


def _channel() -> Channel:
    channel = Channel("t/0", 0, None, ("t", 0))
    channel.watermark = WatermarkClock(LATENESS, JUMP)
    return channel


def _batch(times: list[int], start: int, end: int, *, arrow: bool) -> Batch:
    part = times[start:end]
    stamps = pa.array(part, pa.int64()) if arrow else part
    return Batch("t", 0, start, end, list(range(start, end)), stamps, [None] * len(part), [b""] * len(part))


def _columns(channel: Channel) -> tuple[list[int], list[int]]:
    pieces = list(channel.front(channel.size))
    return [w for p in pieces for w in p.watermarks], [r for p in pieces for r in p.reached]


@given(event_times(), st.lists(st.integers(1, 6), min_size=1, max_size=6), st.booleans())
def test_own_watermarks_do_not_hang_on_batches(times: list[int], sizes: list[int], arrow: bool) -> None:
    """I11: lateness is decided by the earlier records of the partition alone."""
    channel, at, turn = _channel(), 0, 0
    while at < len(times):
        size = sizes[turn % len(sizes)]
        channel.add_batch(_batch(times, at, min(at + size, len(times)), arrow=arrow))
        at, turn = at + size, turn + 1
    assert _columns(channel) == naive(times)


@settings(max_examples=300)
@given(event_times(), st.integers(0, 25), st.booleans())
def test_a_clock_begun_again_gives_the_rest_the_same_watermarks(
    times: list[int], at: int, arrow: bool
) -> None:
    """I11: whichever record is read first after a restart, it and all that follow are as late as they were."""
    at = min(at, len(times))
    first = _channel()
    if times:
        first.add_batch(_batch(times, 0, len(times), arrow=arrow))
    for _ in range(at):
        first.take(1)
    assert first.watermark is not None
    own = first.watermark_at_position()
    clock = own + LATENESS if own != NEVER else NEVER
    again = _channel()
    assert again.watermark is not None
    effective = list(accumulate(times, max))
    again.clock = effective[at] if at < len(times) else (effective[-1] if times else NEVER)
    again.covered = at
    was = first.watermark
    again.watermark.restore(clock, was.first, was.believed_from, at, was.suspects_from(at))
    if at < len(times):
        again.add_batch(_batch(times, at, len(times), arrow=arrow))
    naive_own, naive_reached = naive(times)
    assert _columns(again) == (naive_own[at:], naive_reached[at:])
    assert again.watermark.own() == first.watermark.own()


@pytest.mark.parametrize(
    ("times", "own"),
    [
        ([1000, 1001, 253402300799000, 1002, 1003], [NEVER, 993, 994, 994, 995]),  # a year 9999 moves nothing
        ([1000, 1001, 5000, 5001, 5002], [NEVER, 993, 994, 994, 1044]),  # a jump is caught up with
        ([253402300799000, 1000, 1001], [NEVER, NEVER, 993]),  # in front it counts for nothing
        ([0, -1, 1000, 1001], [NEVER, NEVER, NEVER, 993]),  # no time is no time
        ([1000, 1010, 500, 1011], [NEVER, 993, 1003, 1003]),  # a clock set back
    ],
)
def test_odd_times(times: list[int], own: list[int]) -> None:
    channel = _channel()
    channel.add_batch(_batch(times, 0, len(times), arrow=False))
    assert _columns(channel)[0] == own


def test_after_the_end_of_time_everything_is_late() -> None:
    channel = _channel()
    channel.add_batch(_batch([1000, 1001], 0, 2, arrow=False))
    channel.end_time(2)
    assert channel.tail == END_OF_TIME
    channel.add_batch(Batch("t", 0, 3, 4, [3], [1002], [None], [b""]))
    assert _columns(channel) == ([NEVER, 993, END_OF_TIME], [NEVER, 994, END_OF_TIME])
