"""What one command works with, each opened when first asked for: settings, app, log, archive, generations."""

from __future__ import annotations

from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import Given, given
from headwater.cli.output import Output
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import MisuseError
from headwater.core.settings import Settings
from headwater.core.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.archive.archive import Archive
    from headwater.cli.target import Target
    from headwater.engine.control import Control
    from headwater.engine.generation import Generation
    from headwater.log.interface import Log

_CONTROL = ".control"


class Session:
    """Opens what a command asks for, and closes it at the end."""

    def __init__(self, options: Given, app: Any = None) -> None:
        """Nothing is opened yet. `app`: the one whose own `main` runs this, in the place of -A."""
        self.options = options
        self._app = app
        self.output = Output(json=options.json)
        self.clock = SYSTEM_CLOCK

    @cached_property
    def target(self) -> Target | None:
        """The app that -A names, or None where it was not given."""
        if self.options.app is None:
            if self._app is None:
                return None
            from headwater.cli.target import target_of

            return target_of(self._app)
        # Costs what faust costs; commands that weren't given an app don't pay it.
        from headwater.cli.target import load_target

        return load_target(self.options.app)

    def require_target(self, command: str) -> Target:
        """Return the app. Raises MisuseError where -A was not given."""
        if self.target is None:
            raise MisuseError(
                f"`{command}` needs an app; name its module: headwater -A module[:app] {command}"
            )
        return self.target

    @cached_property
    def settings(self) -> Settings:
        """The settings in force: option, environment, App, default."""
        options = {name: getattr(self.options, name) for name in ("log", "archive", "state")}
        keywords, archive_options, kafka = {}, None, None
        if self.target is not None:
            keywords = {name: getattr(self.target.app.options, name) for name in ("log", "archive", "state")}
            archive_options = self.target.app.options.archive_options
            kafka = self.target.app.options.kafka
        return Settings.resolve(options, keywords, archive_options=archive_options, kafka=kafka)

    @cached_property
    def log(self) -> Log:
        """The log."""
        from headwater.log import open_log

        return open_log(self.settings.log, self.settings.kafka)

    @cached_property
    def archive(self) -> Archive:
        """The log's archive."""
        from headwater.archive import open_archive

        archive = open_archive(self.settings.archive, self.log.log_id, self.settings.archive_options)
        archive.bind(self.log.topics())
        return archive

    @cached_property
    def app_id(self) -> str:
        """The app's name: of -A, or else of the only app that the log knows."""
        if self.target is not None:
            return str(self.target.app.id)
        apps = [name.removesuffix(_CONTROL) for name in self.log.topics() if name.endswith(_CONTROL)]
        if len(apps) == 1:
            return apps[0]
        if not apps:
            raise MisuseError(
                f"no app has run on the log {self.log.url}; name one with -A module[:app], or another log with --log"
            )
        raise MisuseError(
            f"several apps use the log {self.log.url} ({', '.join(apps)}); name one with -A module[:app]"
        )

    @cached_property
    def control(self) -> Control:
        """The app's generations."""
        from headwater.engine.control import Control

        return Control(self.log, self.archive, self.app_id, clock=self.clock)

    def generation(self, name: str | None) -> Generation:
        """Return a generation, by default the one that readers see. Raises UnknownNameError."""
        return self.control.generation(self.control.pointer() if name is None else name)

    def time(self, text: str) -> int:
        """Return ms since the epoch. Raises TimeRangeError."""
        return parse_time(text, now_ms=self.clock.now_ms())

    def close(self) -> None:
        """Print what waits, and close what was opened."""
        try:
            self.output.flush()
        finally:
            for name in ("archive", "log"):
                opened = self.__dict__.pop(name, None)
                if opened is not None:
                    opened.close()


def pass_session(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a command its session as the first argument, and close it afterwards."""

    @click.pass_context
    @wraps(function)
    def call(context: click.Context, /, *arguments: Any, **named: Any) -> Any:
        session = Session(given(context), context.find_object(object))
        try:
            return function(session, *arguments, **named)
        finally:
            session.close()

    return call
