"""docs/reference/faust.md against the installed faust: every public name is listed once, and nothing else is."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import mode
import pytest
from faust.events import Event
from faust.tables.base import Collection
from faust.types.settings import Settings

from tests.faust.stock_broker import Broker, agent, stock_app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faust.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<fate>same|changed|refused) \| (?P<note>.+) \|$")


def _sections() -> dict[str, list[re.Match[str]]]:
    """Rows of the page by section; a table line that is no row is an error."""
    sections: dict[str, list[re.Match[str]]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            rows = sections.setdefault(line[3:], [])
        elif line.startswith("|") and not line.startswith(("|---", "| name |")):
            row = ROW.match(line)
            assert row is not None, f"not a row: {line}"
            rows.append(row)
    return sections


SECTIONS = _sections()
SERVICE = {name for name in dir(mode.Service) if not name.startswith("_")}


def _public(class_: type, instance: object = None) -> set[str]:
    """Public names of a class and an instance; of mode.Service's only those that faust overrides."""
    names = {name for name in dir(class_) if name[0] != "_"}
    names |= {name for name in vars(instance) if name[0] != "_"} if instance is not None else set()
    overridden: set[str] = set()
    for ancestor in class_.__mro__:
        names |= {name for name in vars(ancestor).get("__annotations__", {}) if name[0] != "_"}
        if ancestor.__module__.startswith("faust") and not ancestor.__module__.startswith("faust.types"):
            overridden |= {name for name in vars(ancestor) if name[0] != "_"}
    return names - (SERVICE - overridden) if issubclass(class_, mode.Service) else names


def _keywords(*callables: Callable[..., Any], but: frozenset[str] = frozenset()) -> set[str]:
    """Keywords that the callables take together."""
    names = {name for each in callables for name in inspect.signature(each).parameters}
    return names - {"self", "app", "fun", "kwargs", *but}


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, set[str]]:
    """What the installed faust has, by section of the page."""
    app = stock_app(Broker(), tmp_path)
    topic = app.topic("orders")

    @agent(app, topic, name="reader")
    async def reader(stream: Any) -> None:
        async for _ in stream:
            pass

    table, set_table = app.Table("spend", partitions=1), app.SetTable("seen", partitions=1)
    of_settings = {name for name in dir(Settings) if name[0] != "_"}
    return {
        "faust": {name for name in dir(faust) if name[0] != "_"},
        "App": _public(faust.App, app),
        "App options": _keywords(faust.App.__init__, but=frozenset({"options"})),
        "app.agent options": _keywords(faust.App.agent, faust.Agent.__init__),
        "Agent": _public(faust.Agent, reader),
        "app.topic options": _keywords(faust.App.topic),
        "Topic": _public(faust.Topic, topic),
        "Stream": _public(faust.Stream, app.stream(topic)),
        "app.Table options": _keywords(faust.App.Table, faust.App.SetTable, Collection.__init__),
        "Table": _public(faust.Table, table),
        "SetTable": _public(faust.SetTable, set_table),
        "Event": _public(Event),
        "Record": _public(faust.Record),
        "Record class options": set(inspect.signature(faust.Record.__init_subclass__).parameters),
        "Worker": _public(faust.Worker),
        "Settings": set(Settings.SETTINGS),
        "conf": of_settings - set(Settings.SETTINGS),
        "Service": SERVICE,
    }


def test_the_page_has_the_sections_that_are_walked(installed: dict[str, set[str]]) -> None:
    assert list(SECTIONS) == list(installed)


@pytest.mark.parametrize("section", list(SECTIONS))
def test_every_public_name_of_faust_is_listed_once_and_no_other(
    section: str, installed: dict[str, set[str]]
) -> None:
    listed = [row["name"] for row in SECTIONS[section]]
    assert sorted(listed) == sorted(installed[section])
