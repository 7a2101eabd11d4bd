"""Tables that operators fill: agents read them, nobody else writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from headwater.app.facts import Facts
from headwater.app.table import Table
from headwater.core.errors import ReadOnlyTableError, TopologyError
from headwater.core.keys import encode_key
from headwater.core.place import users_line
from headwater.core.values import codec_for
from headwater.core.windowed import WindowedCodec, split_window_key, window_key, window_prefix
from headwater.stream.frame import CURRENT
from headwater.stream.operator import LATE, OUT
from headwater.stream.plan import StreamPlan
from headwater.stream.window import FixedWindow

if TYPE_CHECKING:
    from headwater.app.owner import AppLike


class WindowedRows:
    """How tables of windows are read as mappings: rows are ((key, start, end), value)."""

    _streams: ResultStreams

    kept_window: Any = None
    """The windows, where their bounds are known ahead."""

    def final(self) -> Any:
        """Return the stream of results that are complete: of closed windows; without windows, at END-OF-TIME."""
        return self._streams.final()

    def late(self) -> Any:
        """Return the stream of records whose windows were closed already, as they came."""
        return self._streams.late()

    @property
    def is_read(self) -> bool:
        """Whether anybody reads `final()`."""
        return self._streams.is_read

    def windows_of(self, key: Any) -> list[tuple[int, int, Any, bool]]:
        """Return (start, end, value, whether it is closed) of each window of a key, in the order of start."""
        table: Any = self
        data = encode_key(key)
        if data is None:
            return []
        prefix = window_prefix(data)
        frame = CURRENT.get()
        if frame is None:
            rows = [(place, row) for place, row in table._reader().items() if place.startswith(prefix)]
        else:
            part = table._part(frame)
            rows = [(place, part.codec.decode(found)) for place, found in part.raw_items(prefix)]
        return [(*split_window_key(place)[1:], row[0], row[1]) for place, row in rows]

    def row_of(self, key: Any, start: int, end: int) -> tuple[Any, bool] | None:
        """Return (value, whether it is closed) of one window of a key, or None."""
        table: Any = self
        data = encode_key(key)
        if data is None:
            return None
        place = window_key(data, start, end)
        frame = CURRENT.get()
        found = table._reader().get(place) if frame is None else table._part(frame).find(place)
        return found  # type: ignore[no-any-return]


class DerivedTable(Table):
    """A table that an operator of the same name fills. `source` is the plan of the stream it is upserted from, if it is."""

    source: StreamPlan | None = None
    source_type: Any = None

    def take_source(self, plan: StreamPlan, value_type: Any) -> None:
        """Take what the table is upserted from, and the type of its rows."""
        self.source, self.source_type = plan, value_type

    def __setitem__(self, key: Any, value: Any) -> None:
        """Refuse: an operator fills the table."""
        self._refuse()

    def __delitem__(self, key: Any) -> None:
        """Refuse: an operator fills the table."""
        self._refuse()

    def _writable(self, frame: Any) -> Any:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnlyTableError(
            f"table {self.name!r} was changed at {users_line()}, but it holds what is derived from other records; keep what "
            "you want to change in a table of your own"
        )


class Aggregation(WindowedRows, DerivedTable):
    """What `aggregate` and `top` give: a table of results, and streams of them."""

    def __init__(self, app: AppLike, *, name: str, window: Any, facts: Facts, **options: Any) -> None:
        """Take a checked declaration. `facts`: what is known of results as a stream."""
        super().__init__(app, name=name, **options)
        self.windowed = windowed = window is not None
        self.kept_window = window if isinstance(window, FixedWindow) else None
        if windowed:
            self.codec = WindowedCodec(codec_for(None))  # type: ignore[assignment]
        self._streams = ResultStreams(app, name, facts)

    def __getitem__(self, key: Any) -> Any:
        """Return a key's row; of a table with windows its windows."""
        return self._app.windows_of(self, key) if self.windowed else super().__getitem__(key)


class ResultStreams:
    """The streams of an operator: what `aggregate(keep=False)` gives, and tables with results have."""

    def __init__(self, app: AppLike, name: str, facts: Facts, late_facts: Facts | None = None) -> None:
        """Take the operator's name, and what is known of its results."""
        self._app = app
        self.name = name
        self._facts = facts
        self.is_read = False

    def final(self) -> Any:
        """Return the stream of results that are complete: of closed windows; without windows, at END-OF-TIME."""
        self.is_read = True
        return self._stream(f"{OUT}{self.name}", self._facts)

    def late(self) -> Any:
        """Return the stream of records whose windows were closed already, as they came."""
        return self._stream(f"{LATE}{self.name}", Facts())

    def changes(self) -> NoReturn:
        """Refuse: there is no table whose rows could change."""
        raise TopologyError(
            f"{self.name!r} was declared with keep=False and has no table, so no changes (asked for at {users_line()}); take "
            "final(), or declare it with keep=True"
        )

    def _stream(self, topic: str, facts: Facts) -> Any:
        return self._app.stream_of(StreamPlan((topic,)), facts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"
