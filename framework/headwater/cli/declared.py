"""`headwater agents` and `headwater models`: what an app declares."""

from __future__ import annotations

from typing import Any

from headwater.cli.command import command
from headwater.cli.session import Session, pass_session


@command("agents", example="headwater -A headwater_apps.flights agents")
@pass_session
def agents(session: Session) -> None:
    """List the app's agents, and the operators of its streams and tables, in the order a record goes through them."""
    app = session.require_target("agents").app
    rows = []
    for name in app.declared.in_order():
        agent, operator = app.declared.agents.get(name), app.declared.operators.get(name)
        row: dict[str, Any] = {"agent": name, "kind": "agent" if operator is None else "operator"}
        if operator is not None:
            topics = dict.fromkeys(topic for plan in operator.inlets for topic in plan.topics)
            row |= {"topic": ", ".join(topics), "sinks": [sink.topic for sink in operator.sinks], "help": ""}
        elif agent is not None:
            row |= {
                "topic": _name(agent.topic), "sinks": [_name(sink) for sink in agent.sinks], "help": agent.help or "",
            }  # fmt: skip
        rows.append(row)
    columns = ["agent", "kind", "topic", "sinks", "help"]
    session.output.rows(rows, columns, empty=f"app {app.id!r} declares no agents")


@command("models", example="headwater -A headwater_apps.flights models")
@pass_session
def models(session: Session) -> None:
    """List the value types of the app's topics and tables."""
    app = session.require_target("models").app
    rows: list[dict[str, Any]] = []
    for kind, declared in (("topic", app.declared.topics), ("table", app.declared.tables)):
        for name, found in declared.items():
            value = getattr(found, "value_type", None)
            rows.append(
                {
                    "used_by": f"{kind} {name}",
                    "key_type": _type_name(getattr(found, "key_type", None)),
                    "value_type": _type_name(value),
                    "fields": {
                        field: _type_name(kind)
                        for field, kind in getattr(value, "__annotations__", {}).items()
                    },
                }
            )
    session.output.rows(
        rows, ["used_by", "key_type", "value_type", "fields"], empty=f"app {app.id!r} declares no topics"
    )


def _name(found: Any) -> str:
    for name in ("name", "__name__"):
        value = getattr(found, name, None)
        if isinstance(value, str):
            return value
    return str(found)


def _type_name(kind: Any) -> str | None:
    """Return a type as it is written; None where nothing is declared (any JSON)."""
    if kind is None or isinstance(kind, str):
        return kind
    name = getattr(kind, "__name__", None)
    return name if isinstance(name, str) and not hasattr(kind, "__args__") else str(kind)
