"""Run workers: one in this process until a signal or its end, or several as processes of their own."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import HeadwaterError
from headwater.engine.options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.app.app import App
    from headwater.core.settings import Settings

__all__ = ["RunOptions", "run_worker"]

log_ = logging.getLogger(__name__)

STOP_S = 9.0
"""A worker that was told to stop is gone within 10 s, whatever its agents do."""

LAST_RESORT_S = 9.5
"""An agent that blocks the event loop (a long `time.sleep`, a loop without await) keeps it from seeing any deadline."""

GC_YOUNG_MIN = 50_000
"""How many new objects the collector waits for. Thousands of records are in hand at a time: at its default of 700 it would look at
each of them twice."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_worker(app: App, module: str, options: RunOptions, *, settings: Settings) -> int:
    """Run a worker until it ends, and return its exit code: 0, or 1 where a process of several failed.

    `module` is what other processes give to -A to get this app. Raises HeadwaterError where this one fails.
    """
    if options.processes > 1:
        return _run_processes(module, options, settings)
    app.run = replace(options, settings=settings)
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with _last_resort() as note:
        try:
            return asyncio.run(_run(app, note))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def _last_resort() -> Iterator[Callable[[int], object]]:
    """End the process LAST_RESORT_S after the first signal to stop; yields what takes the number of one.

    CPython runs handlers only between the main thread's own steps: one that comes while it is inside a long call of C,
    or just about to sleep, waits for that call's end. The wakeup descriptor gets the number at once, and a thread reads it.
    """
    numbers_out, numbers_in = os.pipe()
    os.set_blocking(numbers_in, False)
    own, is_over = os.getpid(), threading.Event()

    def watch() -> None:
        while not any(number in STOP_SIGNALS for number in os.read(numbers_out, 64)):
            if is_over.is_set():
                return
        if not is_over.wait(LAST_RESORT_S):
            _end_at_once()

    def note(number: int) -> None:
        # A process that an agent forks has this handler and this pipe too: what it is told is not for the worker.
        if os.getpid() == own:
            # A full pipe has told already.
            with suppress(BlockingIOError):
                os.write(numbers_in, bytes([number]))

    def forget() -> None:
        if not is_over.is_set():
            signal.set_wakeup_fd(-1)

    os.register_at_fork(after_in_child=forget)
    watcher = threading.Thread(target=watch, name="headwater-signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(numbers_in, warn_on_full_buffer=False)
    try:
        # An app's own `loop.add_signal_handler` puts another descriptor in the place of ours: handlers tell it too.
        yield note
    finally:
        signal.set_wakeup_fd(before)
        is_over.set()
        # Wakes the watcher; closing wouldn't, where a forked process has the pipe open.
        note(0)
        watcher.join()
        os.close(numbers_in)
        os.close(numbers_out)


async def _run(app: App, note: Callable[[int], object]) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def told_to_stop(number: int, frame: Any) -> None:
        # A plain handler, not the loop's: it runs also while an agent blocks the loop.
        del frame
        note(number)
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    for number in STOP_SIGNALS:
        signal.signal(number, told_to_stop)
    app.finalize()
    engine: Any = app.engine
    # What is there at start lives as long as the process: the collector needn't look at it again (it cost a peer 17 %).
    gc.collect()
    gc.freeze()
    young, *older = gc.get_threshold()
    if young:
        gc.set_threshold(max(young, GC_YOUNG_MIN), *older)
    # Arrow's own allocators keep what was freed: up to 8 MiB more for a worker whose agents are slow.
    pa.set_memory_pool(pa.system_memory_pool())
    ended = asyncio.create_task(engine.finished.wait())
    told = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(app.maybe_start())
    await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # It may be waiting for a log that isn't there.
        engine.stop_soon()
    await starting
    try:
        await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            log_.info("stopping: the open epoch is finished, then the group is left")
        try:
            await asyncio.wait_for(app.stop(), STOP_S)
        except TimeoutError:
            log_.warning("services did not stop within %s s; what was not committed is dropped", STOP_S)
    finally:
        for task in (ended, told):
            task.cancel()
    if engine.error is not None:
        if isinstance(engine.error, HeadwaterError):
            raise engine.error
        raise HeadwaterError(f"the worker failed: {engine.error!r}") from engine.error
    return 0


def _end_at_once() -> None:
    """End the process as a kill would, but well: the log has the last epoch that was committed, and nothing of this one."""
    log_.warning(
        "%s s after it was told to stop, an agent blocks the process, or the log doesn't answer it; its open epoch is aborted, the "
        "process ends",
        LAST_RESORT_S,
    )
    os._exit(0)


def _run_processes(module: str, options: RunOptions, settings: Settings) -> int:
    """Start worker processes, pass signals on, and wait for all; a failed one has the others stopped."""
    command = [
        sys.executable, "-m", "headwater", "-A", module, "--log", settings.log, "--archive", settings.archive,
        "--state", settings.state, "worker",
    ]  # fmt: skip
    if options.until_idle:
        command.append("--until-idle")
    if options.drain:
        command.append("--drain")
    if options.epoch_s is not None:
        command += ["--epoch", str(options.epoch_s)]
    if options.generation is not None:
        command += ["--generation", options.generation]
    if options.allow_gaps:
        command.append("--allow-gaps")
    workers: list[subprocess.Popen[bytes]] = []
    told = 0

    def forward(number: int, frame: Any) -> None:
        nonlocal told
        told = number
        del frame
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    # Before the first process is there: none may be left behind by a signal that comes meanwhile.
    previous = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    failed = 0
    try:
        while len(workers) < options.processes and not told:
            workers.append(subprocess.Popen(command))
        if told:
            forward(told, None)  # also to one that was being made when the signal came
        while any(worker.poll() is None for worker in workers):
            try:
                done = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                break
            for worker in workers:
                if done is not None and worker.pid == done.si_pid:
                    worker.wait()
                    # One that was told to stop before it had begun to listen ends by the signal, which is well.
                    if worker.returncode not in (0, -told) and not failed:
                        failed = worker.returncode
                        forward(signal.SIGTERM, None)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        deadline_s = SYSTEM_CLOCK.monotonic_s() + STOP_S
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in workers:
            try:
                worker.wait(max(0.1, deadline_s - SYSTEM_CLOCK.monotonic_s()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
    if failed > 0:
        return failed
    if failed < 0:
        raise HeadwaterError(
            f"a worker process was killed by signal {-failed}; start again: nothing committed was lost"
        )
    return 0
