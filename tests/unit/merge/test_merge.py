"""Merging channels against a naive total order: whatever arrives when, and however groups fall."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.batch import Batch
from headwater.merge.channel import NEVER, Channel, Piece, join
from headwater.merge.merge import Group, Merge

Times = list[list[int]]
"""For each channel the event times of its records, in offset order."""

channels_of_times = st.lists(st.lists(st.integers(0, 12), max_size=12), min_size=1, max_size=4)
chunks = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def _channel(number: int) -> Channel:
    # Two topics, so that equal times are ordered by topic and then by partition, not by the channel's number.
    sort = (("b", "a")[number % 2], number)
    return Channel(f"{sort[0]}/{number}", number, None, sort)


def _batch(number: int, times: list[int], start: int, end: int) -> Batch:
    return Batch(
        "topic", number, start, end, list(range(start, end)), times[start:end], [b"k"] * (end - start),
        [f"{number}@{offset}".encode() for offset in range(start, end)],
    )  # fmt: skip


def _naive(times: Times) -> list[bytes]:
    """Return all records in the order the design says: effective time, topic, partition, offset."""
    entries = []
    for number, column in enumerate(times):
        sort = _channel(number).sort
        for offset, effective in enumerate(accumulate(column, max)):
            entries.append((effective, *sort, offset, f"{number}@{offset}".encode()))
    return [entry[-1] for entry in sorted(entries)]


def _awaited(_: Channel) -> bool:
    return True


def _drain(merge: Merge, fill: Callable[[], bool], awaited: Callable[[Channel], bool]) -> list[Group]:
    groups = []
    while True:
        group = merge.cut(awaited)
        if group is not None:
            groups.append(group)
        elif not fill():
            return groups


def _filler(merge: Merge, times: Times, sizes: list[int], choices: list[int]) -> Callable[[], bool]:
    """Return a function that adds some of some channel's records, as the schedule says, until all are there."""
    at = [0] * len(times)
    step = 0

    def fill() -> bool:
        nonlocal step
        left = [number for number, column in enumerate(times) if not merge.channels[number].done]
        if not left:
            return False
        number = left[choices[step % len(choices)] % len(left)]
        size = sizes[step % len(sizes)]
        step += 1
        end = min(at[number] + size, len(times[number]))
        if end > at[number]:
            merge.channels[number].add_batch(_batch(number, times[number], at[number], end))
        at[number] = end
        merge.channels[number].done = end == len(times[number])
        return True

    return fill


@settings(max_examples=150)
@given(
    channels_of_times,
    chunks,
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(1, 9),
    st.sampled_from([1, 2, 64]),
)
def test_in_a_replay_the_order_is_the_naive_one_however_records_arrive(
    times: Times, sizes: list[int], choices: list[int], records_max: int, share: int
) -> None:
    """I11: fill schedule, batch size, length of groups and how far is looked for one are not seen in the order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headwater.merge.merge.SHARE_MIN", share)
        _in_a_replay(times, sizes, choices, records_max)


def test_channels_of_one_sort_stay_in_their_order() -> None:
    """A stream that is joined with itself has two channels of one origin."""
    merge = Merge([_channel(0), _channel(0)], records_max=1)
    merge.channels[1].name = "b/0 again"
    for channel in merge.channels:
        channel.add_batch(_batch(0, [1] * 200 + [2], 0, 201))
        channel.done = True
    groups = _drain(merge, lambda: False, _awaited)
    found = [
        channel
        for g in groups
        for channel in ([g.channels] * len(g) if isinstance(g.channels, int) else g.channels)
    ]
    assert found == [0] * 200 + [1] * 200 + [0, 1]


def _in_a_replay(times: Times, sizes: list[int], choices: list[int], records_max: int) -> None:
    merge = Merge([_channel(number) for number in range(len(times))], records_max=records_max)
    groups = _drain(merge, _filler(merge, times, sizes, choices), _awaited)
    assert [value for group in groups for value in group.piece.values] == _naive(times)
    assert all(len(group) <= records_max for group in groups)
    assert merge.waiting() == 0


@settings(max_examples=150)
@given(
    channels_of_times,
    chunks,
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(1, 9),
    st.sets(st.integers(0, 3)),
)
def test_live_each_channel_keeps_its_order_and_recorded_cuts_repeat_the_groups(
    times: Times, sizes: list[int], choices: list[int], records_max: int, awaited: set[int]
) -> None:
    """I10, I12: groups are what has arrived; taken again by their cuts, from channels filled at once, they are the same."""
    merge = Merge([_channel(number) for number in range(len(times))], records_max=records_max)
    live = _drain(merge, _filler(merge, times, sizes, choices), lambda channel: channel.input in awaited)
    values = [value for group in live for value in group.piece.values]
    for number, column in enumerate(times):
        mine = [value for value in values if value is not None and value.startswith(f"{number}@".encode())]
        assert mine == [f"{number}@{offset}".encode() for offset in range(len(column))]

    again = Merge([_channel(number) for number in range(len(times))], records_max=records_max)
    for number, column in enumerate(times):
        if column:
            again.channels[number].add_batch(_batch(number, column, 0, len(column)))
    for group in live:
        repeated = again.cut_at(group.cut)
        assert repeated is not None
        assert list(repeated.piece.values) == list(group.piece.values)
        assert list(repeated.piece.times) == list(group.piece.times)
        assert repeated.cut == group.cut
    assert again.waiting() == 0


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=30), chunks)
def test_effective_time_is_the_running_maximum_over_all_batches(times: list[int], sizes: list[int]) -> None:
    channel = _channel(0)
    at = step = 0
    while at < len(times):
        end = min(at + sizes[step % len(sizes)], len(times))
        channel.add_batch(_batch(0, times, at, end))
        at, step = end, step + 1
    taken = join(list(channel.front(channel.size)))
    assert list(taken.times) == list(accumulate(times, max))
    assert list(taken.timestamps) == times
    assert channel.clock == channel.progress == max(times)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.lists(st.integers(1, 7), min_size=1))
def test_a_channel_gives_each_record_once_in_order_and_knows_where_it_is(
    times: list[int], sizes: list[int]
) -> None:
    """I3: the position is the next record's, and the clock at it gives the same effective times again."""
    channel = _channel(0)
    for at in range(0, len(times), 4):
        channel.add_batch(_batch(0, times, at, min(at + 4, len(times))))
    effective = list(accumulate(times, max))
    taken: list[int] = []
    step = 0
    while channel.size:
        assert channel.position == channel.first_offset() == len(taken)
        assert channel.clock_at_position() == effective[len(taken)]
        piece = channel.take(sizes[step % len(sizes)])
        taken.extend(piece.offsets)
        step += 1
    assert taken == list(range(len(times)))
    assert channel.position == len(times)
    assert channel.first_offset() is None


def test_a_channel_that_is_waited_for_holds_back_what_it_could_still_precede() -> None:
    """Equal times wait too: a record of an earlier topic may still come with the same time."""
    merge = Merge([_channel(0), _channel(1)])
    merge.channels[0].add_batch(_batch(0, [1, 5, 9], 0, 3))
    assert merge.cut(_awaited) is None
    merge.channels[1].add_batch(_batch(1, [5], 0, 1))
    group = merge.cut(_awaited)
    assert group is not None
    assert list(group.piece.values) == [b"0@0"]
    assert group.cut == {"b/0": 1, "a/1": 0}
    assert merge.cut(_awaited) is None
    merge.channels[1].done = True
    group = merge.cut(_awaited)
    assert group is not None
    assert list(group.piece.values) == [b"1@0", b"0@1"]  # topic a before topic b


def test_a_mark_lets_others_go_without_a_record() -> None:
    merge = Merge([_channel(0), _channel(1)])
    merge.channels[0].add_batch(_batch(0, [1, 5], 0, 2))
    merge.channels[1].progress = 5
    group = merge.cut(_awaited)
    assert group is not None
    assert list(group.piece.values) == [b"0@0"]


def test_a_cut_whose_records_are_not_here_yet_is_waited_for() -> None:
    merge = Merge([_channel(0), _channel(1)])
    merge.channels[0].add_batch(_batch(0, [1, 2], 0, 2))
    cut = {"b/0": 2, "a/1": 1}
    assert merge.cut_at(cut) is None
    assert merge.waiting() == 2
    merge.channels[1].add_batch(_batch(1, [0], 0, 1))
    group = merge.cut_at(cut)
    assert group is not None
    assert list(group.piece.values) == [b"1@0", b"0@0", b"0@1"]


def test_holes_at_the_end_move_the_position() -> None:
    """I3: a range without records is passed once all before it has been taken."""
    channel = _channel(0)
    channel.add_batch(Batch("topic", 0, 0, 5, [0, 1], [1, 2], [None, None], [b"a", b"b"]))
    assert channel.position == 0
    channel.take(2)
    assert channel.position == 5
    channel.add_batch(Batch.empty("topic", 0, 5, 9))
    assert channel.position == 9


def test_nothing_is_before_never() -> None:
    merge = Merge([_channel(0), _channel(1)])
    merge.channels[0].add_batch(_batch(0, [NEVER + 1], 0, 1))
    assert merge.channels[1].progress == NEVER
    assert merge.cut(_awaited) is None


@pytest.mark.parametrize("with_headers", [True, False])
def test_pieces_with_and_without_headers_and_causes_join(with_headers: bool) -> None:
    headers = [(("h", b"1"),)] if with_headers else None
    first = Piece([1], [1], [b"k"], [b"a"], headers, [4], [0], ([7], [0], [4], [0]))
    second = Piece([2], [2], [None], [None], None, [6], [1], ([7], [0], [6], [2]))
    whole = join([first, second])
    assert whole.headers == ([(("h", b"1"),), ()] if with_headers else None)
    assert whole.causes is not None
    assert [list(column) for column in whole.causes] == [[7, 7], [0, 0], [4, 6], [0, 2]]
    assert list(whole.part(1, 2).offsets) == [6]
