"""`headwater generations`, `promote`, `rollback`, `discard`: the runs of an app over its history, and which one counts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.cli.command import command
from headwater.cli.output import time_text
from headwater.cli.session import Session, pass_session

if TYPE_CHECKING:
    from headwater.engine.generation import Generation

_COLUMNS = (
    "name",
    "state",
    "promoted",
    "parent",
    "from",
    "until",
    "order",
    "follow",
    "workers",
    "created",
    "finished",
    "error",
)


@command("generations", example="headwater -A headwater_apps.flights generations")
@click.option("--all", "everything", is_flag=True, help="Discarded ones too.")
@pass_session
def generations(session: Session, everything: bool) -> None:
    """List the app's generations.

    Readers see the promoted one.
    """
    from headwater.engine.generation import DISCARDED

    pointer = session.control.pointer()
    rows = [
        _describe(session, generation, pointer)
        for generation in session.control.generations().values()
        if everything or generation.state != DISCARDED
    ]
    if not session.output.json:
        for row in rows:
            row.update({name: time_text(row[name]) for name in ("from", "until", "created", "finished")})
    session.output.rows(
        rows, _COLUMNS, empty=f"app {session.app_id!r} has not run yet; start it with `headwater worker`"
    )


def _describe(session: Session, generation: Generation, pointer: str) -> dict[str, Any]:
    from headwater.core.names import group_of

    return {
        "app": generation.app,
        "name": generation.name,
        "state": generation.state,
        "promoted": generation.name == pointer,
        "parent": generation.parent,
        "from": generation.time_from,
        "until": generation.time_until,
        "order": generation.order,
        "follow": generation.follow,
        "workers": session.log.members(group_of(generation.app, generation.name)),
        "created": generation.created_ms,
        "finished": generation.finished_ms,
        "fingerprint": generation.fingerprint,
        "error": generation.error,
    }


@command("promote", example="headwater -A headwater_apps.flights promote v2")
@click.argument("name")
@pass_session
def promote(session: Session, name: str) -> None:
    """Make a generation what readers see.

    It must have come to its end, or its workers must have stopped. `rollback` undoes it.
    """
    from headwater.engine.generation import where_it_ends

    generation = session.control.generation(name)
    previous = session.control.promote(name).name
    end = where_it_ends(generation)
    if end is not None:
        session.output.note(
            f"headwater: generation {name!r} is bounded: it ends at {end}; a worker started now goes on from there"
        )
    session.output.note(
        f"headwater: a worker of {name!r} sends to the real topics from its own positions on: what {previous!r} has sent "
        "beyond them is sent once more, what only the shadow has stays there"
    )
    session.output.result(
        {"promoted": name, "previous": previous, "ends": generation.time_until},
        f"readers see generation {name!r} now; `headwater rollback` goes back to {previous!r}",
    )


@command("rollback", example="headwater -A headwater_apps.flights rollback")
@pass_session
def rollback(session: Session) -> None:
    """Undo the last promotion."""
    undone = session.control.pointer()
    name = session.control.rollback()
    session.output.result(
        {"promoted": name, "previous": undone}, f"readers see generation {name!r} again, no longer {undone!r}"
    )


@command("discard", example="headwater -A headwater_apps.flights discard v2")
@click.argument("name")
@pass_session
def discard(session: Session, name: str) -> None:
    """Delete a generation that readers don't see.

    Its topics and positions leave the log, its stores leave this machine; what is archived of it stays.
    """
    topics = session.control.discard(name)
    delete_state(session.settings.state, session.app_id, name)
    session.output.result(
        {"discarded": name, "topics": topics}, f"discarded generation {name!r}: {len(topics)} topics deleted"
    )


def delete_state(state: str, *names: str) -> list[str]:
    """Delete a folder of workers' stores, and return the folders that were in it."""
    if state.startswith("memory://"):
        return []
    folder = Path(state.removeprefix("file://")).joinpath(*names)
    if not folder.is_dir():
        return []
    inside = sorted(str(path) for path in folder.iterdir())
    shutil.rmtree(folder)
    return inside
