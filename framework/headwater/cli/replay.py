"""`headwater replay`: reprocess history as a new generation, with its progress on stderr."""

from __future__ import annotations

import os
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import allow_gaps_option, command, epoch_option, processes_option
from headwater.cli.logs import show_logs
from headwater.cli.output import is_terminal, time_text
from headwater.cli.session import Session, pass_session
from headwater.core.errors import HeadwaterError, TimeRangeError
from headwater.core.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.engine.generation import Generation

NICENESS = 10
"""A tenth of the processor that a live worker gets where both want all of it."""

_POLL_S = 0.25
_LINE_EVERY = 40
"""Where nobody looks at stderr, a line every 10 s."""


@command(
    "replay",
    example="headwater -A headwater_apps.flights replay --from 2013-01-15T05:00:00Z --as v2",
)
@click.option(
    "--from",
    "time_from",
    required=True,
    metavar="T",
    help="From this record time on (ISO 8601, ms, earliest).",
)
@click.option(
    "--until", "time_until", metavar="U", help="Before this record time (else the end of what is there now)."
)
@click.option("--follow", is_flag=True, help="Go live at the end, instead of ending.")
@click.option(
    "--as",
    "name",
    metavar="NAME",
    help="The generation's name (else r and the date and time). An unfinished one is resumed.",
)
@click.option(
    "--order",
    type=click.Choice(["time", "live"]),
    default="time",
    show_default=True,
    help="By event time over all inputs, or as the parent took the records.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="The end counts as END-OF-TIME: all windows close. Inputs are left as they are.",
)
@click.option(
    "--urgent",
    is_flag=True,
    help="Take as much of the machine as live workers do. Else a replay that ends gives way to them.",
)
@processes_option
@epoch_option("1")
@allow_gaps_option
@pass_session
def replay(
    session: Session,
    time_from: str,
    time_until: str | None,
    follow: bool,
    name: str | None,
    order: str,
    drain: bool,
    urgent: bool,
    processes: int,
    epoch_s: float | None,
    allow_gaps: bool,
) -> int:
    """Reprocess history as a new generation.

    Its tables and outputs are beside the live ones, under the generation's name; nothing that readers see changes. Then
    `diff` and `promote` it.
    """
    target = session.require_target("replay")
    low = session.time(time_from)
    high = None if time_until is None else session.time(time_until)
    if high is not None and low >= high:
        raise TimeRangeError(
            f"--from {format_time(low)} is not before --until {format_time(high)}; exchange them"
        )
    if high is not None and follow:
        raise TimeRangeError("--until and --follow exclude each other: a replay ends at U, or goes live")
    if drain and follow:
        raise TimeRangeError(
            "--drain and --follow exclude each other: a replay that goes live has no end yet"
        )
    show_logs("warning")
    # One that goes live would be slow for the rest of its life: only root may take this back.
    if not urgent and not follow:
        give_way()
    from headwater.engine.options import RunOptions
    from headwater.engine.replay import prepare_replay
    from headwater.engine.run import run_worker

    generation = prepare_replay(
        target.app, session.log, session.archive, time_from=low, time_until=high, name=name, order=order,
        follow=follow, allow_gaps=allow_gaps, drain=drain,
    )  # fmt: skip
    session.output.note(f"headwater: replaying as generation {generation.name!r}")
    options = RunOptions(
        generation=generation.name, epoch_s=epoch_s, processes=processes, allow_gaps=allow_gaps
    )
    with Watch(session, generation):
        code = int(run_worker(target.app, target.spec, options, settings=session.settings))
    found = session.control.generation(generation.name)
    if code == 0:
        session.output.result(
            {
                "generation": found.name,
                "state": found.state,
                "from": found.time_from,
                "until": found.time_until,
            },
            f"generation {found.name!r} is {found.state}; compare it: headwater diff {session.control.pointer()} {found.name}",
        )
    return code


def give_way() -> None:
    """Have the system let others run first, in this process and those it starts."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


class Watch:
    """Shows a replay's progress on stderr while it runs: a bar where somebody looks, else a line now and then."""

    def __init__(self, session: Session, generation: Generation) -> None:
        """Nothing is shown yet."""
        self._session = session
        self._generation = generation
        self._stop = Event()
        self._thread = Thread(target=self._run, name="headwater-progress", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        from headwater.archive import open_archive
        from headwater.log import open_log

        # Of its own: a log object is for one thread.
        log = open_log(self._session.settings.log, self._session.settings.kafka)
        try:
            archive = open_archive(
                self._session.settings.archive, log.log_id, self._session.settings.archive_options
            )
            app = self._session.app_id

            def ask() -> Any:
                from headwater.engine.replay import replay_progress

                return replay_progress(log, archive, app, self._generation)

            (self._bar if is_terminal() else self._lines)(ask)
            archive.close()
        except HeadwaterError as error:
            self._session.output.note(f"headwater: no progress to show: {error}")
        finally:
            log.close()

    def _bar(self, ask: Callable[[], Any]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("replay {task.fields[name]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} records, at {task.fields[at]}, ends in"),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
        ) as bar:
            task = bar.add_task("", total=1, name=self._generation.name, at="-")
            while True:
                last = self._stop.is_set()
                found = ask()
                bar.update(
                    task,
                    total=max(found.total, 1),
                    completed=found.done,
                    at=time_text(found.event_time_ms) or "-",
                )
                if last:
                    return
                self._stop.wait(_POLL_S)

    def _lines(self, ask: Callable[[], Any]) -> None:
        clock = self._session.clock
        began, passes = clock.monotonic_s(), 0
        while not self._stop.wait(_POLL_S):
            passes += 1
            if passes % _LINE_EVERY == 0:
                click.echo(progress_line(ask(), clock.monotonic_s() - began), err=True)
        click.echo(progress_line(ask(), clock.monotonic_s() - began), err=True)


def progress_line(found: Any, seconds: float) -> str:
    """Return a replay's progress as one line, with the seconds that it will still take at its rate so far."""
    left = "?" if not found.done else f"{seconds * max(found.total - found.done, 0) / found.done:.0f}"
    at = time_text(found.event_time_ms) or "-"
    return f"headwater: replayed {found.done:,} of {found.total:,} records, at {at}, ends in {left} s"
