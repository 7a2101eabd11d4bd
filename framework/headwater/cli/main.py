"""The command line's way in: commands loaded when asked for, errors as one message and an exit code.

Nothing heavy is imported here: `headwater --help` must answer within 0.3 s.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from headwater import __version__
from headwater.cli.command import Group, given
from headwater.core.errors import HeadwaterError, did_you_mean
from headwater.core.settings import read_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

# name: (module of this package, its command there, first sentence of its help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "Run the whole story on a month of real flights."),
    "worker": ("worker", "worker", "Run the app's agents from their positions."),
    "send": ("send", "send", "Append records to a topic."),
    "read": ("read", "read", "Show a topic's records, archive and log as one."),
    "trim": ("trim", "trim", "Drop from the log what is archived."),
    "topics": ("topics", "topics", "List topics, and where their records lie."),
    "replay": ("replay", "replay", "Reprocess history as a new generation."),
    "generations": ("generations", "generations", "List the app's generations."),
    "diff": ("diff", "diff", "Compare the tables and outputs of two generations."),
    "promote": ("generations", "promote", "Make a generation what readers see."),
    "rollback": ("generations", "rollback", "Undo the last promotion."),
    "discard": ("generations", "discard", "Delete a generation that readers don't see."),
    "archive": ("archive", "archive", "Copy the log to the archive, list it, check it."),
    "table": ("table", "table", "Look at tables, now or as they were."),
    "dead": ("dead", "dead", "Dead letters: list them, look, send them again."),
    "agents": ("declared", "agents", "List the app's agents."),
    "models": ("declared", "models", "List the value types of the app's topics and tables."),
    "reset": ("reset", "reset", "Delete the app's local state."),
    "config": ("config", "config", "Show the settings in force and where each came from."),
    "doctor": ("doctor", "doctor", "Look at versions, clock, state folder, log and archive."),
    "completion": ("completion", "completion", "Print the completion script of a shell."),
}


class Headwater(Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order they are told."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in COMMANDS:
            return _declared(ctx).get(cmd_name)
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(f"headwater.cli.{module}"), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or offer near names."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            declared = _declared(ctx)
            if name not in declared:
                known = [*COMMANDS, *declared]
                raise click.UsageError(f"no command {name!r}{did_you_mean(name, known)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, _, sentence) in COMMANDS.items()])
        declared = _declared(ctx)
        if declared:
            with formatter.section("Commands of the app"):
                formatter.write_dl([(name, found.get_short_help_str()) for name, found in declared.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; errors become one message on stderr and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(self._run(args, prog_name or "headwater", complete_var, extra))

    def invoke(self, ctx: click.Context) -> Any:
        """Run, noting for the message of an error whether --debug was given."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Here, because click would end with 1: whoever read our output has seen enough (`… | head`).
            return _reader_left()
        except HeadwaterError as error:
            if given(ctx).debug:
                error.add_note(_DEBUG)
            raise

    def _run(
        self, args: Sequence[str] | None, prog_name: str, complete_var: str | None, extra: dict[str, Any]
    ) -> int:
        try:
            found = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            # Here, not at the interpreter's end, where a reader that went away would be reported.
            sys.stdout.flush()
            return found if isinstance(found, int) else 0
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return _say("interrupted", 130)
        except HeadwaterError as error:
            if _DEBUG in getattr(error, "__notes__", ()) or read_environment().get("HEADWATER_TRACEBACK"):
                traceback.print_exc()
            return _say(str(error), error.exit_code)
        except BrokenPipeError:
            return _reader_left()
        except OSError as error:
            if error.errno is None:
                raise
            place = f" ({error.filename})" if error.filename else ""
            more = "; make room and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            return _say(f"{error.strerror}{place}{more}", 1)


def _declared(context: click.Context) -> dict[str, click.Command]:
    """Return the commands of the app, where one is named; loads what that costs only then."""
    if given(context).app is None and context.obj is None:
        return {}
    from headwater.cli.app_command import app_commands

    return app_commands(context)


_DEBUG = "(--debug)"


def _reader_left() -> int:
    """Send what is still to come nowhere, so that the interpreter's own last flush is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(message: str, code: int) -> int:
    click.echo(f"headwater: {message}", err=True)
    return code


@click.group(
    "headwater",
    cls=Headwater,
    example="headwater demo\nheadwater -A headwater_apps.flights worker --until-idle",
    invoke_without_command=False,
)
@click.version_option(__version__, message="headwater %(version)s")
def cli() -> None:
    """Stream processing over a topic's present and its past.

    An agent is a function over a stream, written once. It runs over the live log, and over the archive from any moment
    on; what it makes is compared, and promoted.
    """


def main(app: Any = None) -> None:
    """Run the command line; with an app, for that one, as `app.main()` does."""
    cli(obj=app)
