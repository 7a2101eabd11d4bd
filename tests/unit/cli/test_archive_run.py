"""`archive run` outlives its store's absence (I24), and ends in order when it is told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.archive.storage import ArchiveUnavailableError
from headwater.cli import archive as command


class _Archiver:
    """Does what a script says at each step, then has the process told to stop."""

    def __init__(self, *script: ArchiveUnavailableError | int) -> None:
        self._script = list(script)
        self.flushed = 0

    def step(self) -> int:
        if not self._script:
            os.kill(os.getpid(), signal.SIGTERM)
            return 0
        deed = self._script.pop(0)
        if isinstance(deed, ArchiveUnavailableError):
            raise deed
        return deed

    def flush(self) -> int:
        self.flushed += 1
        return 0


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    notes: list[str] = []
    monkeypatch.setattr(command, "_UNAVAILABLE_PAUSE_S", 0.01)
    monkeypatch.setattr(command, "_PAUSE_S", 0.01)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    shown = [SimpleNamespace(value="file://log"), SimpleNamespace(value="s3://bucket")]
    yield SimpleNamespace(
        log=SimpleNamespace(url="file://log"),
        settings=SimpleNamespace(shown=lambda: shown),
        output=SimpleNamespace(note=notes.append),
        notes=notes,
    )
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_it_waits_for_a_store_that_may_come_back_and_says_so_once_each_way(session: Any) -> None:
    away = ArchiveUnavailableError("can't write s3://bucket/x: SlowDown", transient=True)
    archiver = _Archiver(3, away, away, away, 5, 0)
    command._run_until_stopped(session, archiver)
    assert archiver.flushed == 1
    told = [note for note in session.notes if "archiving s3" not in note and "stop with Ctrl-C" not in note]
    assert len(told) == 2, session.notes
    assert "SlowDown" in told[0]
    assert "goes on trying" in told[0]
    assert "answers again" in told[1]


def test_what_no_waiting_mends_ends_it(session: Any) -> None:
    with pytest.raises(ArchiveUnavailableError, match="AccessDenied"):
        command._run_until_stopped(session, _Archiver(1, ArchiveUnavailableError("AccessDenied")))
