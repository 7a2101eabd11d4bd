"""`headwater doctor`: what is wrong with this set-up, and what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headwater import __version__
from headwater.cli.command import command
from headwater.cli.session import Session, pass_session
from headwater.core import hot
from headwater.core.errors import HeadwaterError
from headwater.core.settings import COMPILED, hide_secrets, read_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

SKEW_S_MAX = 2.0
PACKAGES = ("faust-streaming", "pyarrow", "rocksdict", "fsspec", "msgspec")


class Row(NamedTuple):
    """One thing that was looked at. `state`: ok, warning or failed."""

    check: str
    state: str
    found: str
    advice: str = ""


@command("doctor", example="headwater -A headwater_apps.flights doctor")
@pass_session
def doctor(session: Session) -> int:
    """Look at versions, clock, state folder, log and archive.

    Says what is wrong and what to do. With -A also at the app's positions. Ends with 1 where something failed; a warning alone ends with 0.
    """
    failed = False
    rows = []
    for row in _looked_at(session):
        failed = failed or row.state == "failed"
        rows.append(row._asdict())
    session.output.rows(rows, list(Row._fields), empty="nothing was looked at")
    return 1 if failed else 0


def _looked_at(session: Session) -> Iterator[Row]:
    yield _versions()
    yield _compiled()
    yield from _state(session)
    try:
        log = session.log
        yield Row("log", "ok", f"{hide_secrets('log', log.url)} answers, id {log.log_id}")
        for finding in log.examine():
            state = "warning" if finding.advice else "ok"
            yield Row(f"log: {finding.check}", state, finding.found, finding.advice)
    except HeadwaterError as error:
        yield _failed("log", error)
        return
    yield from _archive(session)
    if session.target is not None:
        yield from _positions(session)


def _failed(check: str, error: HeadwaterError) -> Row:
    # Messages say what happened, and after the last semicolon what to do.
    found, _, advice = str(error).rpartition("; ")
    return Row(check, "failed", found or advice, advice if found else "")


def _versions() -> Row:
    named = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return Row(
        "versions",
        "ok",
        ", ".join([f"headwater {__version__}", f"Python {platform.python_version()}", *named]),
    )


def _compiled() -> Row:
    if hot.is_compiled:
        return Row("hot path", "ok", "compiled")
    if read_environment().get(COMPILED) == "0":
        return Row("hot path", "ok", f"in Python, as {COMPILED}=0 asks")
    return Row(
        "hot path",
        "warning",
        "in Python: agents take four times as long between records",
        "install headwater anew where there is a C compiler and Python's header files",
    )


def _state(session: Session) -> Iterator[Row]:
    """Try the state folder, and compare its file system's clock with ours."""
    if session.settings.state.startswith("memory://"):
        yield Row("state", "ok", "in memory")
        return
    folder = Path(session.settings.state.removeprefix("file://"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            written_s = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        yield Row(
            "state",
            "failed",
            f"{folder} can't be written: {error.strerror or error}",
            "choose another with --state",
        )
        return
    yield Row("state", "ok", f"{folder} can be written")
    skew_s = abs(written_s - session.clock.now_ms() / 1000)
    yield Row(
        "clock",
        "ok" if skew_s <= SKEW_S_MAX else "warning",
        f"{skew_s:.1f} s beside the state folder's",
        ""
        if skew_s <= SKEW_S_MAX
        else "set the clocks by NTP: event times of records sent without one are taken from them",
    )


def _archive(session: Session) -> Iterator[Row]:
    from headwater.archive.opening import probe

    shown = hide_secrets("archive", session.settings.archive)
    try:
        archive = session.archive
        probe(archive.store)
        yield Row("archive", "ok", f"{shown} creates files only where none is")
        for topic in archive.topics():
            for partition in archive.partitions(topic):
                gaps = [s for s in archive.segments(topic, partition) if s.gap is not None and s.base]
                for gap in gaps:
                    yield Row(
                        "archive: gap",
                        "warning",
                        f"{topic}/{partition} lost offsets {gap.base}..{gap.next - 1}: {gap.gap}",
                        "run archivers all the time, and keep the log longer than they lag; replay over it with --allow-gaps",
                    )
    except HeadwaterError as error:
        yield _failed("archive", error)


def _positions(session: Session) -> Iterator[Row]:
    """Look whether the app's positions and its epochs agree."""
    from headwater.engine.positions import Positions

    try:
        generations = session.control.generations()
        name = session.control.pointer()
        if name not in generations:
            yield Row("app", "ok", f"{session.app_id} has not run on this log yet")
            return
        positions = Positions(session.log, session.app_id, name, session.archive)
        info = session.log.topic(positions.tasks)
        tasks = 0 if info is None else info.partitions
        known = len(positions.load(range(tasks)))
        workers = session.log.members(positions.group)
        yield Row(
            "app", "ok", f"generation {name}: {known} of {tasks} tasks have committed, {workers} workers run"
        )
    except HeadwaterError as error:
        yield _failed("app", error)
