"""Table: a declared table, and the door to its rows: the part in hand inside an agent, committed rows outside.

Faust's mapping machinery (FastUserDict, sensors, stores) is not on the way: a read or write inside an agent goes from
here to the part's dictionaries at once.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from faust.tables.table import Table as FaustTable
from mode import Service

from headwater.app.facts import Facts
from headwater.app.refused import refuse_members
from headwater.core.errors import AgentStoppedError, MisuseError, ReadOnlyTableError, did_you_mean
from headwater.core.hot import HotTable
from headwater.core.keys import decode_key
from headwater.core.names import check_part
from headwater.core.place import users_line
from headwater.core.values import codec_for
from headwater.core.windowed import split_window_key
from headwater.stream.frame import CURRENT
from headwater.stream.operator import CHANGES
from headwater.stream.plan import StreamPlan
from headwater.stream.window import Calendar, Hopping, Tumbling
from headwater.table.part import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.app.owner import AppLike
    from headwater.stream.frame import Frame

_frame_in_hand = CURRENT.get


class Table(HotTable, FaustTable[Any, Any]):
    """Rows by key, kept with the records that made them: same log, same epoch.

    `windowed`: rows are by key and window, their values pairs of value and whether the window is closed.
    `history`: "exact" (every change is kept), a timedelta (the last change per key and step), None (the last per key and
    epoch). `local`: rows belong to the partition that writes them, not to their key's home.
    """

    windowed = False

    def __init__(
        self,
        app: AppLike,
        *,
        name: str,
        number: int,
        default: Callable[[], Any] | None = None,
        key_type: Any = None,
        value_type: Any = None,
        partitions: int | None = None,
        history: str | timedelta | None = "exact",
        local: bool = False,
        changelog: str = "arrow",
        help: str = "",
    ) -> None:
        """Check a declaration; nothing is opened."""
        check_part(name, "a table")
        _check(name, default, partitions, history, changelog)
        # Faust's own __init__ would set up what its manager, stores and changelog need; a table here is a declaration.
        Service.__init__(self)
        self.app = app  # type: ignore[assignment]
        self.name = name
        self.default = default
        self.key_type = key_type
        self.value_type = value_type
        self.partitions = partitions
        self.help = help
        self.number = number
        self.codec = codec_for(value_type, null=True)
        self.history = history
        self.local = local
        self.changelog = changelog

    # -- the hot path is HotTable's: one look-up away from the part's dictionaries. Here is what it doesn't know.

    def _write(self, key: Any, value: Any) -> None:
        frame = _frame_in_hand()
        if frame is None:
            self._refuse_write()
        self._writable(frame).put(key, value, frame)

    def _delete(self, key: Any) -> None:
        frame = _frame_in_hand()
        if frame is None:
            self._refuse_write()
        if not self._writable(frame).delete(key, frame):
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        if self.windowed:
            return bool(self[key].windows())
        frame = _frame_in_hand()
        if frame is None:
            return self._reader().get(key, MISSING) is not MISSING
        return bool(self._part(frame).has(key))

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a row's value, or `default`: the table's own default is not used. Of a table of windows a key's windows."""
        if self.windowed:
            windows = self[key]
            return windows if windows.windows() else default
        frame = _frame_in_hand()
        if frame is None:
            return self._reader().get(key, default)
        return self._part(frame).find(key, default)

    def _read(self, key: Any) -> Any:
        frame = _frame_in_hand()
        if frame is not None:
            return self._part(frame).read(key)
        value = self._reader().get(key, MISSING)
        if value is MISSING:
            return self.__missing__(key)
        return value

    def _part(self, frame: Frame) -> Any:
        part = frame.granted.get(self.number)
        # `touch` is the engine's: it gives the part, or has the epoch redone in lock step with others that use the table.
        if part is not None:
            return part
        if frame.touch is None:
            raise AgentStoppedError(f"agent {frame.agent!r} was started without table {self.name!r}")
        return frame.touch(self)

    def _writable(self, frame: Frame) -> Any:
        part = self._part(frame)
        if not frame.is_open:
            raise ReadOnlyTableError(
                f"table {self.name!r} was changed by agent {frame.agent!r} at {users_line()}, which holds no record: ahead of "
                "its first one, after its instance was ended, or in the background; change tables while a record is in hand"
            )
        return part

    def _reader(self) -> Any:
        return self._app.table_reader(self)

    def _refuse_write(self) -> NoReturn:
        raise ReadOnlyTableError(
            f"table {self.name!r} was changed outside an agent, at {users_line()}; tables change only while an agent "
            "holds a record: send one to an agent (agent.cast(…)) that makes the change"
        )

    # -- the rest of a mapping

    def __missing__(self, key: Any) -> Any:
        if self.default is None:
            raise KeyError(key)
        return self.default()

    def __iter__(self) -> Iterator[Any]:
        for key, _ in self._pairs():
            yield key

    def __len__(self) -> int:
        return sum(1 for _ in self._rows())

    def __bool__(self) -> bool:
        return True

    def _rows(self) -> Iterator[tuple[bytes, Any]]:
        """Yield (key bytes, value) in key-byte order: this task's rows inside an agent, committed ones outside."""
        frame = _frame_in_hand()
        if frame is None:
            yield from self._reader().items()
        else:
            yield from self._part(frame).items()

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        for data, value in self._rows():
            if self.windowed:
                key, start, end = split_window_key(data)
                yield (decode_key(key, self.key_type), start, end), value[0]
            else:
                yield decode_key(data, self.key_type), value

    def keys(self) -> KeysView[Any]:
        """Return the keys in key-byte order."""
        return KeysView(self)

    def values(self) -> ValuesView[Any]:
        """Return the values in key-byte order."""
        return _Values(self)

    def items(self) -> ItemsView[Any, Any]:
        """Return (key, value) in key-byte order."""
        return _Items(self)

    def copy(self) -> dict[Any, Any]:
        """Return the rows as a dictionary."""
        return dict(self._pairs())

    def pop(self, key: Any, *default: Any) -> Any:
        """Remove a row and return its value; the given default, or KeyError, where there is none."""
        if len(default) > 1:
            raise TypeError(f"pop takes a key and a default; found {len(default) + 1} arguments")
        frame = _frame_in_hand()
        if frame is None:
            self._refuse_write()
        part = self._writable(frame)
        value = part.find(key, MISSING)
        if value is MISSING:
            if default:
                return default[0]
            raise KeyError(key)
        part.delete(key, frame)
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Remove the first row in key-byte order and return it."""
        for key, value in self._pairs():
            del self[key]
            return key, value
        raise KeyError(f"table {self.name!r} has no row here")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return a row's value; where there is none, set it first."""
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value
        self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set rows from a mapping or pairs, in its order."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def clear(self) -> None:
        """Remove this task's rows."""
        frame = _frame_in_hand()
        if frame is None:
            self._refuse_write()
        part = self._writable(frame)
        for data in [key for key, _ in part.raw_items()]:
            part.delete(data, frame)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"

    # -- beyond a mapping

    def info(self) -> dict[str, Any]:
        """Return the declaration, by name."""
        names = (
            "app",
            "name",
            "default",
            "key_type",
            "value_type",
            "partitions",
            "history",
            "local",
            "changelog",
            "help",
        )
        return {name: getattr(self, name) for name in names}

    async def on_start(self) -> None:
        """Open nothing: the engine opens stores with their task."""

    def as_of(self, time: Any) -> Any:
        """Return the rows as they stood at an instant (ISO 8601 text, datetime, or ms): all changes up to task time T."""
        return self._app.engine.as_of(self, time)

    def tumbling(
        self, size: Any, expires: Any = None, key_index: bool = True, *, grace: Any = 0, offset: Any = 0
    ) -> Any:
        """Make this a table of windows, one after the other; agents write it. `key_index`: windows are always listed."""
        return self._app.windowed_table(self, Tumbling(size, offset), expires, grace)

    def hopping(
        self,
        size: Any,
        step: Any,
        expires: Any = None,
        key_index: bool = True,
        *,
        grace: Any = 0,
        offset: Any = 0,
    ) -> Any:
        """Make this a table of windows that overlap; agents write it."""
        return self._app.windowed_table(self, Hopping(size, step, offset), expires, grace)

    def calendar(self, unit: str, tz: Any = "UTC", expires: Any = None, *, grace: Any = 0) -> Any:
        """Make this a table of hours, days, weeks, months or years of a time zone; agents write it."""
        return self._app.windowed_table(self, Calendar(unit, tz), expires, grace)

    def using_window(
        self, window: Any, *, key_index: bool = True, expires: Any = None, grace: Any = 0
    ) -> Any:
        """Make this a table of windows of `headwater.windows`: Tumbling, Hopping or Calendar; agents write it."""
        return self._app.windowed_table(self, window, expires, grace)

    def changes(self) -> Any:
        """Return the stream of changes: {"key", "old", "new"}, with "start" and "end" where there are windows."""
        plan = StreamPlan((f"{CHANGES}{self.name}",))
        return self._app.stream_of(plan, Facts(None, self.key_type, "key"))

    def group_by(self, key: Any, *, key_type: Any = None) -> Any:
        """Group the rows by a field, a function of the row, or a tuple: `.aggregate(name=…, n=hw.agg.count())` follows them."""
        return self._app.table_group(self, key, key_type)

    def join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with another table: on=, how=, select=, name=. See docs/guide/joins.md."""
        return self._app.join_tables(self, other, options)

    def inner_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="inner"."""
        return self.join(other, how="inner", **options)

    def left_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="left"."""
        return self.join(other, how="left", **options)

    def outer_join(self, other: Any, **options: Any) -> Any:  # type: ignore[override]
        """Join with how="outer"."""
        return self.join(other, how="outer", **options)

    @property
    def _app(self) -> Any:
        return self.app

    @property
    def label(self) -> str:
        """The table's name, for people."""
        return f"{type(self).__name__}: {self.name}"

    @property
    def shortlabel(self) -> str:
        """The table's name, for people."""
        return self.label


class _Items(ItemsView[Any, Any]):
    """Pairs read in one pass (collections.abc would look each key up again)."""

    _mapping: Table

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping._pairs()


class _Values(ValuesView[Any]):
    """Values read in one pass."""

    _mapping: Table

    def __iter__(self) -> Iterator[Any]:
        for _, value in self._mapping._pairs():
            yield value


def _check(name: str, default: Any, partitions: Any, history: Any, changelog: Any) -> None:
    if default is not None and not callable(default):
        raise MisuseError(
            f"table {name!r}: default is a function or type that makes a value, such as int; found {default!r}"
        )
    if partitions is not None and (
        isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 1
    ):
        raise MisuseError(f"table {name!r}: partitions is a whole number from 1; found {partitions!r}")
    if isinstance(history, timedelta):
        if history <= timedelta(0):
            raise MisuseError(f"table {name!r}: a history step is longer than nothing; found {history!r}")
    elif history not in ("exact", None):
        raise MisuseError(f"table {name!r}: history is 'exact', a timedelta or None; found {history!r}")
    if changelog == "records":
        raise MisuseError(f"table {name!r}: changelog='records' is not there yet; take 'arrow'")
    if changelog != "arrow":
        raise MisuseError(f"table {name!r}: changelog is 'arrow'; found {changelog!r}")


_WINDOW = "table.tumbling(size), .hopping(size, step), .calendar(unit, tz): windows close by event time"
_OWN_STATE = "nothing: where rows lie is the app's state= and the engine's business"
_RECOVER = "nothing: rows are there before the first record is handed out; app.task runs when all is ready"

REFUSED_TABLE_OPTIONS: dict[str, str] = {
    "window": _WINDOW,
    "on_window_close": _WINDOW,
    "store": "state= of the app (a folder, or memory:// for tests)",
    "schema": "key_type= and value_type=",
    "changelog_topic": "nothing: a table's changelog is <app>.<generation>.changelog.<table>",
    "on_recover": _RECOVER,
    "recover_callbacks": _RECOVER,
    "on_changelog_event": _RECOVER,
    "recovery_buffer_size": _RECOVER,
    "standby_buffer_size": "nothing: there are no standbys yet; recovery is in bulk",
    "extra_topic_configs": "nothing: the changelog is the engine's",
    "use_partitioner": "nothing: rows lie in their key's home; local=True for rows of the writing partition",
    "is_global": "a table with partitions=1, or reading it outside agents",
    "synchronize_all_active_partitions": "a table with partitions=1, or reading it outside agents",
    "options": _OWN_STATE,
    "start_manager": "an agent that changes the sets, and agent.cast(…)",
}
_KNOWN = ("default", "key_type", "value_type", "partitions", "history", "local", "changelog", "help")


def check_table_options(name: str, options: dict[str, Any]) -> None:
    """Raise MisuseError for an option that a table does not have."""
    for option, value in options.items():
        if option in REFUSED_TABLE_OPTIONS:
            if value not in (None, False):
                raise MisuseError(
                    f"table {name!r}: {option}=… is faust's and is not there in Headwater; "
                    f"instead: {REFUSED_TABLE_OPTIONS[option]}"
                )
        elif option not in _KNOWN:
            raise MisuseError(f"table {name!r} has no option {option!r}{did_you_mean(option, _KNOWN)}")


_JOIN = "table.join(other, how=…) and stream.join(table, on=…): the engine keeps what a join needs"

refuse_members(
    Table,
    methods={
        "combine": _JOIN,
        "__and__": _JOIN,
        "contribute_to_stream": _JOIN,
        "remove_from_stream": _JOIN,
        "on_recover": _RECOVER,
        "raw_update": "table.update(…) inside an agent",
        "on_rebalance": _OWN_STATE,
        "on_recovery_completed": _RECOVER,
        "call_recover_callbacks": _RECOVER,
        "on_changelog_event": _RECOVER,
        "on_window_close": _WINDOW,
        "persisted_offset": _OWN_STATE,
        "need_active_standby_for": _OWN_STATE,
        "reset_state": "`headwater discard` and a new generation",
        "send_changelog": "nothing: changes are in the changelog by themselves, in the same epoch",
        "partition_for_key": "nothing: rows lie in their key's home",
        "apply_changelog_batch": _RECOVER,
        "clone": "app.Table(name, …)",
        "fromkeys": "app.Table(name, …) and table.update(…) inside an agent",
        "__copy__": "table.copy() for the rows as a dictionary",
        "on_key_get": _OWN_STATE,
        "on_key_set": _OWN_STATE,
        "on_key_del": _OWN_STATE,
        "on_clear": _OWN_STATE,
    },
    properties={
        "extra_topic_configs": REFUSED_TABLE_OPTIONS["extra_topic_configs"],
        "is_global": REFUSED_TABLE_OPTIONS["is_global"],
        "key_serializer": "table.key_type: keys are encoded by their type",
        "value_serializer": "table.value_type and table.codec",
        "last_closed_window": _WINDOW,
        "window": _WINDOW,
        "WindowWrapper": _WINDOW,
        "options": _OWN_STATE,
        "recovery_buffer_size": _RECOVER,
        "standby_buffer_size": REFUSED_TABLE_OPTIONS["standby_buffer_size"],
        "schema": REFUSED_TABLE_OPTIONS["schema"],
        "synchronize_all_active_partitions": REFUSED_TABLE_OPTIONS["is_global"],
        "use_partitioner": REFUSED_TABLE_OPTIONS["use_partitioner"],
        "data": "the table itself: it is a mapping",
        "changelog_topic": "nothing: a table's changelog is <app>.<generation>.changelog.<table>",
        "changelog_topic_name": "nothing: a table's changelog is <app>.<generation>.changelog.<table>",
    },
)
