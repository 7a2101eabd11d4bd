"""Commands that an app declares with faust's `@app.command`, run by this command line and not by faust's worker."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Any

import click

from headwater.cli.command import Command, given
from headwater.cli.session import Session
from headwater.cli.target import line_of
from headwater.core.errors import HeadwaterError


class AppCommandError(HeadwaterError):
    """A command that the app declares raised."""


def app_commands(context: click.Context) -> dict[str, click.Command]:
    """Return the commands that the app of -A declares, by name; nothing without -A."""
    options = given(context)
    if options.app is None and context.obj is None:
        return {}
    session = Session(options, context.obj)
    target = session.target
    assert target is not None
    from faust.cli.base import AppCommand, cli

    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        kind = (
            inspect.unwrap(command.callback, stop=inspect.isclass) if command.callback is not None else None
        )
        if (
            isinstance(kind, type)
            and issubclass(kind, AppCommand)
            and not kind.__module__.startswith("faust.")
        ):
            found[name] = _command(name, command, kind, session)
    return found


def _command(name: str, command: click.Command, kind: Any, session: Session) -> Command:
    from headwater.engine.options import RunOptions

    @click.pass_context
    def run(context: click.Context, /, **values: Any) -> None:
        assert session.target is not None
        app: Any = session.target.app
        # What it sends goes where the options say, as with every command.
        app.run = RunOptions(settings=session.settings)
        root: Any = context.find_root()
        # What faust's commands read of the outermost context.
        root.app, root.stdout, root.stderr, root.side_effects = app, sys.stdout, sys.stderr, False
        context.obj = None
        try:
            instance = kind(context, **values)
            asyncio.run(instance.execute(*instance.args, **instance.kwargs))
        except (HeadwaterError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            raise AppCommandError(
                f"command {name!r} failed: {type(error).__name__}: {error} ({line_of(error)}); "
                "see the whole traceback with --debug"
            ) from error

    return Command(
        name, callback=run, params=list(command.params), help=command.help, example=f"headwater -A … {name}"
    )
