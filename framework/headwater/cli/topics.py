"""`headwater topics`: what topics there are, how many records, and where each offset range lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import command
from headwater.cli.output import time_text
from headwater.cli.session import Session, pass_session
from headwater.core.names import control_topic, parse_internal

if TYPE_CHECKING:
    from headwater.core.batch import Batch

_COLUMNS = ("topic", "partition", "records", "archive", "log", "both", "first_time", "last_time")


@command("topics", example="headwater topics --all")
@click.option("--all", "everything", is_flag=True, help="Internal topics too.")
@pass_session
def topics(session: Session, everything: bool) -> None:
    """List topics, and where their records lie.

    Ranges are offsets, half-open; `both` is what archive and log have in common. Times are those of the first and the
    last record in offset order.
    """
    from headwater.engine.history import known_topics

    names = known_topics(session.log, session.archive)
    if not everything:
        names = [name for name in names if not is_internal(name, names)]
    found = [describe_topic(session, name) for name in names]
    if session.output.json:
        session.output.rows(found, _COLUMNS, empty="")
        return
    shown = [
        {
            "topic": topic["topic"],
            **part,
            **{tier: _range(part[tier]) for tier in ("archive", "log", "both")},
            "first_time": time_text(part["first_time"]),
            "last_time": time_text(part["last_time"]),
        }
        for topic in found
        for part in topic["ranges"]
    ]
    session.output.rows(
        shown, _COLUMNS, empty=f"no topics in the log {session.log.url}; make one with `headwater send`"
    )


def is_internal(name: str, names: list[str]) -> bool:
    """Whether a topic belongs to an app's engine, judged by the control topics that are there."""
    apps = [other.removesuffix(".control") for other in names if other.endswith(".control")]
    return any(name == control_topic(app) or parse_internal(name, app) is not None for app in apps)


def describe_topic(session: Session, topic: str) -> dict[str, Any]:
    """Return what `topics --json` says of a topic."""
    from headwater.engine.history import require_topic

    ranges = [
        _describe(session, topic, partition)
        for partition in require_topic(session.log, session.archive, topic)
    ]
    firsts = [part["first_time"] for part in ranges if part["first_time"] is not None]
    lasts = [part["last_time"] for part in ranges if part["last_time"] is not None]
    return {
        "topic": topic,
        "partitions": len(ranges),
        "records": sum(part["records"] for part in ranges),
        "first_time": min(firsts, default=None),
        "last_time": max(lasts, default=None),
        "ranges": ranges,
    }


def _describe(session: Session, topic: str, partition: int) -> dict[str, Any]:
    log, archive = session.log, session.archive
    segments = archive.segments(topic, partition)
    archived = [segments[0].base, segments[-1].next] if segments else None
    in_log = None
    records = sum(segment.count for segment in segments)
    if log.topic(topic) is not None:
        start, end = log.start_offset(topic, partition), log.end_offset(topic, partition)
        in_log = [start, end] if end > start else None
        records += end - min(end, max(start, archived[1] if archived else 0))
    both = None
    if archived and in_log and archived[1] > in_log[0]:
        both = [max(archived[0], in_log[0]), min(archived[1], in_log[1])]
    first = _edge(session, topic, partition, last=False)
    last = _edge(session, topic, partition, last=True)
    return {
        "partition": partition,
        "records": records,
        "archive": archived,
        "log": in_log,
        "both": both,
        "first_time": first,
        "last_time": last,
    }


def _edge(session: Session, topic: str, partition: int, *, last: bool) -> int | None:
    """Return the timestamp of the first or last record, or None where there is none."""
    from headwater.engine.history import range_of, read_topic

    start, end = range_of(session.log, session.archive, topic, partition)
    found: Batch | None = None
    if start < end:
        low, high = (end - 1, end) if last else (start, min(start + 1, end))
        found = next(
            (b for b in read_topic(session.log, session.archive, topic, partition, low, high) if len(b)), None
        )
    return None if found is None else int(found.timestamps[-1 if last else 0])


def _range(found: list[int] | None) -> str | None:
    return None if found is None else f"{found[0]}..{found[1]}"
