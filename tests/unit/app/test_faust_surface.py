"""docs/reference/faust.md against the installed faust and against Headwater's classes: every row says what is so."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import faust.types.settings
import pytest

import headwater as hw
from headwater.app import options
from headwater.app.agent import REFUSED_AGENT_OPTIONS
from headwater.app.app import REFUSED_TOPIC_OPTIONS
from headwater.app.event import Event
from headwater.app.table import REFUSED_TABLE_OPTIONS
from tests.unit.app.frames import frame_over, hand

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "faust.md"
_ROW = re.compile(r"\| `(\w+)` \| (same|changed|refused) \| (.+) \|$")


def sections() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            rows = found.setdefault(line[3:].strip(), {})
        elif row := _ROW.match(line):
            rows[row[1]] = row[2]
    return found


SECTIONS = sections()


async def nothing(stream: Any) -> None:
    async for _ in stream:
        pass


def make(kind: str) -> Any:
    app = hw.App("app")
    topic = app.topic("topic")
    table = app.Table("table")
    frame = frame_over(table)
    work = hand(frame, [b"k"])
    made: dict[str, Callable[[], Any]] = {
        "App": lambda: app,
        "Agent": lambda: app.agent(topic)(nothing),
        "Topic": lambda: topic,
        "Stream": topic.stream,
        "Table": lambda: table,
        "SetTable": lambda: app.SetTable("sets"),
        "Event": lambda: Event(app, work, 0),
    }
    return made[kind]()


CLASSES = ["App", "Agent", "Topic", "Stream", "Table", "SetTable", "Event"]
FAUST: dict[str, type] = {name: getattr(faust, name) for name in CLASSES}


def refusal_of(thing: Any, name: str) -> str | None:
    """Return what using a member raises, or None where it is there."""
    try:
        member = getattr(thing, name)
    except hw.HeadwaterError as error:
        return str(error)
    if getattr(member, "refused", None) is None:
        return None
    with pytest.raises(hw.HeadwaterError) as caught:
        member()
    return str(caught.value)


def wrong_members(kind: str) -> list[str]:
    async def look() -> list[str]:
        thing = make(kind)
        wrong = []
        for name, status in SECTIONS[kind].items():
            try:
                refusal = refusal_of(thing, name)
            except AttributeError:
                wrong.append(f"{name}: {status}, but not there")
                continue
            if status == "refused" and (refusal is None or "instead: " not in refusal):
                wrong.append(f"{name}: refused, but there")
            if status != "refused" and refusal is not None:
                wrong.append(f"{name}: {status}, but raises {refusal}")
        if kind == "App":
            await thing._maybe_close_http_client()
        return wrong

    return asyncio.run(look())


@pytest.mark.parametrize("kind", CLASSES)
def test_each_member_is_what_the_page_says(kind: str) -> None:
    assert wrong_members(kind) == []


def test_a_signal_that_is_never_sent_can_not_be_connected_to() -> None:
    with pytest.raises(hw.HeadwaterError, match=r"headers= of topic\.send"):
        hw.App("app").on_produce_message.connect(lambda *args, **kwargs: None)


@pytest.mark.parametrize("name", sorted(SECTIONS["Settings"]))
def test_each_setting_is_what_the_page_says(name: str) -> None:
    value: Any = (
        faust.types.settings.Settings.SETTINGS[name].default if name in options.ACCEPTED else "anything"
    )
    if SECTIONS["Settings"][name] == "refused":
        with pytest.raises(hw.MisuseError, match=rf"App\({name}=…\) is faust's .*instead: "):
            hw.App("app", **{name: value})
    else:
        hw.App("app", **{name: 3 if name in options.RENAMED else value})


def test_no_setting_of_faust_is_unknown() -> None:
    known = {*options.OWN, *options.ACCEPTED, *options.RENAMED, *options.REFUSED}
    assert set(faust.types.settings.Settings.SETTINGS) - known == set()


@pytest.mark.parametrize(
    ("section", "refused", "use"),
    [
        ("app.agent options", REFUSED_AGENT_OPTIONS, lambda app, given: app.agent("a", **given)(nothing)),
        ("app.topic options", REFUSED_TOPIC_OPTIONS, lambda app, given: app.topic("a", **given)),
        ("app.Table options", REFUSED_TABLE_OPTIONS, lambda app, given: app.Table("a", **given)),
    ],
)
def test_each_option_is_what_the_page_says(
    section: str, refused: Any, use: Callable[[Any, Any], Any]
) -> None:
    for name, status in SECTIONS[section].items():
        if status == "refused":
            value = 4 if name == "concurrency" else "anything"
            with pytest.raises(hw.MisuseError, match=name):
                use(hw.App("app"), {name: value})
        else:
            assert name not in refused
    # What faust's own signature has is on the page.
    method = {"app.agent options": "agent", "app.topic options": "topic", "app.Table options": "Table"}[
        section
    ]
    named = {
        name
        for name, parameter in inspect.signature(getattr(faust.App, method)).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name != "self"
    }
    assert named <= set(SECTIONS[section])


@pytest.mark.parametrize("name", sorted(set(SECTIONS["faust"]) - {"Worker"}))
def test_each_name_at_the_root_is_what_the_page_says(name: str) -> None:
    if SECTIONS["faust"][name] == "refused":
        with pytest.raises(hw.HeadwaterError, match="instead: "):
            getattr(hw, name)
        assert not hasattr(hw, name)
    else:
        assert getattr(hw, name) is not None


def test_the_root_has_25_names_at_most() -> None:
    assert len(hw.__all__) <= 25
    assert all(hasattr(hw, name) for name in hw.__all__)
