"""Operator: turns records into records inside a task, with state, and acts when the watermark passes. Runs no user coroutine.

Protocol, for one task
1. The engine makes an operator by its spec's factory and calls `open` once its state is there; what the operator keeps in
   memory (heaps of what is due) is rebuilt there from the state.
2. `process` is called for each record of its inlets, in merged order. `watermark` is that of the record's own source
   partition before the record: what decides whether the record is late.
3. After a record, and after a mark that moved the task's watermark, `advance` is called where that watermark is at or
   above `due`. It rises only.
4. What `process` raises undoes that record's state changes and emissions; the record goes to dead letters. Where it had
   changed a state or a table by then, the operator is made anew (`open` rebuilds its memory): so it changes what it
   keeps in memory only after it has changed a row. What `advance` raises stops the worker.
Invariant: what is emitted is a function of the records, never of groups, batches or the wall clock (I11).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.core.tumbling import Made, WorkColumns
    from headwater.stream.plan import GroupBy, Step, StreamPlan

InHand: TypeAlias = "tuple[dict[bytes, Any], dict[bytes, int], set[bytes]]"

NEVER = -(1 << 63)
"""The watermark before anything is known."""

END_OF_TIME = (1 << 63) - 1
"""The watermark after an END-OF-TIME mark: everything closes. As `due`: nothing is waited for."""

OUT = "@out:"
LATE = "@late:"
CHANGES = "@changes:"
"""Begin the names of virtual topics in plans: an operator's results, its late records, a table's changes."""


class RowsByKey(Protocol):
    """Rows by key bytes.

    A value is replaced, never changed in place: the engine undoes a failed record by putting the old objects back.
    """

    def get(self, key: bytes) -> Any:
        """Return a row's value, or None where there is none."""
        ...

    def put(self, key: bytes, value: Any) -> None:
        """Set a row; None is no value."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove a row; nothing happens where there is none."""
        ...

    def scan(self, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, Any]]:
        """Yield rows whose key begins with `prefix`, from key `start` on, in key order, with the open epoch's writes.

        Costs what it yields, not what the state holds: joins scan once a record.
        """
        ...


class State(RowsByKey, Protocol):
    """An operator's rows in one task: values of plain data (msgpack), in step with the epoch."""

    def scan_back(self, prefix: bytes, end: bytes) -> Iterator[tuple[bytes, Any]]:
        """Yield rows whose key begins with `prefix` and comes before `end`, the last one first."""
        ...

    def in_hand(self) -> InHand | None:
        """Return rows (None: gone), rows of changes, and what the epoch made: to be changed for records that don't fail.

        None where not all of it is in memory, or its keys are kept in order.
        """
        ...


class TableRows(RowsByKey, Protocol):
    """A visible table's rows in one task, by encoded key bytes; values as the table's codec has them.

    As a `State`, but `put` is a change of the record in hand (task time and cause are its), and `scan` costs the size of the
    open epoch's changes as well.
    """


class Context(Protocol):
    """What an operator has of its task."""

    partition: int
    partitions: int
    watermark: int
    """The task's watermark: as of the last `advance` or the record in hand."""

    def state(self, name: str) -> State:
        """Return one of the spec's states."""
        ...

    def table(self, name: str) -> TableRows:
        """Return one of the spec's tables (also tables that others fill, for lookups)."""
        ...

    def emit(self, key: bytes | None, value: Any, timestamp: int, watermark: int = NEVER) -> None:
        """Give a result on: to the spec's sinks, and to whoever reads `@out:NAME`.

        `watermark` travels with it and decides whether it is late there: NEVER (it is not), or the own watermark of the
        record that is passed on.
        """
        ...

    def emit_all(self, made: Made) -> None:
        """Give results on, each for the row that brought it about; none is late anywhere."""
        ...

    def late(self) -> None:
        """Count the record in hand as late and give it, as it came, to whoever reads `@late:NAME`."""
        ...


class Operator(ABC):
    """One operator in one task."""

    takes_many = False
    """Whether `take` may do something; known once it is open."""

    due: int = END_OF_TIME
    """The least watermark at which there is something to do; kept by the operator, END_OF_TIME where nothing waits."""

    @abstractmethod
    def open(self, context: Context) -> None:
        """Take the context, and rebuild from its states what is kept in memory."""

    @abstractmethod
    def process(self, inlet: int, key: bytes | None, value: Any, timestamp: int, watermark: int) -> None:
        """Take one record: its inlet's number, key bytes, decoded value (None: tombstone), event time, own watermark."""

    def take(self, columns: WorkColumns, at: int) -> int:
        """Take records of the only inlet from number `at` on, as `process` and `advance` would, as far as they are usual ones.

        Return the number of the first that is left untouched, for `process`.
        """
        return at

    def advance(self, watermark: int) -> None:  # noqa: B027  (most operators have nothing that waits)
        """Do what is due at a task's watermark."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """A topic people named that an operator's results go to.

    They run through `steps`; `key` gives them another key than the result's, taken from the value behind the steps.
    """

    topic: str
    steps: tuple[Step, ...] = ()
    key: GroupBy | None = None


@dataclass(frozen=True, slots=True)
class OperatorSpec:
    """A declared operator node.

    `states`: names of its internal tables (each has a changelog `<name>-<state>`, history None). `tables`: names of
    declared tables it fills or reads. `value_type`: of what it emits; None is any JSON. `hold_ms`: how far behind the
    task's watermark the timestamps of its results may lie; marks on `@out:NAME` are behind by as much.
    """

    name: str
    inlets: tuple[StreamPlan, ...]
    make: Callable[[], Operator]
    states: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    sinks: tuple[Outlet, ...] = ()
    value_type: Any = None
    hold_ms: int = 0
