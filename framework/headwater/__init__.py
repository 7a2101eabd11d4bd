"""Headwater: one agent over a topic's present (the live log) and its past (the archive)."""

from __future__ import annotations

from typing import Any

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
    "ReadOnlyTableError",
    "Record",
    "SetTable",
    "Stream",
    "Table",
    "Topic",
    "TopologyError",
    "ValueRefusedError",
    "sink",
]


def _engine(app: App) -> Any:
    from headwater.engine import Engine

    return Engine(app)


def _command_line(app: App) -> Any:
    from headwater.cli.main import main

    return main(app=app)


# The app package knows neither the engine nor the command line: both are handed over here, and imported at first use.
App.engine_class = staticmethod(_engine)
App.command_line = staticmethod(_command_line)
