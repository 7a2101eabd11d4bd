"""Runs one operator in one task: record by record, without an event loop; and gives it its task.

Protocol of a record
1. Savepoint: the states' undo list is emptied; what tables and sends hold for rows below this one stays.
2. `process` for each inlet that reads the record's topic. What it raises undoes all it did for the record, and the record
   goes to dead letters. There is no second try: an operator gives the same each time.
3. `advance` where the task's watermark after the record has reached what the operator waits for. It is asked for after
   records of other readers of the task too, since they move the watermark as well.
Invariant: what an operator does hangs on the records and their order alone, never on where groups and epochs end (I11).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NoReturn

from headwater.core import hot
from headwater.core.errors import HeadwaterError, MisuseError, RecordFailedError, ValueRefusedError
from headwater.core.keys import encode_key, key_text
from headwater.core.tumbling import WorkColumns
from headwater.engine.runner import DeadLetter
from headwater.stream.frame import CURRENT, Send
from headwater.stream.operator import NEVER
from headwater.table.part import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from headwater.core.tumbling import Made
    from headwater.core.values import Codec
    from headwater.engine.runner import AgentLike
    from headwater.stream.frame import Frame, Work
    from headwater.stream.operator import Operator, State, TableRows
    from headwater.stream.plan import GroupBy, Step
    from headwater.table.part import TablePart
    from headwater.table.state import StatePart, Undo


MANY = 8
"""From how many records on an operator is asked to take them by itself."""

Route = tuple[int, "tuple[Step, ...]"]
"""An inlet's number, and what its plan does with a value first."""


class IdleFeed:
    """Stands where an agent's feed would: an operator holds nothing back."""

    __slots__ = ()
    held: tuple[Any, ...] = ()
    within_ms: int | None = None
    parked = True


class OperatorAgent:
    """What task and dead letters need to know of an operator, as of an agent."""

    __slots__ = ("dead_letters", "name")
    retries = 0
    timeout_s: float | None = None
    split = False

    def __init__(self, name: str, *, dead_letters: bool) -> None:
        """Take the name and the app's rule."""
        self.name = name
        self.dead_letters = dead_letters


class Exit:
    """One topic that an operator's results go to."""

    __slots__ = ("codec", "key", "steps", "topic")

    def __init__(
        self,
        topic: str,
        codec: Codec,
        steps: tuple[Step, ...] = (),
        key: GroupBy | None = None,
    ) -> None:
        """Take the topic as sends name it, how a value is written there, and what is done with it before."""
        self.topic = topic
        self.codec = codec
        self.steps = steps
        self.key = key


class Rows:
    """A visible table's rows in one task, as an operator has them (`stream.operator.TableRows`)."""

    __slots__ = ("_frame", "_part")

    def __init__(self, part: TablePart, frame: Frame) -> None:
        """Take the part, and the frame whose row changes belong to."""
        self._part = part
        self._frame = frame

    def get(self, key: bytes) -> Any:
        """Return a row's value, or None where there is none."""
        value = self._part.get(key if self._part.windowed else key_text(key))
        return None if value is MISSING else value

    def put(self, key: bytes, value: Any) -> None:
        """Set a row."""
        self._part.put(key, value, self._frame)

    def delete(self, key: bytes) -> None:
        """Remove a row; nothing happens where there is none."""
        self._part.delete(key, self._frame)

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """Yield rows whose key begins with `prefix`, from key `start` on, in key order, with the open epoch's writes."""
        decode = self._part.codec.decode
        for key, data in self._part.raw_items(prefix, start):
            yield key, decode(data)


class OperatorContext:
    """An operator's task, as it sees it (`stream.operator.Context`)."""

    def __init__(
        self,
        name: str,
        frame: Frame,
        *,
        partition: int,
        partitions: int,
        states: Mapping[str, StatePart],
        tables: Mapping[str, TablePart],
        exits: Sequence[Exit],
        late_topic: str,
    ) -> None:
        """Take the operator's rows and where its results go."""
        self.partition = partition
        self.partitions = partitions
        self.watermark = NEVER
        self._name = name
        self._frame = frame
        self._states = states
        self._tables = tables
        self._exits = tuple(exits)
        self._late_topic = late_topic
        self._only = exits[0] if len(exits) == 1 and not exits[0].steps and exits[0].key is None else None

    def state(self, name: str) -> State:
        """Return one of the spec's states."""
        try:
            return self._states[name]
        except KeyError:
            raise MisuseError(f"operator {self._name!r} declares no state {name!r}") from None

    def table(self, name: str) -> TableRows:
        """Return one of the spec's tables."""
        try:
            return Rows(self._tables[name], self._frame)
        except KeyError:
            raise MisuseError(f"operator {self._name!r} declares no table {name!r}") from None

    def emit(self, key: bytes | None, value: Any, timestamp: int, watermark: int = NEVER) -> None:
        """Give a result on."""
        if self._only is not None:
            self._give(self._only, key, value, timestamp, watermark)
            return
        for way in self._exits:
            if way.steps:
                for changed in stepped(way.steps, value):
                    self._give(way, key, changed, timestamp, watermark)
            else:
                self._give(way, key, value, timestamp, watermark)

    def _give(self, way: Exit, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        frame = self._frame
        data = None if value is None else way.codec.encode(value)
        if way.key is not None:
            key = encode_key(way.key.key_of(value))
        if (0 if data is None else len(data)) + (0 if key is None else len(key)) > frame.message_bytes_max:
            self._refuse(way, data or b"")
        frame.sends.append(Send(frame.row, way.topic, None, timestamp, key, data, (), watermark))

    def _refuse(self, way: Exit, data: bytes) -> NoReturn:
        raise ValueRefusedError(
            f"a result of {self._name!r} for topic {way.topic!r} has {len(data):,} bytes, more than "
            f"message_bytes_max={self._frame.message_bytes_max:,}; keep less, or raise the limit in App(message_bytes_max=…)"
        )

    def emit_all(self, made: Made) -> None:
        """Give results on."""
        frame, way = self._frame, self._only
        if way is None:
            for frame.row, key, value, timestamp in zip(*made, strict=True):
                self.emit(key, value, timestamp)
            return
        values: list[bytes | None] = list(way.codec.encode_all(made.values))
        staged = hot.stage(
            frame.sends, way.topic, made.rows, made.keys, values, made.times, NEVER, frame.message_bytes_max
        )
        if staged < len(values):
            self._refuse(way, values[staged] or b"")

    def late(self) -> None:
        """Count the record in hand as late and give it on as it came."""
        # Of a table that an agent writes, the agent's record: once, however often it writes there.
        agent = CURRENT.get()
        for send in reversed(agent.sends if agent is not None else ()):
            if send.row != agent.row:  # type: ignore[union-attr]
                break
            if send.topic == self._late_topic:
                return
        frame = agent or self._frame
        work = frame.work
        assert work is not None
        at = bisect_left(work.rows, frame.row)
        frame.sends.append(
            Send(
                frame.row, self._late_topic, None, work.timestamps[at], work.keys[at], work.raw_values[at],
                work.headers_at(at), NEVER,
            )
        )  # fmt: skip


class OperatorRunner:
    """One operator of one task."""

    def __init__(
        self,
        agent: AgentLike,
        frame: Frame,
        context: OperatorContext,
        make: Callable[[], Operator],
        routes: Mapping[int, tuple[Route, ...]],
        *,
        states: Sequence[StatePart],
        tables: Sequence[TablePart],
        dead: Callable[[DeadLetter], None],
        keeps: bool = False,
    ) -> None:
        """`routes` has the inlets of each input that is read. `keeps`: it has none, and keeps a table that agents write."""
        self.agent = agent
        self.frame = frame
        self.feed = IdleFeed()
        self.context = context
        self._make = make
        self._routes = routes
        self._states = tuple(states)
        self._tables = tuple(tables)
        self._undo: Undo = []
        for state in self._states:
            state.attach(frame, self._undo)
        self._dead = dead
        self.keeps = keeps
        self.operator: Operator

    def begin(self, watermark: int) -> None:
        """Make the operator, at the watermark that its task had reached."""
        self.context.watermark = watermark
        self.operator = self._open()

    def _open(self) -> Operator:
        operator = self._make()
        operator.open(self.context)
        if self.keeps:
            for part in self._tables:
                part.keeper = operator
        return operator

    @property
    def due(self) -> int:
        """The least watermark at which there is something to do."""
        return self.operator.due

    async def advance(self, row: int, watermark: int) -> None:
        """Do what a watermark makes due that came with no record of the group."""
        frame = self.frame
        token = CURRENT.set(frame)
        try:
            self._undo.clear()
            frame.work, frame.row = None, row
            self.context.watermark = watermark
            self._advance(watermark)
        finally:
            CURRENT.reset(token)

    async def stop(self) -> None:
        """Do nothing: no code of an operator runs by itself."""

    def run(self, every: Work, mine: Work) -> None:
        """Take all records of a group, `mine` of which are for this operator; the others move the watermark."""
        owned, task = every.watermarks, every.task_watermarks
        frame, context = self.frame, self.context
        token = CURRENT.set(frame)
        floors = [part.count for part in self._tables]
        try:
            if mine is every:
                self._run_all(mine, owned, task, floors)
            elif len(mine) or task[-1] >= self.operator.due:
                self._run_some(every, mine, owned, task, floors)
            context.watermark = task[-1]
        finally:
            CURRENT.reset(token)

    def _run_all(self, work: Work, owned: Sequence[int], task: Sequence[int], floors: list[int]) -> None:
        frame, context, undo = self.frame, self.context, self._undo
        frame.work = work
        inputs = work.inputs
        routes = self._routes.get(inputs, ()) if isinstance(inputs, int) else ()
        if len(routes) != 1 or routes[0][1]:
            for at in range(len(work)):
                self._one(work, at, owned[at], floors)
                context.watermark = task[at]
                if task[at] >= self.operator.due:
                    self._advance(task[at])
            return
        inlet = routes[0][0]
        operator = self.operator
        if operator.takes_many and len(work) >= MANY:
            self._run_many(work, owned, task, floors)
            return
        process = operator.process
        columns = zip(work.rows, work.keys, work.values, work.timestamps, owned, task, strict=True)
        for row, key, value, timestamp, own, watermark in columns:
            frame.row = row
            if undo:
                undo.clear()
            try:
                process(inlet, key, value, timestamp, own)
            except Exception as error:
                self._give_up(work, bisect_left(work.rows, row), error, floors)
                operator = self.operator
                process = operator.process
            context.watermark = watermark
            if watermark >= operator.due:
                self._advance(watermark)

    def _run_many(self, work: Work, owned: Sequence[int], task: Sequence[int], floors: list[int]) -> None:
        """Let the operator take what it can by itself, and hand it the others one by one."""
        context = self.context
        columns = WorkColumns(*map(list, (work.rows, work.keys, work.values, work.timestamps, owned, task)))
        at, count = 0, len(work)
        while at < count:
            try:
                at = self.operator.take(columns, at)
            except HeadwaterError:
                raise
            except Exception as error:
                raise self._blameless(error, context.watermark) from error
            if at:
                context.watermark = columns.tasks[at - 1]
            if at < count:
                self._one(work, at, columns.owns[at], floors)
                self._moved(work, at, columns.tasks[at])
                at += 1

    def _run_some(
        self, every: Work, mine: Work, owned: Sequence[int], task: Sequence[int], floors: list[int]
    ) -> None:
        index = {row: at for at, row in enumerate(mine.rows)}
        for number, row in enumerate(every.rows):
            at = index.get(row)
            if at is not None:
                self._one(mine, at, owned[number], floors)
            self._moved(every, number, task[number])

    def cuts(self, every: Work) -> list[int]:
        """Return the entries behind which this keeper's windows may close: the agents' work is split there."""
        crosses = getattr(self.operator, "crosses", None)
        task = every.task_watermarks
        if crosses is None:
            return list(range(len(every)))
        before, found = self.context.watermark, []
        for at, watermark in enumerate(task):
            if watermark != before:
                if crosses(before, watermark):
                    found.append(at)
                before = watermark
        return found

    def run_row(self, every: Work, number: int, mine: Work, at: int | None) -> None:
        """Take one record of a group, in lock step with others: entry `at` of what is this operator's, where it is there."""
        watermark = every.task_watermarks[number]
        if at is None and watermark < self.operator.due:
            self.context.watermark = watermark
            return
        frame = self.frame
        token = CURRENT.set(frame)
        try:
            if at is not None:
                self._one(mine, at, every.watermarks[number], [part.count for part in self._tables])
            self._moved(every, number, watermark)
        finally:
            CURRENT.reset(token)

    def _one(self, work: Work, at: int, own: int, floors: list[int]) -> None:
        frame = self.frame
        frame.work, frame.row = work, work.rows[at]
        self._undo.clear()
        try:
            self._process(work, at, own)
        except Exception as error:
            self._give_up(work, at, error, floors)

    def _moved(self, every: Work, number: int, watermark: int) -> None:
        """Note the task's watermark after a record, and do what is due."""
        self.context.watermark = watermark
        if watermark >= self.operator.due:
            frame, row = self.frame, every.rows[number]
            frame.work, frame.row = every, row
            self._advance(watermark)

    def _process(self, work: Work, at: int, own: int) -> None:
        key, timestamp, process = work.keys[at], work.timestamps[at], self.operator.process
        for inlet, steps in self._routes[work.input_at(at)]:
            value = work.values[at]
            if steps and value is not None:
                for changed in stepped(steps, value):
                    process(inlet, key, changed, timestamp, own)
            else:
                process(inlet, key, value, timestamp, own)

    def _advance(self, watermark: int) -> None:
        try:
            self.operator.advance(watermark)
        except HeadwaterError:
            raise
        except Exception as error:
            raise self._blameless(error, watermark) from error

    def _blameless(self, error: Exception, watermark: int) -> RecordFailedError:
        """Return the error of a step that no one record is to blame for."""
        return RecordFailedError(
            f"{self.agent.name} fails at watermark {watermark} ({type(error).__name__}: {error}), where no one record "
            "is to blame; mend its functions and start the worker again, nothing was lost"
        )

    def _give_up(self, work: Work, at: int, error: Exception, floors: list[int]) -> None:
        """Undo what was done for a record and put it aside."""
        row = work.rows[at]
        changed = bool(self._undo)
        for state, key, value, at_row in reversed(self._undo):
            state.restore(key, value, at_row)
        self._undo.clear()
        for part, floor in zip(self._tables, floors, strict=True):
            changed |= part.count > floor
            part.rollback(row, floor)
        sends = self.frame.sends
        while sends and sends[-1].row >= row:
            sends.pop()
        if changed:
            # What it keeps in memory follows its states, and may have followed them half way.
            self.operator = self._open()
        letter = DeadLetter(work.slice(at, at + 1), self.agent.name, error, 1)
        if not self.agent.dead_letters:
            letter.refuse()
        self._dead(letter)


def stepped(steps: Sequence[Step], value: Any) -> list[Any]:
    """Return what steps make of a value: none, one, or several."""
    values = [value]
    for step in steps:
        function = step.function
        if step.kind == "filter":
            values = [value for value in values if function(value)]
        elif step.kind == "map":
            values = [function(value) for value in values]
        else:
            values = [made for value in values for made in function(value)]
    return values
