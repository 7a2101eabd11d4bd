"""`headwater demo`: the flights' story, as the installed example tells it."""

from __future__ import annotations

import importlib.util

from headwater.cli.command import command
from headwater.cli.session import Session, pass_session
from headwater.core.errors import UnknownNameError

_PACKAGES = ("headwater_apps.flights.demo", "apps.flights.demo")


@command("demo", example="headwater demo")
@pass_session
def demo(session: Session) -> int:
    """Run the whole story on a month of real flights.

    Live run, archive, trim, a bug and its fix, the rewind, the diff, the promotion; in a folder that is deleted at the
    end. Needs nothing but this package.
    """
    from importlib import import_module

    for name in _PACKAGES:
        # Installed it is headwater_apps; in a checkout that is not installed, apps.
        if _is_there(name):
            return int(import_module(name).main(json=session.options.json) or 0)
    raise UnknownNameError(
        "the example apps are not installed (no module headwater_apps); install headwater again"
    )


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
