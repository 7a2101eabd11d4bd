"""A task's watermark is over when nothing can move it: no channel that is open, no record, and no mark that waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headwater.core.batch import TopicPartition
from headwater.engine.task_time import TaskTime
from headwater.merge.channel import END_OF_TIME, Channel
from headwater.merge.merge import Merge


@pytest.fixture
def channel() -> Channel:
    """Return a channel of a repartition topic."""
    return Channel("app.live.repartition.x.0/0#0", 0, 0, ("app.live.repartition.x.0", 0))


def time_of(channel: Channel, *, is_kept: bool = True) -> TaskTime:
    tp = TopicPartition("app.live.repartition.x.0", 0)
    an_input: Any = SimpleNamespace(
        channels=[channel], broadcast=False, tp=tp, caught_up=True, idle_after_s=None, is_shadow=False
    )
    return TaskTime([an_input], is_kept=is_kept)


def test_the_end_of_records_is_not_over_while_a_mark_waits(channel: Channel) -> None:
    """What closes by that mark is sent yet: who was told the end before would not read it."""
    time = time_of(channel)
    channel.add_mark(END_OF_TIME, 3)
    channel.done = True
    assert not time.is_over()
    time.settle(Merge([channel]).nothing(), None)
    assert time.watermark == END_OF_TIME
    assert time.is_over()


def test_an_open_channel_is_not_over(channel: Channel) -> None:
    time = time_of(channel)
    assert not time.is_over()


def test_where_nobody_asks_for_a_watermark_nothing_waits_for_it(channel: Channel) -> None:
    assert time_of(channel, is_kept=False).is_over()


def test_what_a_replay_sends_itself_is_waited_for_before_its_first_record() -> None:
    """Its topic was read up to its END-OF-TIME already: taken alone, that would make all that comes late."""
    there, own = Channel("t/0", 0, None, ("t", 0)), Channel("app.v2.out.t/0", 1, None, ("app.v2.out.t", 0))
    there.add_mark(END_OF_TIME, 3)
    there.done = True
    inputs: Any = [
        SimpleNamespace(
            channels=[channel], broadcast=False, tp=TopicPartition(topic, 0), caught_up=True,
            idle_after_s=None, is_shadow=channel is own,
        )
        for channel, topic in ((there, "t"), (own, "app.v2.out.t"))
    ]  # fmt: skip
    own.input = 1
    time = TaskTime(inputs, is_kept=True)
    assert not time.has_news(sends=False)
    own.done = True
    assert time.has_news(sends=False)
