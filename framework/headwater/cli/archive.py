"""`headwater archive`: copy the log to the archive, list segments, check every byte."""

from __future__ import annotations

import signal
from dataclasses import asdict
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import group
from headwater.cli.output import time_text
from headwater.cli.session import Session, pass_session
from headwater.core.errors import UnknownNameError, did_you_mean
from headwater.core.names import control_topic, parse_internal

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_S = 0.2
_UNAVAILABLE_PAUSE_S = 2.0
_COLUMNS = ("topic", "partition", "base", "next", "count", "min_time", "max_time", "bytes", "gap")


@group("archive", example="headwater archive run --until-idle")
def archive() -> None:
    """Copy the log to the archive, list it, check it."""


@archive.command("run", example="headwater -A headwater_apps.flights archive run --until-idle")
@click.argument("topics", nargs=-1)
@click.option("--until-idle", is_flag=True, help="Archive all that is in the log now, and end.")
@click.option(
    "--single-writer",
    is_flag=True,
    help="Use a store that can't refuse a second archiver; you make sure that there is none.",
)
@pass_session
def run(session: Session, topics: tuple[str, ...], until_idle: bool, single_writer: bool) -> None:
    """Copy records from the log to the archive.

    All topics of the log; with -A those that the app reads and writes, and its internal ones; or the TOPICS named. Runs
    until it is stopped, unless --until-idle. Records of topics that the app declares with hot=… are dropped from the log
    once they are archived and older than that. Any number of archivers may run at once, except with --single-writer. While
    the store throttles or can't be reached, it waits and goes on.
    """
    from headwater.archive.writer import Archiver

    known = session.log.topics()
    for topic in topics:
        if topic not in known:
            raise UnknownNameError(
                f"no topic {topic!r} in the log {session.log.url}{did_you_mean(topic, known)}"
            )
    archiver = Archiver(
        session.log,
        session.archive,
        list(topics) or _topics_of(session),
        hot_ms=_hot(session),
        single_writer=single_writer,
        clock=session.clock,
    )
    if until_idle:
        archiver.until_idle()
    else:
        _run_until_stopped(session, archiver)
    counts = {
        name: getattr(archiver.counts, name)
        for name in ("records", "segments", "bytes", "gaps", "lost", "trimmed")
    }
    if counts["lost"]:
        session.output.note(
            f"headwater: {counts['lost']:,} records were gone from the log before they could be archived; "
            "`headwater archive ls` shows the gaps"
        )
    session.output.result(
        counts,
        f"archived {counts['records']:,} records in {counts['segments']:,} segments ({counts['bytes']:,} bytes)",
    )


def _topics_of(session: Session) -> Callable[[], list[str]]:
    """Return what to archive, asked anew at each pass: topics are made while the archiver runs."""
    if session.target is None:
        return lambda: list(session.log.topics())
    app = session.target.app
    app_id = session.app_id

    def wanted() -> list[str]:
        declared = {name for topic in app.declared.topics.values() for name in topic.topics}
        return [
            name
            for name in session.log.topics()
            if name in declared or name == control_topic(app_id) or parse_internal(name, app_id) is not None
        ]

    return wanted


def _hot(session: Session) -> dict[str, int]:
    """Return how long the records of each topic stay in the log once they are archived, where the app says so."""
    if session.target is None:
        return {}
    declared = session.target.app.declared.topics
    return {name: topic.hot_ms for name, topic in declared.items() if topic.hot_ms is not None}


def _run_until_stopped(session: Session, archiver: Any) -> None:
    """Archive until SIGTERM or SIGINT; then what is there is archived, so that a stop leaves little behind."""
    from headwater.archive.storage import ArchiveUnavailableError

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    session.output.note(
        f"headwater: archiving {session.log.url} to {session.settings.shown()[1].value}; stop with Ctrl-C"
    )
    waits = False
    while not stop.is_set():
        try:
            done = archiver.step()
        except ArchiveUnavailableError as error:
            if not error.transient:
                raise
            if not waits:
                session.output.note(
                    f"headwater: {error}; the log keeps what is not archived, this goes on trying"
                )
            waits = True
            stop.wait(_UNAVAILABLE_PAUSE_S)
            continue
        if waits:
            session.output.note("headwater: the store answers again; archiving goes on")
            waits = False
        if not done:
            stop.wait(_PAUSE_S)
    archiver.flush()


@archive.command("ls", example="headwater archive ls departures --json")
@click.argument("topics", nargs=-1)
@pass_session
def ls(session: Session, topics: tuple[str, ...]) -> None:
    """List segments: offsets [base, next), records, times, bytes; `gap` names why offsets are missing."""
    found = session.archive.topics()
    for topic in topics:
        _require(session, topic)
    rows = [
        {name: getattr(segment, name) for name in (*_COLUMNS, "path")}
        for topic in (topics or found)
        for partition in session.archive.partitions(topic)
        for segment in session.archive.segments(topic, partition)
    ]
    if not session.output.json:
        rows = [
            row | {"min_time": time_text(row["min_time"]), "max_time": time_text(row["max_time"])}
            for row in rows
        ]
    session.output.rows(rows, _COLUMNS, empty="nothing is archived; run `headwater archive run --until-idle`")


@archive.command("verify", example="headwater archive verify departures")
@click.argument("topic", required=False)
@pass_session
def verify(session: Session, topic: str | None) -> int:
    """Check every byte and that segments tile each partition; ends with 1 where anything is damaged.

    Gaps that the archiver recorded are told, and are no damage.
    """
    if topic is not None:
        _require(session, topic)
    errors = gaps = 0
    for finding in session.archive.verify(topic):
        errors += finding.error
        gaps += not finding.error
        if session.output.json:
            session.output.rows([asdict(finding)], (), empty="")
        else:
            where = f"{finding.topic}/{finding.partition} offsets {finding.base}..{finding.next - 1}"
            session.output.text(f"{'damaged' if finding.error else 'gap'}: {where}: {finding.message}")
    if not session.output.json:
        session.output.text(
            f"{errors} damaged, {gaps} recorded gaps"
            if errors or gaps
            else "the archive is whole: no byte differs, no offset is missing"
        )
    return 1 if errors else 0


def _require(session: Session, topic: str) -> None:
    known = session.archive.topics()
    if topic not in known:
        raise UnknownNameError(f"no topic {topic!r} is archived{did_you_mean(topic, known)}")
