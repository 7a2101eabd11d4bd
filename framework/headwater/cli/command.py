"""Commands and groups as this command line has them: options that stand before and after the command, and an example each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "headwater.given"


@dataclass(slots=True)
class Given:
    """What was given of the shared options, wherever it stood; the later one wins."""

    app: str | None = None
    log: str | None = None
    archive: str | None = None
    state: str | None = None
    json: bool = False
    debug: bool = False


def given(context: click.Context) -> Given:
    """Return the shared options of this call."""
    found: Given = context.meta.setdefault(_KEY, Given())
    return found


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        setattr(given(context), str(parameter.name), value)


def _shared_options() -> list[click.Parameter]:
    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_remember, **more)

    return [
        option("-A", "--app", "app", is_eager=True, metavar="MODULE[:APP]", help="The app's module; the current directory is searched first."),
        option("--log", "log", metavar="URL", help="The log: file://DIR, kafka://HOST:PORT[,HOST:PORT] or memory://NAME."),
        option("--archive", "archive", metavar="URL", help="The archive's folder, an fsspec URL."),
        option("--state", "state", metavar="DIR", help="Where workers keep their stores."),
        option("--json", "json", is_flag=True, help="One JSON object a line on stdout, and nothing else there."),
        option("--debug", "debug", is_flag=True, help="Show where an error came from."),
    ]  # fmt: skip


class _Shared(click.Command):
    """A command with the shared options and an example."""

    def __init__(self, *arguments: Any, example: str = "", **more: Any) -> None:
        more.setdefault("context_settings", {}).setdefault("help_option_names", ["-h", "--help"])
        super().__init__(*arguments, **more)
        self.example = example
        self._shared = _shared_options()
        self.params = [*self.params, *self._shared]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then those that every command has."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                (shared if parameter in self._shared else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Options of every command (before or after it)"):
            formatter.write_dl(shared)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example as it is typed, unwrapped."""
        if self.example:
            formatter.write_paragraph()
            formatter.write("Example:\n")
            for line in self.example.splitlines():
                formatter.write(f"  {line}\n")


class Command(_Shared):
    """A command."""


class Group(_Shared, click.Group):
    """A noun with verbs."""

    command_class = Command


Group.group_class = Group


def command(name: str, *, example: str) -> Callable[[Callable[..., Any]], Command]:
    """Declare a command; its help is the function's docstring."""

    def declare(function: Callable[..., Any]) -> Command:
        return click.command(name, cls=Command, example=example)(function)

    return declare


def group(name: str, *, example: str) -> Callable[[Callable[..., Any]], Group]:
    """Declare a noun; its verbs are declared with `verb`."""

    def declare(function: Callable[..., Any]) -> Group:
        return click.group(name, cls=Group, example=example)(function)

    return declare


processes_option = click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="How many OS processes.",
)

allow_gaps_option = click.option(
    "--allow-gaps", is_flag=True, help="Go on where neither archive nor log has the records."
)


def epoch_option(otherwise: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare `--epoch`; `otherwise` says what holds without it."""
    return click.option(
        "--epoch",
        "epoch_s",
        type=click.FloatRange(0.001, 60),
        metavar="S",
        help=f"Seconds between commits (else {otherwise}).",
    )
