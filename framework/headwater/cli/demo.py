"""`headwater demo`: gives the flights' story a folder and a shell; the story itself is the app's."""

from __future__ import annotations

import importlib.util
import io
import logging
import shlex
import shutil
import tempfile
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from headwater.cli.command import command
from headwater.cli.output import is_terminal
from headwater.cli.session import Session, pass_session
from headwater.core.clock import Clock
from headwater.core.errors import HeadwaterError, MisuseError, UnknownNameError
from headwater.core.settings import DEFAULTS

_PACKAGES = ("headwater_apps.flights.demo", "apps.flights.demo")


@command("demo", example="headwater demo\nheadwater demo --keep flights-demo")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work in this new folder and leave it, to look around in afterwards.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="A folder with a departures.parquet of its own (else the month that ships).",
)
@pass_session
def demo(session: Session, keep: Path | None, data: Path | None) -> int:
    """Run the whole story on a month of real flights.

    Live run, archive, trim, a bug and its fix, the rewind, the diff, the promotion; in a folder that is deleted at the
    end. Needs nothing but this package.
    """
    story = _story()
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise MisuseError(f"--keep {keep}: the folder holds something; name a new or an empty one")
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy((data or story.DATA) / "departures.parquet", folder)
        stack.enter_context(chdir(folder))
        story.tell(Shell(session.clock), json=session.options.json)
    if keep is not None:
        session.output.note(f"headwater: log, archive and tables are in {keep}; look around from there")
    return 0


@dataclass(frozen=True, slots=True)
class Done:
    """What a command gave: its exit code, its rows of JSON, and how long it took."""

    code: int
    rows: list[dict[str, Any]]
    seconds: float


class Shell:
    """Runs command lines of Headwater in this process: a process each would cost a second each.

    Each runs as if typed in the current directory, whatever the environment says of log, archive and state.
    """

    def __init__(self, clock: Clock) -> None:
        """Nothing is run yet."""
        self._clock = clock

    def run(self, line: str, *, watched: bool = False) -> Done:
        """Run `headwater …` and return what it gave; `watched`: its progress is shown where somebody looks.

        Raises what the command raises, with the line as a note.
        """
        from headwater.cli.main import cli

        program, *words = shlex.split(line)
        if program != "headwater":
            raise MisuseError(f"expected a command line of headwater, found {line!r}")
        # Said outright, because the environment's own log must not be touched.
        place = ("--log", DEFAULTS["log"], "--archive", DEFAULTS["archive"], "--state", DEFAULTS["state"])
        printed = io.BytesIO()
        out = io.TextIOWrapper(printed, encoding="utf-8")
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        began = self._clock.monotonic_s()
        try:
            with ExitStack() as stack:
                stack.enter_context(redirect_stdout(out))
                if not (watched and is_terminal()):
                    stack.enter_context(redirect_stderr(io.StringIO()))
                found = cli.main(["--json", *place, *words], "headwater", standalone_mode=False)
        except HeadwaterError as error:
            error.add_note(f"(in: {line})")
            raise
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        out.flush()
        # Only line feeds end a row: a text may hold other separators.
        rows = [msgspec.json.decode(row) for row in printed.getvalue().split(b"\n") if row]
        return Done(found if isinstance(found, int) else 0, rows, self._clock.monotonic_s() - began)


def _story() -> Any:
    """Return the module with the story: installed it is headwater_apps; in a checkout that is not installed, apps."""
    from importlib import import_module

    for name in _PACKAGES:
        if _is_there(name):
            return import_module(name)
    raise UnknownNameError(
        "the example apps are not installed (no module headwater_apps); install headwater again"
    )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
