"""`headwater config`: the settings in force and where each came from."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from headwater.cli.command import command
from headwater.cli.session import Session, pass_session
from headwater.core.settings import hide_secrets


@command("config", example="headwater -A headwater_apps.flights config")
@pass_session
def config(session: Session) -> None:
    """Show the settings in force and where each came from.

    The order is: option, environment, keyword of App, default. Secrets are hidden. With -A, the app's own options too.
    """
    rows: list[dict[str, Any]] = [
        {"setting": setting.name, "value": setting.value, "origin": setting.origin}
        for setting in session.settings.shown()
    ]
    if session.target is not None:
        options = session.target.app.options
        for field in fields(options):
            if field.name in ("log", "archive", "state", "archive_options", "kafka"):
                continue
            value = getattr(options, field.name)
            origin = "default" if value == field.default else f"App({field.name}=…)"
            rows.append({"setting": field.name, "value": hide_secrets(field.name, value), "origin": origin})
    session.output.rows(rows, ["setting", "value", "origin"], empty="no settings")
