"""Headwater: one agent over a topic's present (the live log) and its past (the archive).

Names are loaded when first asked for (PEP 562): faust costs 0.7 s of import, which the command line and whoever wants
only a part of this package (`headwater.core`, `headwater.log`…) must not pay.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faust.sensors import Monitor, Sensor
    from mode import Service

    from headwater.app import agg, windows
    from headwater.app.agent import Agent
    from headwater.app.app import App
    from headwater.app.event import Event
    from headwater.app.set_table import SetTable
    from headwater.app.sink import sink
    from headwater.app.stream import Stream
    from headwater.app.table import Table
    from headwater.app.topic import Topic
    from headwater.core.errors import (
        HeadwaterError,
        HomePartitionError,
        KeyRefusedError,
        MisuseError,
        ReadOnlyTableError,
        TopologyError,
        ValueRefusedError,
    )
    from headwater.core.record import Record

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "App",
    "Event",
    "HeadwaterError",
    "HomePartitionError",
    "KeyRefusedError",
    "MisuseError",
    "Monitor",
    "ReadOnlyTableError",
    "Record",
    "Sensor",
    "Service",
    "SetTable",
    "Stream",
    "Table",
    "Topic",
    "TopologyError",
    "ValueRefusedError",
    "agg",
    "sink",
    "windows",
]

_HOMES = {
    "Agent": "app.agent",
    "App": "app.app",
    "Event": "app.event",
    "Record": "core.record",
    "SetTable": "app.set_table",
    "Stream": "app.stream",
    "Table": "app.table",
    "Topic": "app.topic",
    "sink": "app.sink",
}

_NAMESPACES = ("agg", "windows")
"""Modules of `headwater.app` that are given out as they are: `headwater.agg.count()`."""

_FAUSTS = {"Monitor": "faust.sensors", "Sensor": "faust.sensors", "Service": "mode"}
"""Names that are faust's own, as they are."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        from headwater.app.refused import refuse_name

        refuse_name(name)
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    if name in _NAMESPACES:
        return import_module(f"headwater.app.{name}")
    value = getattr(import_module(_FAUSTS.get(name) or f"headwater.{_HOMES.get(name, 'core.errors')}"), name)
    if name == "App":
        # The app package knows neither the engine nor the command line: both are handed over here.
        value.engine_class = staticmethod(_engine)
        value.command_line = staticmethod(_command_line)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _engine(app: App) -> Any:
    from headwater.engine import Engine

    return Engine(app)


def _command_line(app: App) -> Any:
    from headwater.cli.main import main

    return main(app=app)
