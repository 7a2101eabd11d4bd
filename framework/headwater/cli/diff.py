"""`headwater diff`: how the tables and outputs of two generations differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import command
from headwater.cli.output import cell, time_text
from headwater.cli.session import Session, pass_session
from headwater.core.envelope import to_envelope
from headwater.core.windowed import split_window_key, split_windowed

if TYPE_CHECKING:
    from headwater.engine.compare import Diff, OutputDifference, RowDifference, TableDifference

DIFFERS = 3


@command("diff", example="headwater -A headwater_apps.flights diff live v2")
@click.argument("a")
@click.argument("b")
@click.option(
    "--keys",
    "keys_max",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Name at most N keys a table and output partition.",
)
@pass_session
def diff(session: Session, a: str, b: str, keys_max: int) -> int:
    """Compare the tables and outputs of two generations.

    Tables by key; outputs by partition as sets of (key, value, timestamp), and by order per key. Ends with 3 where they differ.
    """
    from headwater.engine.compare import compare

    control = session.control
    found = compare(
        session.log,
        session.archive,
        session.app_id,
        control.generation(a),
        control.generation(b),
        keys_max=keys_max,
    )
    if session.output.json:
        session.output.rows([*map(_table, found.tables), *map(_output, found.outputs)], (), empty="")
    else:
        _tell(session, found)
    return DIFFERS if found.differs else 0


def _table(table: TableDifference) -> dict[str, Any]:
    return {
        "kind": "table",
        "table": table.table,
        "differs": table.differs,
        "rows_a": table.rows_a,
        "rows_b": table.rows_b,
        "only_a": table.only_a,
        "only_b": table.only_b,
        "changed": table.changed,
        "keys": [_row(table, row) for row in table.rows],
    }


def _row(table: TableDifference, row: RowDifference) -> dict[str, Any]:
    if not table.windowed:
        return {**_key(row.key), **_value("a", row.a), **_value("b", row.b)}
    window = split_window_key(row.key)
    shown = {**_key(window.key), "start": window.start, "end": window.end}
    for side, stored in (("a", row.a), ("b", row.b)):
        if stored is not None:
            final, value = split_windowed(stored)
            shown |= {**_value(side, value), f"{side}_final": final}
    return shown


def _output(output: OutputDifference) -> dict[str, Any]:
    return {
        "kind": "output",
        "topic": output.topic,
        "partition": output.partition,
        "differs": output.differs,
        "records_a": output.records_a,
        "records_b": output.records_b,
        "only_a": output.only_a,
        "only_b": output.only_b,
        "order": output.order,
        "keys": [_key(key) for key in output.keys],
    }


def _key(key: bytes | None) -> dict[str, Any]:
    shown = to_envelope("", 0, 0, 0, key, None, ())
    return {name: shown[name] for name in ("key", "key_b64") if name in shown}


def _value(side: str, value: bytes | None) -> dict[str, Any]:
    """Return a row's value as `a` or `b`; a side without the row has no field."""
    if value is None:
        return {}
    shown = to_envelope("", 0, 0, 0, None, value, ())
    return {
        side + name.removeprefix("value"): shown[name] for name in ("value", "value_b64") if name in shown
    }


def _tell(session: Session, found: Diff) -> None:
    write = session.output.text
    for table in found.tables:
        if not table.differs:
            write(f"table {table.table}: equal, {table.rows_a:,} rows")
            continue
        write(
            f"table {table.table}: {table.rows_a:,} rows in {found.a}, {table.rows_b:,} in {found.b}; {table.changed:,} differ, "
            f"{table.only_a:,} only in {found.a}, {table.only_b:,} only in {found.b}"
        )
        for row in map(dict, _table(table)["keys"]):
            key = row.get("key", row.get("key_b64"))
            if "start" in row:
                key = f"{key} [{time_text(row['start'])}, {time_text(row['end'])})"
            sides = [cell(row.get(side, row.get(f"{side}_b64", "no row"))) for side in ("a", "b")]
            write(f"  {key}: {sides[0]} -> {sides[1]}")
        more = table.only_a + table.only_b + table.changed - len(table.rows)
        if more:
            write(f"  and {more:,} more")
    for output in found.outputs:
        place = f"output {output.topic}/{output.partition}"
        if not output.differs:
            write(f"{place}: equal, {output.records_a:,} records")
            continue
        write(
            f"{place}: {output.only_a:,} records only in {found.a}, {output.only_b:,} only in {found.b}, "
            f"{output.order:,} keys in another order; keys: {cell([next(iter(_key(key).values())) for key in output.keys])}"
        )
    if not found.differs:
        write(f"generations {found.a!r} and {found.b!r} are equal")
