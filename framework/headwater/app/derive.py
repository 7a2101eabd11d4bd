"""Derive: declares the operators on streams: checks what people give, and makes nodes of it. Runs nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.app.derived_table import Aggregation, DerivedTable, ResultStreams
from headwater.app.facts import Facts, has_field
from headwater.app.table import check_table_options
from headwater.core.errors import MisuseError, did_you_mean
from headwater.core.place import users_line
from headwater.core.times import duration_ms
from headwater.stream.aggregate import Aggregate, part_of
from headwater.stream.counted import CountAggregate
from headwater.stream.fixed import FixedAggregate
from headwater.stream.fold import Fold
from headwater.stream.keeper import WindowKeeper
from headwater.stream.kept import Kept
from headwater.stream.operator import OUT, OperatorSpec, Outlet
from headwater.stream.plan import GroupBy, Step, StreamPlan, key_selector
from headwater.stream.relay import SEEN, Dedupe, Relay, Upsert
from headwater.stream.results import Results
from headwater.stream.running import BESIDE, GROUPS, RunningAggregate
from headwater.stream.session import SessionAggregate
from headwater.stream.sliding import SlidingAggregate
from headwater.stream.top import Ranking, Top, WindowedTop
from headwater.stream.window import Count, FixedWindow, Session, Sliding, Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from headwater.app.owner import StreamLike
    from headwater.app.windowed import WindowedTable
    from headwater.stream.operator import Operator

_TABLE_OPTIONS = ("keep", "expires", "history", "help")
_UNNAMED = re.compile(r"[^a-zA-Z0-9_-]+")
_WINDOW_NAMES = frozenset({"key", "start", "end"})


class WindowedStream:
    """A stream in windows: what is left to say is what to make of each."""

    def __init__(self, stream: StreamLike, window: Any, grace: float | timedelta) -> None:
        """Take a window of `headwater.windows`. Raises MisuseError."""
        if not isinstance(window, Window):
            raise MisuseError(
                f"window(…) at {users_line()} takes one of headwater.windows, such as hw.windows.Tumbling(60); found {window!r}"
            )
        self._stream = stream
        self._window = window
        self._grace = duration_ms(grace, f"grace at {users_line()}")

    def grace(self, grace: float | timedelta) -> WindowedStream:
        """Wait so much longer than the watermark says before a window closes."""
        return WindowedStream(self._stream, self._window, grace)

    def lateness(self, lateness: Any) -> WindowedStream:
        """Check that the topics declare this lateness: it is theirs to say, and can't be changed here."""
        expected = duration_ms(lateness, f"lateness at {users_line()}")
        app = self._stream._app
        for name in self._stream.plan.topics:
            found = getattr(app.topic_named(name), "lateness_ms", None) or 0
            if found != expected:
                raise MisuseError(
                    f"a lateness of {expected} ms was asked for at {users_line()}, but topic {name!r} declares {found} ms; how far "
                    "out of order records may be is the topic's: app.topic(…, lateness=…); to have a window wait longer "
                    "take .grace(…)"
                )
        return self

    def aggregate(self, *, name: str, **options: Any) -> Any:
        """Aggregate each key and window: `n=hw.agg.count()`; options keep=, expires=, history=, help=."""
        return aggregate(self._stream, self._window, self._grace, name, options)

    def top(self, n: int, *, by: Any, **options: Any) -> Any:
        """Keep the n records of each key and window with the greatest `by`."""
        return top(self._stream, self._window, self._grace, n, by, options)

    def __repr__(self) -> str:
        return f"<WindowedStream: {self._window} of {self._stream.label}>"


# -- names


def auto_name(app: Any, plan: StreamPlan, kind: str, name: str | None) -> str:
    """Return the name given, or one made of what is read and done: `orders-dedupe`, `orders-dedupe-2`…"""
    if name is not None:
        return name
    first = plan.topics[0].partition(":")[2] or plan.topics[0]
    base = f"{_UNNAMED.sub('-', first)[:60]}-{kind}"
    found, number = base, 2
    while found in app.declared.operators or found in app.declared.agents or found in app.declared.tables:
        found, number = f"{base}-{number}", number + 1
    return found


def add(app: Any, spec: OperatorSpec) -> None:
    """Add an operator to what the app declares."""
    app.declared.add_operator(spec)


# -- passing on


def results_of(stream: StreamLike, name: str, facts: Facts) -> Any:
    """Return the stream of an operator's results."""
    return stream._app.stream_of(StreamPlan((f"{OUT}{name}",)), facts)


def relayed(stream: StreamLike, name: str | None = None) -> Any:
    """Return the stream behind an operator that passes it on: one more group_by may follow."""
    name = auto_name(stream._app, stream.plan, "relay", name)
    facts = stream.facts
    add(stream._app, OperatorSpec(name, (stream.plan,), Relay, value_type=facts.value_type))
    return results_of(stream, name, facts)


def to(stream: StreamLike, topic: Any, key: Any) -> None:
    """Declare that a stream's values go to a topic."""
    app = stream._app
    if isinstance(topic, str):
        topic = app.topic_declared(topic)
    names = getattr(topic, "topics", None)
    if not isinstance(names, list) or len(names) != 1 or names[0].startswith("@"):
        raise MisuseError(f"to(topic) at {users_line()} takes one topic or its name; found {topic!r}")
    group_by = None if key is None else GroupBy(key_selector(key))
    plan = stream.plan
    source = plan.topics[0].removeprefix(OUT)
    if plan.topics[0].startswith(OUT) and plan.group_by is None and source in app.declared.operators:
        # What an operator gives goes to the topic at once, without a hop of its own.
        spec = app.declared.operators[source]
        outlet = Outlet(names[0], plan.before, group_by)
        app.declared.operators[source] = replace(spec, sinks=(*spec.sinks, outlet))
        return
    name = auto_name(app, plan, f"to-{_UNNAMED.sub('-', names[0])[:30]}", None)
    add(app, OperatorSpec(name, (plan,), Relay, sinks=(Outlet(names[0], (), group_by),)))


def table(
    stream: StreamLike, name: str, options: dict[str, Any], kind: type[DerivedTable] = DerivedTable
) -> Any:
    """Declare a table of the latest value of each key."""
    app = stream._app
    check_table_options(name, options)
    facts = stream.facts
    given = {"value_type": facts.value_type, "key_type": facts.key_type, **options}
    found = app.add_derived_table(kind, name, given)
    found.take_source(stream.plan, facts.value_type)
    add(app, OperatorSpec(name, (stream.plan,), lambda: Upsert(name), tables=(name,)))
    return found


def dedupe(stream: StreamLike, key: Any, within: Any, name: str | None) -> Any:
    """Declare that repeats are left out."""
    within_ms = (
        None if within is None else duration_ms(within, f"dedupe(within=…) at {users_line()}", zero=False)
    )
    if key is not None:
        stream = stream.group_by(key)
    name = auto_name(stream._app, stream.plan, "dedupe", name)
    facts = stream.facts
    add(
        stream._app,
        OperatorSpec(
            name, (stream.plan,), lambda: Dedupe(name, within_ms), states=(SEEN,), value_type=facts.value_type
        ),
    )
    return results_of(stream, name, facts)


def keep(found: WindowedTable) -> None:
    """Declare what closes the windows of a table that agents write."""
    app, name = found._app, found.name

    def is_read() -> bool:
        return found.is_read or bool(app.declared.operators[name].sinks)

    results = Results(name, name, found.key_type, is_read, found.grace_ms, found.expires_ms)
    spec = OperatorSpec(
        name, (), lambda: WindowKeeper(found.kept_window, results), tables=(name,), hold_ms=found.grace_ms
    )
    add(app, spec)


# -- aggregates


def aggregate(
    stream: StreamLike, window: Window | None, grace_ms: int, name: str, options: dict[str, Any]
) -> Aggregation | ResultStreams:
    """Declare aggregates by key, in windows or without."""
    aggregates, own = _split(name, options)
    where = f"aggregate(name={name!r}) at {users_line()}"
    _check_aggregates(where, aggregates, stream.facts.value_type)
    if isinstance(window, Session):
        for label, part in _parts(aggregates, retracts=False).items():
            if not part.can_merge:
                raise MisuseError(
                    f"{where}: sessions grow together, and {label!r} has no way to: give agg.aggregate(…) a merge= function"
                )
    facts = stream.facts
    results = _Declared(stream, name, window, grace_ms, own)

    def make() -> Operator:
        fold, made = Fold(aggregates), results.made()
        if window is None:
            return RunningAggregate(fold, made)
        if isinstance(window, FixedWindow):
            return FixedAggregate(window, fold, made)
        if isinstance(window, Session):
            return SessionAggregate(window, fold, made)
        if isinstance(window, Count):
            return CountAggregate(window, fold, made)
        assert isinstance(window, Sliding)
        return SlidingAggregate(window, fold, made, Kept(facts.value_type))

    grows = Fold(aggregates).grows and not isinstance(window, Sliding)
    return results.add(make, (GROUPS, BESIDE) if grows else (GROUPS,))


def aggregate_rows(
    app: Any, plan: StreamPlan, facts: Facts, revive: Callable[[Any], Any], name: str, options: dict[str, Any]
) -> Aggregation | ResultStreams:
    """Declare aggregates over a table's rows: the plan gives pairs [old row, new row]."""
    aggregates, own = _split(name, options)
    where = f"aggregate(name={name!r}) at {users_line()}"
    _check_aggregates(where, aggregates, None)
    for label, part in _parts(aggregates, retracts=True).items():
        if not part.can_subtract:
            raise MisuseError(
                f"{where}: rows of a table change and go, and {label!r} can't take a row away again; take count, sum, mean, min, "
                "max, distinct or collect, or agg.aggregate(…) with subtract="
            )
    results = _Declared(app.stream_of(plan, facts), name, None, 0, own)
    fold = Fold(aggregates, retracts=True)
    return results.add(
        lambda: RunningAggregate(
            Fold(aggregates, retracts=True), results.made(), retracts=True, revive=revive
        ),
        (GROUPS, BESIDE) if fold.grows else (GROUPS,),
    )


def top(
    stream: StreamLike, window: Window | None, grace_ms: int, n: int, by: Any, options: dict[str, Any]
) -> Aggregation | ResultStreams:
    """Declare the best n of each key, in windows or without."""
    where = f"top(…) at {users_line()}"
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise MisuseError(f"{where}: n is a whole number from 1; found {n!r}")
    known = ("name", "ties", "order", "keep_ties", "rank", "key", *_TABLE_OPTIONS)
    for option in options:
        if option not in known:
            raise MisuseError(f"{where} has no option {option!r}{did_you_mean(option, known)}")
    order = options.pop("order", "desc")
    if order not in ("asc", "desc"):
        raise MisuseError(f"{where}: order is 'desc' or 'asc'; found {order!r}")
    key, ties = options.pop("key", None), options.pop("ties", None)
    keep_ties = options.pop("keep_ties", False)
    rank = options.pop("rank", "rank")
    if key is not None:
        stream = stream.group_by(key)
    if window is not None and not isinstance(window, FixedWindow):
        raise MisuseError(f"{where}: takes Tumbling, Hopping or Calendar windows; found {window}")
    name = auto_name(stream._app, stream.plan, "top", options.pop("name", None))
    by = key_selector(by)
    ties = None if ties is None else key_selector(ties)
    for selector in (by, ties):
        if not has_field(selector, stream.facts.value_type):
            raise MisuseError(f"{where}: {stream.facts.value_type.__name__} has no field {selector!r}")
    ranking = Ranking(n, by, ties=ties, descending=order == "desc", keep_ties=bool(keep_ties), rank=rank)
    # Rows are by key and place, and lie where the key does.
    results = _Declared(stream, name, window, grace_ms, {**options, "local": True})
    if window is None:
        return results.add(lambda: Top(ranking, results.made()), (GROUPS,))
    return results.add(lambda: WindowedTop(window, ranking, results.made()), (GROUPS,))


class _Declared:
    """An aggregation under declaration: its table or streams, and the operator's node."""

    def __init__(
        self, stream: StreamLike, name: str, window: Window | None, grace_ms: int, options: dict[str, Any]
    ) -> None:
        self._stream = stream
        self._name = name
        self._grace_ms = grace_ms
        self._window = window
        app, facts = stream._app, stream.facts
        keep, expires = options.pop("keep", True), options.pop("expires", None)
        if not isinstance(keep, bool):
            raise MisuseError(f"{name!r} at {users_line()}: keep is True or False; found {keep!r}")
        self._expires_ms: int | None = None
        if expires is not None:
            self._expires_ms = duration_ms(expires, f"{name!r}: expires at {users_line()}")
            if window is None or isinstance(window, Count):
                raise MisuseError(
                    f"{name!r} at {users_line()}: expires= says how long closed windows stay, and without windows of time none "
                    "closes; leave it out"
                )
        self._key_type = facts.key_type
        shown = Facts(None, facts.key_type, "key")
        self.result: Aggregation | ResultStreams
        if keep:
            self.result = app.add_derived_table(
                Aggregation,
                name,
                options,
                window=window,
                facts=shown,
                key_type=_row_key(facts, options),
            )
        else:
            self.result = ResultStreams(app, name, shown)

    def made(self) -> Results:
        """Return the declaration as operators take it, at start: by then all readers are known."""
        app = self._stream._app
        name, result = self._name, self.result
        table = name if isinstance(result, Aggregation) else None

        def is_read() -> bool:
            return result.is_read or bool(app.declared.operators[name].sinks)

        return Results(name, table, self._key_type, is_read, self._grace_ms, self._expires_ms)

    def add(self, make: Callable[[], Operator], states: tuple[str, ...]) -> Aggregation | ResultStreams:
        """Declare the node."""
        # Sessions are closed one ms later than their end: a record at exactly the gap still belongs to them.
        hold = self._grace_ms + (1 if isinstance(self._window, Session) else 0)
        tables = (self._name,) if isinstance(self.result, Aggregation) else ()
        add(
            self._stream._app,
            OperatorSpec(self._name, (self._stream.plan,), make, states=states, tables=tables, hold_ms=hold),
        )
        return self.result


def _row_key(facts: Facts, options: dict[str, Any]) -> Any:
    return tuple if options.get("local") else facts.key_type


def _split(name: str, options: dict[str, Any]) -> tuple[dict[str, Aggregate], dict[str, Any]]:
    """Split what `aggregate` was given into aggregates and the table's options."""
    aggregates: dict[str, Aggregate] = {}
    own: dict[str, Any] = {}
    for option, value in options.items():
        if isinstance(value, Aggregate):
            aggregates[option] = value
        elif option in _TABLE_OPTIONS:
            own[option] = value
        else:
            raise MisuseError(
                f"aggregate(name={name!r}) at {users_line()}: {option}=… is one of headwater.agg, such as hw.agg.count(), or an "
                f"option ({', '.join(_TABLE_OPTIONS)}); found {value!r}"
            )
    return aggregates, own


def _check_aggregates(where: str, aggregates: dict[str, Aggregate], value_type: Any) -> None:
    if not aggregates:
        raise MisuseError(f"{where} needs an aggregate, such as n=hw.agg.count()")
    taken = _WINDOW_NAMES & aggregates.keys()
    if taken:
        raise MisuseError(
            f"{where}: no aggregate may be named {', '.join(sorted(taken))}: results have such fields already"
        )
    for label, found in aggregates.items():
        if not has_field(found.take, value_type):
            raise MisuseError(
                f"{where}: {label!r} takes the field {found.take!r}, and {value_type.__name__} has no such"
            )


def _parts(aggregates: dict[str, Aggregate], *, retracts: bool) -> dict[str, Any]:
    return {label: part_of(found, retracts=retracts) for label, found in aggregates.items()}


def changes_of(step: Callable[[Any], Any]) -> Step:
    """Return the step that makes items of a table's changes."""
    return Step("flat_map", step, retypes=True)
