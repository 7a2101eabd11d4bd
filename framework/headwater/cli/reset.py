"""`headwater reset`: delete an app's local state, which its changelogs hold anyway."""

from __future__ import annotations

from headwater.cli.command import command
from headwater.cli.generations import delete_state
from headwater.cli.session import Session, pass_session
from headwater.core.errors import GenerationError
from headwater.core.names import group_of


@command("reset", example="headwater -A headwater_apps.flights reset")
@pass_session
def reset(session: Session) -> None:
    """Delete the app's local state.

    Workers build their stores anew from the changelogs; positions, topics and tables' content stay. Refused while workers run.
    """
    app_id = session.app_id
    running = [name for name in session.control.generations() if session.log.members(group_of(app_id, name))]
    if running:
        raise GenerationError(
            f"workers run generation {', '.join(running)} of app {app_id!r}; stop them first"
        )
    folders = delete_state(session.settings.state, app_id)
    session.output.result(
        {"app": app_id, "deleted": folders},
        f"deleted the stores of {len(folders)} generations of app {app_id!r}",
    )
