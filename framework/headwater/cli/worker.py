"""`headwater worker`: run an app's agents."""

from __future__ import annotations

import click

from headwater.cli.command import allow_gaps_option, command, epoch_option, processes_option
from headwater.cli.logs import LEVELS, show_logs
from headwater.cli.session import Session, pass_session
from headwater.core.errors import MisuseError


@command("worker", example="headwater -A headwater_apps.flights worker --until-idle --processes 3")
@processes_option
@click.option(
    "--until-idle",
    is_flag=True,
    help="End with 0 once the whole group has processed and committed all that is there.",
)
@click.option(
    "--drain",
    is_flag=True,
    help="Then write END-OF-TIME into each input, so that all windows close, and end with 0.",
)
@epoch_option("0.1, in a replay 1")
@allow_gaps_option
@click.option(
    "--generation",
    metavar="NAME",
    help="Run this generation and no other (else the promoted one, whichever it is).",
)
@click.option(
    "--loglevel",
    "-l",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="What is logged to stderr.",
)
@click.option("--web", metavar="HOST:PORT", help="Not in this version: it is refused.")
@click.option("--no-web", is_flag=True, help="No web server; this version has none.")
@pass_session
def worker(
    session: Session,
    processes: int,
    until_idle: bool,
    drain: bool,
    epoch_s: float | None,
    allow_gaps: bool,
    generation: str | None,
    loglevel: str,
    web: str | None,
    no_web: bool,
) -> int:
    """Run the app's agents from their positions.

    Of the promoted generation; a new app starts at the earliest record of archive and log. SIGTERM and Ctrl-C: what is
    begun is finished and committed, then the worker leaves and ends with 0. What comes after END-OF-TIME is late: `--drain`
    is for inputs that have ended.
    """
    target = session.require_target("worker")
    if web is not None:
        raise MisuseError("--web: this version of Headwater has no web server; leave it out")
    from headwater.engine.generation import LIVE
    from headwater.engine.options import RunOptions
    from headwater.engine.run import run_worker

    if generation is not None and generation != LIVE:
        session.control.generation(generation)
    show_logs(loglevel)
    options = RunOptions(
        generation=generation,
        until_idle=until_idle or drain,
        drain=drain,
        epoch_s=epoch_s,
        processes=processes,
        allow_gaps=allow_gaps,
    )
    return int(run_worker(target.app, target.spec, options, settings=session.settings))
