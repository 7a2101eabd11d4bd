"""Where an agent instance is: the rows of the open epoch, the row in hand, and what it has staged so far.

A *row* is one record in a task's open epoch, numbered in the order the task took it. Changes and sends carry their
row, so a savepoint costs nothing: rolling back a record means dropping what carries its row.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from headwater.core import hot
from headwater.core.errors import AgentStoppedError
from headwater.core.hot import Send
from headwater.stream.column import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import ContextVar

    from headwater.core.batch import Headers


class Rows:
    """The records a task has taken in the open epoch: columns that changes and sends refer to by row.

    `cause_*` is the record's origin: itself for a record of a source topic, the original record for one that came
    through a repartition topic (`cause_topics` are numbers of the generation's name table). Where a task has one source
    topic and nothing else, topic and partition are the same for all: `single` holds them, and the lists of topics,
    partitions and emits stay empty. `task_times` is the task's clock when the row was in hand; `keys` and `timestamps` are
    the record's own. `watermarks` are those of the records' own source partitions before them, `task_watermarks` the
    task's after each; both are empty where nobody asks. A row may stand for a mark that moved the task's watermark: it has
    no key.
    """

    __slots__ = (
        "cause_emits",
        "cause_offsets",
        "cause_partitions",
        "cause_topics",
        "keys",
        "single",
        "task_times",
        "task_watermarks",
        "timestamps",
        "watermarks",
    )

    def __init__(self, single: tuple[int, int] | None = None) -> None:
        """Begin empty; `single` is (topic number, partition) of a task with one source topic."""
        self.single = single
        self.task_times = Column()
        self.timestamps = Column()
        self.keys = Column()
        self.cause_topics = Column()
        self.cause_partitions = Column()
        self.cause_offsets = Column()
        self.cause_emits = Column()
        self.watermarks = Column()
        self.task_watermarks = Column()

    def __len__(self) -> int:
        return len(self.task_times)

    def cause(self, row: int) -> tuple[int, int, int, int]:
        """Return a row's origin: topic number, partition, offset, emit index."""
        if self.single is not None:
            return (*self.single, self.cause_offsets[row], 0)
        return (
            self.cause_topics[row],
            self.cause_partitions[row],
            self.cause_offsets[row],
            self.cause_emits[row],
        )

    def copy_to(self, other: Rows, rows: Sequence[int]) -> None:
        """Append some rows to another epoch's."""
        names = ["task_times", "timestamps", "keys", "cause_offsets"]
        if len(self.watermarks):
            names += ["watermarks", "task_watermarks"]
        for name in names:
            source = getattr(self, name)
            getattr(other, name).extend([source[row] for row in rows])
        if self.single is None:
            for name in ("cause_topics", "cause_partitions", "cause_emits"):
                source = getattr(self, name)
                getattr(other, name).extend([source[row] for row in rows])


class Work:
    """Consecutive rows handed to one agent: decoded values and what an event needs, in the task's order.

    `rows` are row numbers, rising; `topics` maps the entries of `inputs` to (topic, partition). `places` count an
    agent's progress in its channel: the offset, or the emit sequence where the input is a repartition topic; `times` are
    effective times; `cut` is that of the group the records came in. `watermarks` are those of the records' own source
    partitions before them, `task_watermarks` the task's after each, which rise; both are empty where nobody asks.
    """

    __slots__ = (
        "channels",
        "cut",
        "headers",
        "inputs",
        "keys",
        "offsets",
        "places",
        "raw_values",
        "rows",
        "task_watermarks",
        "times",
        "timestamps",
        "topics",
        "values",
        "watermarks",
    )

    def __init__(
        self,
        rows: Sequence[int],
        values: Sequence[Any],
        keys: Sequence[bytes | None],
        raw_values: Sequence[bytes | None],
        timestamps: Sequence[int],
        offsets: Sequence[int],
        headers: Sequence[Headers] | None,
        inputs: Sequence[int] | int,
        topics: Sequence[tuple[str, int]],
        channels: Sequence[int] | int = 0,
        places: Sequence[int] | None = None,
        times: Sequence[int] = (),
        cut: dict[str, int] | None = None,
        watermarks: Sequence[int] = (),
        task_watermarks: Sequence[int] = (),
    ) -> None:
        """Take equally long columns."""
        self.rows = rows
        self.values = values
        self.keys = keys
        self.raw_values = raw_values
        self.timestamps = timestamps
        self.offsets = offsets
        self.headers = headers
        self.inputs = inputs
        self.topics = topics
        self.channels = channels
        self.places = offsets if places is None else places
        self.times = times if len(times) else timestamps
        self.cut = cut
        self.watermarks = watermarks
        self.task_watermarks = task_watermarks

    def __len__(self) -> int:
        return len(self.rows)

    def input_at(self, index: int) -> int:
        """Return the number of the input that an entry came from."""
        return self.inputs if isinstance(self.inputs, int) else self.inputs[index]

    def channel_at(self, index: int) -> int:
        """Return the number of the channel that an entry came from."""
        return self.channels if isinstance(self.channels, int) else self.channels[index]

    def headers_at(self, index: int) -> Headers:
        """Return an entry's headers."""
        return () if self.headers is None else self.headers[index] or ()

    def slice(self, start: int, end: int | None = None) -> Work:
        """Return entries [start, end) as a Work of their own."""
        part = slice(start, end)
        return Work(
            self.rows[part], self.values[part], self.keys[part], self.raw_values[part], self.timestamps[part],
            self.offsets[part], None if self.headers is None else self.headers[part],
            self.inputs if isinstance(self.inputs, int) else self.inputs[part], self.topics,
            self.channels if isinstance(self.channels, int) else self.channels[part],
            None if self.places is self.offsets else self.places[part], self.times[part], self.cut,
            self.watermarks[part], self.task_watermarks[part],
        )  # fmt: skip

    def pick(self, keep: Sequence[int]) -> Work:
        """Return the entries at the given indexes as a Work of their own."""

        def column(values: Sequence[Any]) -> list[Any]:
            return [values[at] for at in keep]

        return Work(
            column(self.rows), column(self.values), column(self.keys), column(self.raw_values),
            column(self.timestamps), column(self.offsets),
            None if self.headers is None else column(self.headers),
            self.inputs if isinstance(self.inputs, int) else column(self.inputs), self.topics,
            self.channels if isinstance(self.channels, int) else column(self.channels), column(self.places),
            column(self.times), self.cut, column(self.watermarks) if len(self.watermarks) else (),
            column(self.task_watermarks) if len(self.task_watermarks) else (),
        )  # fmt: skip


class Frame(hot.HotFrame):
    """One agent instance in one task: set as `CURRENT` while its code runs.

    `row` is the row in hand, found in `work`. `parts` are the table parts the agent may touch, by table number; while it
    holds no record the frame is *closed* and they are out of reach for writing: what code that goes on in the background
    would do then belongs to no record, and might fall between what the log takes and what the store takes.
    """

    __slots__ = (
        "_kept",
        "_random",
        "_random_row",
        "agent",
        "is_open",
        "is_retired",
        "message_bytes_max",
        "promoted",
        "rows",
        "sends",
        "touch",
        "work",
    )

    def __init__(
        self,
        agent: str,
        rows: Rows,
        *,
        promoted: bool = True,
        message_bytes_max: int = 4 << 20,
        touch: Callable[[Any], Any] | None = None,
    ) -> None:
        """Begin before the first row. `touch` is asked for a table that is not among `parts`."""
        self.agent = agent
        self.rows = rows
        self.promoted = promoted
        self.message_bytes_max = message_bytes_max
        self.touch = touch
        self.row = -1
        self.work: Work | None = None
        # Table parts; not typed here, because stream/ and table/ don't know each other.
        self.parts = {}
        self.sends: list[Send] = []
        self.is_open = True
        self.is_retired = False
        self._kept: dict[int, Any] = {}
        self._random: Random | None = None
        self._random_row = -1

    @property
    def random(self) -> Random:
        """Chance for the record in hand: seeded by agent and origin, so a retry and a replay draw the same."""
        if self._random is None or self._random_row != self.row:
            rows, row = self.rows, self.row
            cause = rows.cause(row) if 0 <= row < len(rows) else ()
            self._random = Random(f"{self.agent}:{cause}")
            self._random_row = row
        return self._random

    def seed(self, random: Random) -> None:
        """Have the row in hand draw from this."""
        self._random, self._random_row = random, self.row

    def begin_again(self) -> None:
        """Forget what a failed instance drew."""
        self._random = None

    @property
    def granted(self) -> dict[int, Any]:
        """The table parts of the agent, whether it holds a record or not."""
        return self.parts if self.is_open else self._kept

    def open(self) -> None:
        """The agent holds a record: it may write."""
        if not self.is_open and not self.is_retired:
            self.parts, self.is_open = self._kept, True

    def close(self) -> None:
        """The agent holds no record."""
        if self.is_open:
            self._kept, self.parts, self.is_open = self.parts, {}, False

    def retire(self) -> Frame:
        """Close for good, and return the frame of the instance that follows, with all that was staged."""
        self.close()
        self.is_retired = True
        fresh = Frame(
            self.agent,
            self.rows,
            promoted=self.promoted,
            message_bytes_max=self.message_bytes_max,
            touch=self.touch,
        )
        fresh.parts, fresh.sends = self._kept, self.sends
        fresh.close()
        return fresh

    def stage(self, send: Send) -> None:
        """Add a send to the open epoch. Raises AgentStoppedError where the agent holds no record."""
        if not self.is_open:
            raise AgentStoppedError(
                f"agent {self.agent!r} sends to {send.topic!r} while it holds no record: ahead of its first one, after its "
                "instance was ended, or in the background; send while a record is in hand, or from an app.task"
            )
        self.sends.append(send)


CURRENT: ContextVar[Frame | None] = hot.CURRENT
"""The frame of the agent whose code is running, or None outside agents."""


__all__ = ["CURRENT", "Frame", "Rows", "Send", "Work"]
