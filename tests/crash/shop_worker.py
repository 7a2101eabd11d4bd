"""One worker of the shop in a process forked from a server that has imported what workers import: 0.1 s instead of 1 s.

The same command line as `python -m headwater`, which the full size uses. Only the start differs: once forked, the
process has its own log, loop and environment, and dies by the same signals.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

_context: ForkServerContext = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [__name__, "headwater.app.app", "headwater.archive.writer", "headwater.cli.main", "headwater.engine.engine",
     "headwater.engine.run", "headwater.log.embedded", "headwater.table.recovery"]
)  # fmt: skip


class Forked:
    """What `subprocess.Popen` gives, for a forked worker."""

    def __init__(self, process: ForkServerProcess) -> None:
        """Take a process that was started."""
        self._process = process
        assert process.pid is not None
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code; of a process killed, the signal's number below zero."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises TimeoutExpired as `subprocess` does."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def fork(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    errors: Path,
    file_bytes_max: int | None,
) -> Forked:
    """Start `headwater COMMAND` in `folder`."""
    process = _context.Process(
        target=_work, args=(list(command), dict(variables), folder, errors, file_bytes_max)
    )
    process.start()
    return Forked(process)


def _work(
    command: list[str], variables: dict[str, str], folder: Path, errors: Path, file_bytes_max: int | None
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(handle, 2)
    if file_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
    sys.argv = ["headwater", *command]
    from headwater.cli.main import main

    main()
