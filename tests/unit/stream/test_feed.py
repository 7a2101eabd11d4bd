"""A feed: what an agent is handed, when it has finished it, and what is redone when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import AgentStoppedError
from headwater.stream.feed import Feed
from headwater.stream.frame import Frame, Rows, Work


def _work(first: int, values: Sequence[Any], times: Sequence[int] | None, rows: Rows) -> Work:
    count = len(values)
    stamps = list(range(first, first + count)) if times is None else list(times)
    rows.task_times.extend(stamps)
    rows.timestamps.extend(stamps)
    rows.keys.extend([b"k"] * count)
    rows.cause_offsets.extend(range(first, first + count))
    return Work(
        range(first, first + count), list(values), [b"k"] * count, [b"v"] * count, stamps,
        list(range(first, first + count)), None, 0, [("t", 0)], times=stamps,
    )  # fmt: skip


class _Agent:
    """A feed, and an asyncio task that iterates it and notes what it gets."""

    def __init__(self) -> None:
        self.rows = Rows((0, 0))
        self.frame = Frame("agent", self.rows)
        self.feed = Feed(self.frame)
        self.got: list[Any] = []
        self.next_row = 0
        self.fail_at: Any = object()

    def put(self, values: Sequence[Any], times: Sequence[int] | None = None) -> None:
        self.feed.put(_work(self.next_row, values, times, self.rows))
        self.next_row += len(values)

    def start(self, iteration: Callable[[Feed], AsyncIterator[Any]]) -> asyncio.Task[None]:
        async def run() -> None:
            async for value in iteration(self.feed):
                self.got.append(value)
                if value == self.fail_at or (isinstance(value, list) and self.fail_at in value):
                    raise ValueError(value)

        return asyncio.get_running_loop().create_task(run())

    async def rest(self) -> None:
        await self.feed.turn(5)
        assert self.feed.parked


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _offsets(works: list[Work]) -> list[int]:
    return [offset for work in works for offset in work.offsets]


async def test_values_come_one_by_one_and_parking_says_that_all_are_done() -> None:
    agent = _Agent()
    task = agent.start(Feed.values)
    await agent.rest()
    agent.put(["a", "b"])
    assert not agent.feed.parked
    agent.put(["c"])
    await agent.rest()
    assert agent.got == ["a", "b", "c"]
    assert agent.feed.unfinished() == ([], [])
    await _ended(task)


async def test_a_failure_names_the_record_in_hand_and_keeps_what_follows() -> None:
    agent = _Agent()
    agent.fail_at = "b"
    agent.put(["a", "b", "c"])
    agent.put(["d"])
    task = agent.start(Feed.values)
    await asyncio.wait([task])
    assert isinstance(task.exception(), ValueError)
    failed, rest = agent.feed.unfinished()
    assert (_offsets(failed), _offsets(rest)) == ([1], [2, 3])


async def test_take_hands_out_full_lists_and_holds_the_rest() -> None:
    agent = _Agent()
    task = agent.start(lambda feed: feed.lists(3, None))
    agent.put(list(range(7)))
    agent.put([7])
    await agent.rest()
    assert agent.got == [[0, 1, 2], [3, 4, 5]]
    assert _offsets(agent.feed.held) == [6, 7]
    agent.put([8])
    await agent.rest()
    assert agent.got[2:] == [[6, 7, 8]]
    assert agent.feed.held == []
    await _ended(task)


async def test_take_within_counts_event_time() -> None:
    """A list ends where event time has moved on by more than `within` since its first record."""
    agent = _Agent()
    task = agent.start(lambda feed: feed.lists(100, 10))
    agent.put(["a", "b", "c", "d"], [0, 10, 11, 40])
    await agent.rest()
    assert agent.got == [["a", "b"], ["c"]]
    assert _offsets(agent.feed.held) == [3]
    await _ended(task)


async def test_flush_hands_out_what_is_held_once() -> None:
    agent = _Agent()
    task = agent.start(lambda feed: feed.lists(3, 1_000))
    agent.put([0, 1])
    await agent.rest()
    agent.feed.flush()
    await agent.rest()
    assert agent.got == [[0, 1]]
    agent.feed.flush()
    await agent.rest()
    assert agent.got == [[0, 1]]
    agent.put([2, 3, 4])
    await agent.rest()
    assert agent.got == [[0, 1], [2, 3, 4]]
    await _ended(task)


async def test_a_list_that_fails_is_in_hand_whole_and_held_records_follow() -> None:
    agent = _Agent()
    agent.fail_at = 4
    agent.put([0, 1])
    agent.put([2, 3, 4, 5, 6])
    agent.put([7])
    task = agent.start(lambda feed: feed.lists(3, None))
    await asyncio.wait([task])
    failed, rest = agent.feed.unfinished()
    assert (_offsets(failed), _offsets(rest)) == ([3, 4, 5], [6, 7])


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(0, 15)),
)
def test_lists_hold_each_record_once_whatever_the_works(
    batches: list[list[int]], size: int, within: int | None
) -> None:
    """I1, I11: cut as the records' count and times say, not as they arrive."""
    flat = [time for batch in batches for time in batch]
    times = [max(flat[: at + 1]) for at in range(len(flat))]
    expected: list[list[int]] = []
    now: list[int] = []
    for at, time in enumerate(times):
        if now and within is not None and time - times[now[0]] > within:
            expected.append(now)
            now = []
        now.append(at)
        if len(now) == size:
            expected.append(now)
            now = []

    async def run() -> tuple[list[list[int]], list[int]]:
        agent = _Agent()
        task = agent.start(lambda feed: feed.lists(size, within))
        at = 0
        for batch in batches:
            agent.put(range(at, at + len(batch)), times[at : at + len(batch)])
            at += len(batch)
            await agent.rest()
        held = _offsets(agent.feed.held)
        await _ended(task)
        return agent.got, held

    assert asyncio.run(run()) == (expected, now)


@given(st.lists(st.integers(0, 3), max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_a_slice_of_a_work_is_its_columns_sliced(inputs: list[int], start: int, end: int) -> None:
    count = len(inputs)
    work = Work(
        list(range(10, 10 + count)), [f"v{n}" for n in range(count)], [b"k"] * count, [b"r"] * count,
        list(range(count)), list(range(100, 100 + count)), [(("h", b"%d" % n),) for n in range(count)], inputs,
        [("t", n) for n in range(4)], inputs, list(range(50, 50 + count)), list(range(count)),
    )  # fmt: skip
    part = work.slice(start, end)
    chosen = list(range(count))[start:end]
    assert len(part) == len(chosen)
    for at, n in enumerate(chosen):
        assert part.rows[at] == 10 + n
        assert part.values[at] == f"v{n}"
        assert (part.offsets[at], part.places[at], part.times[at]) == (100 + n, 50 + n, n)
        assert (part.input_at(at), part.headers_at(at)) == (inputs[n], (("h", b"%d" % n),))


def test_rows_are_renumbered_with_all_that_they_say() -> None:
    """Records held over an epoch keep their cause, time and key."""
    old = Rows()
    for n in range(4):
        old.task_times.extend([n])
        old.timestamps.extend([10 + n])
        old.keys.extend([b"%d" % n])
        old.cause_topics.extend([n])
        old.cause_partitions.extend([20 + n])
        old.cause_offsets.extend([30 + n])
        old.cause_emits.extend([40 + n])
    new = Rows()
    old.copy_to(new, [1, 3])
    assert len(new) == 2
    assert [new.cause(row) for row in range(2)] == [(1, 21, 31, 41), (3, 23, 33, 43)]
    assert [(new.task_times[r], new.timestamps[r], new.keys[r]) for r in range(2)] == [
        (1, 11, b"1"),
        (3, 13, b"3"),
    ]


@pytest.mark.parametrize("single", [(7, 3), None])
def test_chance_hangs_on_agent_and_cause_alone(single: tuple[int, int] | None) -> None:
    """I11: the same row of another epoch, another row number, another draw order: the same numbers."""

    def frame(agent: str, offsets: list[int]) -> Frame:
        rows = Rows(single)
        rows.task_times.extend([0] * len(offsets))
        rows.cause_offsets.extend(offsets)
        if single is None:
            rows.cause_topics.extend([7] * len(offsets))
            rows.cause_partitions.extend([3] * len(offsets))
            rows.cause_emits.extend([0] * len(offsets))
        return Frame(agent, rows)

    def draw(frame: Frame, row: int) -> list[float]:
        frame.row = row
        return [frame.random.random() for _ in range(3)]

    first, later = frame("a", [5, 6, 7]), frame("a", [7, 5])
    drawn = [draw(first, row) for row in range(3)]
    assert draw(later, 1) == drawn[0]
    assert draw(later, 0) == drawn[2]
    assert draw(frame("b", [5]), 0) != drawn[0]
    first.row = 0
    once = first.random.random()
    first.begin_again()
    assert first.random.random() == once == drawn[0][0]


async def test_a_second_loop_goes_on_where_the_first_was_left() -> None:
    """Bounded by nothing but `break`: no record between two loops is lost (I1)."""
    agent = _Agent()
    agent.put(range(10))
    seen: list[Any] = []

    async def run() -> None:
        async for value in agent.feed.values():
            seen.append(value)
            break
        async for values in agent.feed.lists(3, None):
            seen.append(values)
            break
        async for value in agent.feed.values():
            seen.append(value)
            async for other in agent.feed.values():
                seen.append((value, other))
                break

    task = asyncio.get_running_loop().create_task(run())
    await agent.rest()
    assert seen == [0, [1, 2, 3], 4, (4, 5), 6, (6, 7), 8, (8, 9)]
    assert agent.feed.unfinished() == ([], [])
    await _ended(task)


async def test_a_list_loop_left_with_records_held_hands_them_to_the_next_loop() -> None:
    agent = _Agent()
    agent.put(range(5), [0, 1, 2, 9_000, 9_001])
    seen: list[Any] = []

    async def run() -> None:
        async for values in agent.feed.lists(10, 100):
            seen.append(values)
            break
        async for value in agent.feed.values():
            seen.append(value)

    task = asyncio.get_running_loop().create_task(run())
    await agent.rest()
    assert seen == [[0, 1, 2], 3, 4]
    await _ended(task)


async def test_two_list_loops_at_once_are_refused() -> None:
    agent = _Agent()
    agent.put(range(6))
    first, second = agent.feed.lists(2, None), agent.feed.lists(2, None)
    assert await anext(first) == [0, 1]
    assert await anext(second) == [2, 3]
    with pytest.raises(AgentStoppedError, match="another loop"):
        await anext(first)
