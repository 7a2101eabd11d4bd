"""Joins: declares the joins of streams and tables: checks what people give, and makes nodes of it. Runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwater.app.derive import add, aggregate_rows, auto_name, changes_of, results_of
from headwater.app.derived_table import DerivedTable
from headwater.app.facts import Facts, comparable, type_of
from headwater.app.global_table import GlobalTable
from headwater.app.table import Table, check_table_options
from headwater.core.errors import MisuseError, did_you_mean
from headwater.core.place import users_line
from headwater.core.times import duration_ms
from headwater.stream.aggregate import plain
from headwater.stream.as_of_join import ROWS as AS_OF_ROWS
from headwater.stream.as_of_join import AsOfJoin
from headwater.stream.interval_join import ROWS, IntervalJoin, JoinRule, Range
from headwater.stream.kept import Kept, reviver
from headwater.stream.operator import CHANGES, OUT, OperatorSpec
from headwater.stream.plan import CompositeKey, GroupBy, StreamPlan, getter, key_selector
from headwater.stream.table_join import (
    SIDES,
    ForeignCollect,
    ForeignMatch,
    ForeignSplit,
    GlobalLookup,
    Lookup,
    TableJoin,
    TableJoinRule,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.app.owner import StreamLike

_HOW = ("inner", "left", "outer")


def join(left: StreamLike, right: Any, options: dict[str, Any]) -> Any:
    """Declare the join of a stream with a stream or a table."""
    where = f"join(…) at {users_line()}"
    how = options.pop("how", "inner")
    if how not in _HOW:
        raise MisuseError(f"{where}: how is 'inner', 'left' or 'outer'; found {how!r}")
    if isinstance(right, Table):
        return _with_table(where, left, right, how, options)
    if hasattr(right, "stream") and not hasattr(right, "plan"):
        right = right.stream()
    if not hasattr(right, "plan") or not hasattr(right, "facts"):
        raise MisuseError(f"{where} takes a stream, a topic or a table; found {right!r}")
    return _with_stream(where, left, right, how, options)


# -- stream with stream


def _with_stream(where: str, left: StreamLike, right: StreamLike, how: str, options: dict[str, Any]) -> Any:
    _check_options(where, options, ("on", "within", "reach", "grace", "select", "name", "where"))
    on = options.get("on")
    left_on, right_on = _both_sides(where, on)
    if left_on is not None:
        left, right = left.group_by(left_on), right.group_by(right_on)
    _check_keys(where, left.facts.key_type, right.facts.key_type, left_on, right_on)
    grace_ms = duration_ms(options.get("grace", 0), f"{where}: grace")
    span = _range(where, options.get("within"), options.get("reach"))
    app = left._app
    name = auto_name(app, left.plan, f"join-{_short(right.plan)}", options.get("name"))
    rule = JoinRule(
        name,
        span,
        left_alone=how in ("left", "outer"),
        right_alone=how == "outer",
        select=_select(where, options.get("select"), left.facts, right.facts, left_on, right_on),
        where=_function(where, "where", options.get("where")),
        grace_ms=grace_ms,
    )
    kept = Kept(left.facts.value_type), Kept(right.facts.value_type)
    hold = grace_ms
    if span.bounded:
        if rule.left_alone and span.of is None:
            hold = max(hold, grace_ms + max(span.after_ms, 0) + 1)
        if rule.right_alone:
            hold = max(hold, grace_ms + max(span.back_ms, 0) + 1)
        if rule.left_alone and span.of is not None:
            hold += 1
    add(
        app,
        OperatorSpec(
            name, (left.plan, right.plan), lambda: IntervalJoin(rule, *kept), states=(ROWS,), hold_ms=hold
        ),
    )
    return results_of(left, name, Facts(None, left.facts.key_type or right.facts.key_type))


def _range(where: str, within: Any, reach: Any) -> Range:
    if callable(within):
        return Range(True, of=within, reach_ms=duration_ms(reach or 0, f"{where}: reach"))
    if reach is not None:
        raise MisuseError(f"{where}: reach= goes with a function as within=; leave it out")
    if within is None:
        return Range()
    if isinstance(within, (tuple, list)):
        if len(within) != 2:
            raise MisuseError(
                f"{where}: within is a duration, (before, after), or a function; found {within!r}"
            )
        before, after = (duration_ms(part, f"{where}: within") for part in within)
        return Range(True, before, after)
    span = duration_ms(within, f"{where}: within")
    return Range(True, span, span)


# -- stream with table


def _with_table(where: str, left: StreamLike, table: Table, how: str, options: dict[str, Any]) -> Any:
    _check_options(where, options, ("on", "as_of", "tolerance", "select", "name"))
    if how == "outer":
        raise MisuseError(
            f"{where}: a stream is joined with a table as 'inner' or 'left': rows are not waiting for records"
        )
    if table.windowed:
        raise MisuseError(
            f"{where}: table {table.name!r} has a row for each window, so a key is not one row; join with its final() instead"
        )
    on = options.get("on")
    selector = None if on is None else _one_side(where, on)
    tolerance = options.get("tolerance")
    as_of = options.get("as_of", False)
    if as_of not in (True, False):
        raise MisuseError(
            f"{where}: as_of is True or False: the record's event time is what counts; found {as_of!r}"
        )
    if tolerance is not None and not as_of:
        raise MisuseError(f"{where}: tolerance= goes with as_of=True")
    value_type, key_type = _row_types(table)
    on_type = left.facts.key_type if selector is None else type_of(selector, left.facts.value_type)
    _check_keys(where, on_type, key_type, selector, None)
    select = _select(where, options.get("select"), left.facts, Facts(value_type), selector, None)
    app = left._app
    alone = how == "left"
    name = auto_name(app, left.plan, f"join-{table.name}", options.get("name"))
    if isinstance(table, GlobalTable) and not as_of:
        key = None if selector is None else getter(selector)
        kept = Kept(value_type)
        add(
            app,
            OperatorSpec(
                name,
                (left.plan, table.broadcast),
                lambda: GlobalLookup(table.name, select, kept, left_alone=alone, key=key),
                states=(SIDES,),
            ),
        )
        return results_of(left, name, Facts(None, left.facts.key_type))
    if selector is not None:
        left = left.group_by(selector)
    facts = Facts(None, left.facts.key_type or key_type)
    if as_of:
        tolerance_ms = None if tolerance is None else duration_ms(tolerance, f"{where}: tolerance")
        source = table.source if isinstance(table, DerivedTable) else None
        changes = source is None
        plan = StreamPlan((f"{CHANGES}{table.name}",)) if source is None else source
        both = Kept(left.facts.value_type), Kept(value_type)
        add(
            app,
            OperatorSpec(
                name,
                (left.plan, plan),
                lambda: AsOfJoin(
                    name, select, both, left_alone=alone, tolerance_ms=tolerance_ms, changes=changes
                ),
                states=(AS_OF_ROWS,),
                hold_ms=1,
            ),
        )
        return results_of(left, name, facts)
    add(
        app,
        OperatorSpec(
            name,
            (left.plan,),
            lambda: Lookup(table.name, select, left_alone=alone),
            tables=(table.name,),
        ),
    )
    return results_of(left, name, facts)


# -- table with table


def join_tables(left: Table, right: Any, options: dict[str, Any]) -> DerivedTable:
    """Declare the join of two tables, by key or by a foreign key of the left one."""
    where = f"join(…) at {users_line()}"
    _check_options(
        where, options, ("on", "how", "select", "name", "history", "help", "value_type", "partitions")
    )
    if not isinstance(right, Table):
        raise MisuseError(f"{where}: a table is joined with a table; found {right!r}")
    for table in (left, right):
        if table.windowed:
            raise MisuseError(
                f"{where}: table {table.name!r} has a row for each window; join with its final() instead"
            )
    how, on, name = options.pop("how", "inner"), options.pop("on", None), options.pop("name", None)
    if how not in _HOW:
        raise MisuseError(f"{where}: how is 'inner', 'left' or 'outer'; found {how!r}")
    if how == "outer" and on is not None:
        raise MisuseError(f"{where}: by a foreign key how is 'inner' or 'left'")
    app = left._app
    left_type, right_type = _row_types(left), _row_types(right)
    left_facts, right_facts = Facts(*left_type), Facts(*right_type)
    selector = None if on is None else _one_side(where, on)
    select = _select(where, options.pop("select", None), left_facts, right_facts, selector, None)
    name = name or auto_name(app, StreamPlan((left.name,)), f"join-{right.name}", None)
    key_type = left_facts.key_type if selector is None else None
    _check_keys(where, key_type, right_facts.key_type if selector is None else None, None, None)
    check_table_options(name, options)
    given = {"key_type": left_facts.key_type, **options}
    found: DerivedTable = app.add_derived_table(DerivedTable, name, given)
    rule = TableJoinRule(name, name, how in ("left", "outer"), how == "outer", select)
    revive = reviver(left_facts.value_type), reviver(right_facts.value_type)
    changes = StreamPlan((f"{CHANGES}{left.name}",)), StreamPlan((f"{CHANGES}{right.name}",))
    if selector is None:
        add(
            app, OperatorSpec(name, changes, lambda: TableJoin(rule, revive), states=(SIDES,), tables=(name,))
        )
        return found
    foreign_key = getter(selector)
    split, match = f"{name}-split", f"{name}-match"
    add(app, OperatorSpec(split, changes[:1], lambda: ForeignSplit(foreign_key, revive[0]), states=(SIDES,)))
    add(
        app,
        OperatorSpec(
            match,
            (StreamPlan((f"{OUT}{split}",)), changes[1]),
            lambda: ForeignMatch(rule, revive),
            states=(SIDES,),
        ),
    )
    add(
        app,
        OperatorSpec(
            name,
            (StreamPlan((f"{OUT}{match}",)),),
            lambda: ForeignCollect(name),
            states=(SIDES,),
            tables=(name,),
        ),
    )
    return found


class TableGroup:
    """A table's rows grouped by a key: what is left to say is what to make of each group."""

    def __init__(self, table: Table, key: Any, key_type: Any = None) -> None:
        """Take a selector of the rows: a field, a function or a tuple of these."""
        self._table = table
        self._selector = key_selector(key)
        self._key_type = key_type

    def aggregate(self, *, name: str, **options: Any) -> Any:
        """Aggregate each group: where a row changes the old one is taken away and the new one added."""
        table = self._table
        value_type, _ = _row_types(table)
        revive = reviver(value_type)
        key_of = getter(self._selector)

        def group(row: Any) -> Any:
            return key_of(revive(row))

        def items(change: Any) -> list[list[Any]]:
            old, new = change["old"], change["new"]
            if old is not None and new is not None and group(old) != group(new):
                return [[old, None], [None, new]]
            return [[old, new]]

        def key_of_item(item: Any) -> Any:
            old, new = item
            return group(old if new is None else new)

        plan = StreamPlan((f"{CHANGES}{table.name}",), (changes_of(items),)).grouped(GroupBy(key_of_item))
        key_type = self._key_type or type_of(self._selector, value_type)
        return aggregate_rows(table._app, plan, Facts(None, key_type), revive, name, options)

    def __repr__(self) -> str:
        return f"<TableGroup: {self._table.name} by {self._selector!r}>"


def _row_types(table: Table) -> tuple[Any, Any]:
    """Return the type of a table's rows, where they are Structs or the like, and of its keys."""
    value_type = table.value_type
    if isinstance(table, DerivedTable) and table.source_type is not None:
        value_type = table.source_type
    if value_type in (dict, list, Any, object):
        value_type = None
    return value_type, table.key_type


# -- checks


def _check_options(where: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            raise MisuseError(f"{where} has no option {option!r}{did_you_mean(option, known)}")


def _both_sides(where: str, on: Any) -> tuple[Any, Any]:
    if on is None:
        return None, None
    if isinstance(on, tuple):
        if len(on) != 2:
            raise MisuseError(
                f"{where}: on is what both sides have, or (left, right); found {len(on)} parts; a composite key is a list"
            )
        return key_selector(on[0]), key_selector(on[1])
    selector = key_selector(on)
    return selector, selector


def _one_side(where: str, on: Any) -> Any:
    if isinstance(on, tuple) and len(on) == 2 and on[1] is None:
        on = on[0]
    return key_selector(on)


def _check_keys(where: str, left: Any, right: Any, left_on: Any, right_on: Any) -> None:
    """Raise MisuseError where keys can never be equal, as far as their types and parts say."""
    left_parts, right_parts = _part_count(left_on), _part_count(right_on)
    same_shape = left_parts is None or right_parts is None or left_parts == right_parts
    if same_shape and comparable(left, right):
        return

    def shown(key_type: Any, parts: int | None) -> str:
        if key_type is not None:
            return str(key_type) if parts else getattr(key_type, "__name__", str(key_type))
        return "one value" if parts == 0 else f"{parts} parts"

    raise MisuseError(
        f"{where} compares keys that are never equal: {shown(left, left_parts)} on the left, {shown(right, right_parts)} on "
        "the right; keys are compared as they are written, so give both the same type, with a function if need be"
    )


def _part_count(selector: Any) -> int | None:
    """Return the parts of a composite key; 0 for a field; None where it isn't known."""
    if isinstance(selector, CompositeKey):
        return len(selector.parts)
    return 0 if isinstance(selector, str) else None


def _function(where: str, name: str, function: Any) -> Any:
    if function is not None and not callable(function):
        raise MisuseError(f"{where}: {name} is a function of left and right; found {function!r}")
    return function


def _select(
    where: str, select: Any, left: Facts, right: Facts, left_on: Any, right_on: Any
) -> Callable[[Any, Any], Any]:
    """Return the user's function, or one that puts the fields of both side by side."""
    if select is not None:
        found: Callable[[Any, Any], Any] = _function(where, "select", select)
        return found
    # What both are joined by is equal in both, so it may be in both.
    shared = {name for name in _fields(left_on) if right_on is None or name in _fields(right_on)}
    both = {*_names(left.value_type)} & {*_names(right.value_type)} - shared
    if both:
        raise MisuseError(_collision(where, both))

    def merged(left_value: Any, right_value: Any) -> Any:
        one = {} if left_value is None else _dict(left_value)
        two = {} if right_value is None else _dict(right_value)
        clash = (one.keys() & two.keys()) - shared
        if clash:
            raise MisuseError(_collision(where, clash))
        return (
            {**two, **one}
            if left_value is None
            else {**one, **{k: v for k, v in two.items() if k not in one}}
        )

    return merged


def _collision(where: str, names: Any) -> str:
    return (
        f"{where}: both sides have {', '.join(sorted(names))}; say what the result is: "
        "select=lambda left, right: {…}"
    )


def _dict(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    found = plain(value)
    if isinstance(found, dict):
        return found
    raise MisuseError(
        f"a join without select= puts fields side by side, and {value!r} has none; give select="
    )


def _fields(selector: Any) -> set[str]:
    if isinstance(selector, str):
        return {selector}
    return (
        {part for part in selector.parts if isinstance(part, str)}
        if isinstance(selector, CompositeKey)
        else set()
    )


def _names(value_type: Any) -> tuple[str, ...]:
    if isinstance(value_type, type) and issubclass(value_type, msgspec.Struct):
        return value_type.__struct_fields__
    return ()


def _short(plan: StreamPlan) -> str:
    first = plan.topics[0].partition(":")[2] or plan.topics[0]
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in first)[:30]
