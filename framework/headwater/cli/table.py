"""`headwater table`: tables now, or as they were, folded from their changelogs; no worker's store is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import group
from headwater.cli.output import json_line, time_text
from headwater.cli.session import Session, pass_session
from headwater.cli.topics import describe_topic
from headwater.core.errors import HeadwaterError, did_you_mean
from headwater.core.keys import decode_key, encode_key
from headwater.core.windowed import split_window_key, window_prefix

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.engine.generation import Generation

_COLUMNS = ("table", "partitions", "generation", "epochs", "first_time", "last_time")


@group("table", example="headwater -A headwater_apps.flights table get plane_mean N14228 --as-of 2013-01-15")
def table() -> None:
    """Look at tables, now or as they were."""


def _when(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--raw", is_flag=True, help="Keys and values as base64 always."),
        click.option("--generation", metavar="NAME", help="This generation's (else the promoted one's)."),
        click.option("--as-of", metavar="T", help="As it was when the table's clock passed T (T included)."),
    ):
        function = option(function)
    return function


@table.command("ls", example="headwater -A headwater_apps.flights table ls")
@click.option("--generation", metavar="NAME", help="This generation's (else the promoted one's).")
@pass_session
def ls(session: Session, generation: str | None) -> None:
    """List the tables of a generation; `epochs` counts the changelog's records."""
    from headwater.core.names import internal_topic
    from headwater.engine.history import tables_of

    run = session.generation(generation)
    name = run.name
    rows = []
    for found in tables_of(session.log, session.archive, session.app_id, run):
        topic = internal_topic(session.app_id, name, "changelog", found)
        described = describe_topic(session, topic)
        rows.append(
            {
                "table": found,
                "generation": name,
                "partitions": described["partitions"],
                "changelog": topic,
                "epochs": described["records"],
                "first_time": described["first_time"],
                "last_time": described["last_time"],
            }
        )
    if not session.output.json:
        rows = [
            row | {"first_time": time_text(row["first_time"]), "last_time": time_text(row["last_time"])}
            for row in rows
        ]
    session.output.rows(rows, _COLUMNS, empty=f"generation {name!r} has no tables")


@table.command("get", example="headwater -A headwater_apps.flights table get plane_mean N14228")
@click.argument("name", metavar="TABLE")
@click.argument("key")
@_when
@pass_session
def get(session: Session, name: str, key: str, as_of: str | None, generation: str | None, raw: bool) -> None:
    """Show one row's value; of a table of windows all windows of the key, the earliest first.

    KEY is the key's text, for composite keys their compact JSON. Ends with 1 where there is no such row.
    """
    from headwater.engine.history import fold_table, is_windowed
    from headwater.table.dump import canonical_rows

    run, time = _asked(session, generation, as_of)
    parts = fold_table(session.log, session.archive, session.app_id, run, name, as_of=time)
    data = encode_key(key)
    assert data is not None, key
    windowed = is_windowed(run, name)
    if windowed:
        prefix = window_prefix(data)
        found = sorted(row for rows in parts.values() for row in rows.items() if row[0].startswith(prefix))
    else:
        found = [(data, rows[data]) for rows in parts.values() if data in rows]
    if not found:
        keys = (split_window_key(k).key if windowed else k for rows in parts.values() for k in rows)
        near = did_you_mean(key, (k.decode(errors="replace") for k in keys))
        raise HeadwaterError(f"table {name!r} has no row with key {key!r}{near}")
    for row in found:
        line = next(canonical_rows([row], raw=raw, key_json=_key_json(session, name), windowed=windowed))
        if session.output.json or windowed:
            session.output.text(line)
        else:
            _, separator, shown = line.partition(',"value":')
            session.output.text(
                shown[:-1] if separator else line.partition(',"value_b64":')[2].rstrip("}").strip('"')
            )


@table.command("dump", example="headwater -A headwater_apps.flights table dump plane_mean --json")
@click.argument("name", metavar="TABLE")
@click.option("--sha256", is_flag=True, help="Only the dump's SHA-256 and its number of rows.")
@_when
@pass_session
def dump(
    session: Session, name: str, sha256: bool, as_of: str | None, generation: str | None, raw: bool
) -> None:
    """Show all rows in canonical order: equal tables give equal bytes."""
    import hashlib

    from headwater.engine.history import dump_table

    run, time = _asked(session, generation, as_of)
    lines = dump_table(
        session.log,
        session.archive,
        session.app_id,
        run,
        name,
        as_of=time,
        raw=raw,
        key_json=_key_json(session, name),
    )
    digest, count = hashlib.sha256(), 0
    for line in lines:
        count += 1
        if sha256:
            digest.update(line.encode() + b"\n")
        else:
            session.output.text(line)
    if sha256:
        fields = {"table": name, "generation": run.name, "rows": count, "sha256": digest.hexdigest()}
        session.output.write(
            json_line(fields) if session.output.json else f"{digest.hexdigest()}  {count} rows\n".encode()
        )


def _asked(session: Session, generation: str | None, as_of: str | None) -> tuple[Generation, int | None]:
    return session.generation(generation), None if as_of is None else session.time(as_of)


def _key_json(session: Session, name: str) -> Callable[[bytes], Any] | None:
    """Return how a table's keys are shown, where the app declares a key type other than text."""
    import msgspec

    declared = None if session.target is None else session.target.app.declared.tables.get(name)
    kind = getattr(declared, "key_type", None)
    if kind in (None, str):
        return None

    def show(data: bytes) -> Any:
        try:
            key = decode_key(data, kind)
        except HeadwaterError as error:
            raise ValueError(str(error)) from error
        if isinstance(key, bytes):
            raise ValueError("bytes are shown as base64")
        return msgspec.to_builtins(key)

    return show
