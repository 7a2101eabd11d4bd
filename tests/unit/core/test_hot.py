"""The hot path in C and in Python do the same; what they don't do themselves they hand to `_read`, `_write`, `_delete`, `more`."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from headwater.core import hot, hot_python
from headwater.core.settings import COMPILED


def implementations() -> list[Any]:
    found: list[Any] = [pytest.param(hot_python, id="python")]
    try:
        from headwater.core import _hot
    except ImportError:
        return found
    return [*found, pytest.param(_hot, id="compiled")]


def can_compile() -> bool:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(compiler) is not None and header.exists()


def test_the_extension_is_there_where_it_can_be_built() -> None:
    if not can_compile():
        pytest.skip("no C compiler or no header files of this Python: Headwater runs on hot_python")
    if os.environ.get(COMPILED) == "0":
        pytest.skip(f"{COMPILED}=0 asks for Python")
    if not hot.is_compiled and "CI" not in os.environ:
        pytest.skip("this checkout was not installed: pip install -e . builds the extension")
    assert hot.is_compiled, "pip install -e '.[test]' did not build headwater.core._hot"


def test_python_can_be_asked_for() -> None:
    code = "from headwater.core import hot; print(hot.is_compiled, hot.HotTable.__module__)"
    shown = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, COMPILED: "0"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert shown.stdout.split() == ["False", "headwater.core.hot_python"]


class World:
    """A table over one implementation, with a frame in hand, and what was left to Python."""

    def __init__(self, made: Any) -> None:
        class Table(made.HotTable):  # type: ignore[misc]
            def __init__(self, world: World) -> None:
                self.number = 7
                self.world = world

            def _read(self, key: Any) -> Any:
                self.world.told.append(("read", key))
                return "read"

            def _write(self, key: Any, value: Any) -> None:
                self.world.told.append(("write", key, value))

            def _delete(self, key: Any) -> None:
                self.world.told.append(("delete", key))

        class Part(made.HotPart):  # type: ignore[misc]
            __slots__ = ("other",)

        class Frame(made.HotFrame):  # type: ignore[misc]
            __slots__ = ("other",)

        self.made = made
        self.told: list[tuple[Any, ...]] = []
        self.table = Table(self)
        self.part = Part()
        self.part.hot, self.part.keys, self.part.values, self.part.rows = {"a": 1.5}, [], [], []
        self.part.number_kind = float
        self.frame = Frame()
        self.frame.row, self.frame.parts = 3, {7: self.part}

    def run(self, code: Any) -> Any:
        def inside() -> Any:
            self.made.CURRENT.set(self.frame)
            return code()

        return contextvars.copy_context().run(inside)

    def changes(self) -> list[tuple[Any, Any, int]]:
        return list(zip(self.part.keys, self.part.values, self.part.rows, strict=True))


@pytest.fixture(params=implementations())
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_a_row_that_is_known_is_read_and_set_at_once(world: World) -> None:
    def code() -> None:
        world.table["a"] += 1.0
        world.frame.row = 4
        world.table["a"] += 0.25

    world.run(code)
    assert world.changes() == [("a", 2.5, 3), ("a", 2.75, 4)]
    assert world.part.hot == {"a": 2.75}
    assert world.told == []


@pytest.mark.parametrize("key", ["b", 1, None, ("a",), b"a", 1.5])
def test_what_is_not_known_is_read_the_long_way(world: World, key: Any) -> None:
    assert world.run(lambda: world.table[key]) == "read"
    assert world.told == [("read", key)]


def test_a_key_that_no_dictionary_takes_goes_the_long_way(world: World) -> None:
    def code() -> None:
        assert world.table[["a"]] == "read"
        world.table[["a"]] = 1.0
        del world.table[["a"]]

    world.run(code)
    assert world.told == [("read", ["a"]), ("write", ["a"], 1.0), ("delete", ["a"])]
    assert world.changes() == []


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e301, 1, True, None, "x", [1.0]]
)
def test_other_values_are_written_the_long_way(world: World, value: Any) -> None:
    def code() -> None:
        world.table["a"] = value

    world.run(code)
    assert world.changes() == []
    assert world.part.hot == {"a": 1.5}
    assert len(world.told) == 1
    assert world.told[0][2] is value


@pytest.mark.parametrize("value", [0, -1, 2**62, -(2**63)])
def test_whole_numbers_are_taken_where_they_were_taken_before(world: World, value: int) -> None:
    world.part.number_kind = int

    def code() -> None:
        world.table["a"] = value
        world.table["a"] = True  # another type, though a subclass
        world.table["b"] = value  # a new key

    world.run(code)
    assert world.changes() == [("a", value, 3)]
    assert world.told == [("write", "a", True), ("write", "b", value)]


def test_a_number_too_long_for_the_short_way_is_still_set(world: World) -> None:
    world.part.number_kind = int
    huge = 10**400

    def code() -> None:
        world.table["a"] = huge

    world.run(code)
    assert world.changes() == []
    assert world.told == [("write", "a", huge)]


@pytest.mark.parametrize("without", ["frame", "part"])
def test_out_of_reach_everything_goes_the_long_way(world: World, without: str) -> None:
    def code() -> None:
        assert world.table["a"] == "read"
        world.table["a"] = 2.0
        del world.table["a"]

    if without == "frame":
        code()
    else:
        world.frame.parts = {}
        world.run(code)
    assert world.told == [("read", "a"), ("write", "a", 2.0), ("delete", "a")]
    assert world.changes() == []


def test_errors_of_the_long_way_come_through(world: World) -> None:
    class Refusing(type(world.table)):  # type: ignore[misc]
        def _read(self, key: Any) -> Any:
            raise LookupError(key)

        def _write(self, key: Any, value: Any) -> None:
            raise LookupError(key)

        _delete = _read

    table = Refusing(world)
    for code in (lambda: table["b"], lambda: table.__setitem__("b", 1.0), lambda: table.__delitem__("b")):
        with pytest.raises(LookupError, match="b"):
            world.run(code)


def test_an_error_of_a_key_itself_comes_through(world: World) -> None:
    class Broken:
        def __hash__(self) -> int:
            raise ZeroDivisionError

    for code in (lambda: world.table[Broken()], lambda: world.table.__setitem__(Broken(), 1.0)):
        with pytest.raises(ZeroDivisionError):
            world.run(code)
    assert world.changes() == []


class Source:
    """Entries over lists given in turn, as a feed gives them."""

    def __init__(self, made: Any, works: list[tuple[Any, Any]]) -> None:
        class Frame(made.HotFrame):  # type: ignore[misc]
            __slots__ = ()

        self.frame = Frame()
        self.frame.row = -1
        self.works = works
        self.waits = 0
        self.entries = made.Entries(self.frame, self.more)

    async def more(self) -> Any:
        self.waits += 1
        await asyncio.sleep(0)
        if not self.works:
            raise EOFError
        rows, values = self.works.pop(0)
        self.entries.load(rows, values)
        return self.entries.take()


async def collected(entries: Any, each: Any = lambda value: value) -> list[Any]:
    found = []
    try:
        async for value in entries:
            found.append(each(value))
    except EOFError:
        return found
    raise AssertionError("entries have no end of their own")


@pytest.fixture(params=implementations())
def made(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_values_come_in_order_each_with_its_row(made: Any) -> None:
    source = Source(
        made, [(range(5, 8), ["a", "b", None]), ([11, 13], ("c", StopIteration)), (range(1), [("x", "y")])]
    )
    seen = await collected(source.entries, lambda value: (source.frame.row, value))
    assert seen == [(5, "a"), (6, "b"), (7, None), (11, "c"), (13, StopIteration), (0, ("x", "y"))]


async def test_a_second_loop_goes_on_where_the_first_was_left(made: Any) -> None:
    source = Source(made, [(range(4), list("abcd"))])
    async for value in source.entries:
        if value == "b":
            break
    assert await collected(source.entries) == ["c", "d"]


async def test_what_is_cleared_is_not_handed_out(made: Any) -> None:
    source = Source(made, [(range(3), list("abc")), (range(3, 4), ["d"])])

    def told(value: Any) -> Any:
        if value == "a":
            source.entries.clear()
        return value

    assert await collected(source.entries, told) == ["a", "d"]
    with pytest.raises(IndexError):
        source.entries.take()


async def test_a_wait_that_is_given_up_takes_nothing(made: Any) -> None:
    source = Source(made, [(range(2), ["a", "b"])])
    iterator = aiter(source.entries)
    assert await anext(iterator) == "a"
    given_up = asyncio.ensure_future(_of(anext(iterator)))
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await asyncio.wait_for(_of(anext(iterator)), 1) == "b"


async def _of(awaitable: Any) -> Any:
    return await awaitable


@pytest.mark.skipif(not hot.is_compiled, reason="the extension is not there")
async def test_values_asked_for_ahead_come_in_the_order_they_are_awaited() -> None:
    from headwater.core import _hot

    source = Source(_hot, [(range(2), ["a", "b"]), (range(2, 3), ["c"])])
    iterator = aiter(source.entries)
    assert await anext(iterator) == "a"
    # Three awaitables while one value is left: the others wait for what comes next.
    first, second, third = (anext(iterator) for _ in range(3))
    assert await first == "b"
    assert await second == "c"
    with pytest.raises(EOFError):
        await third


@pytest.mark.skipif(not hot.is_compiled, reason="the extension is not there")
async def test_a_cancellation_reaches_what_a_value_waits_for() -> None:
    from headwater.core import _hot

    source = Source(_hot, [(range(1), ["a"])])
    told: list[str] = []

    async def more() -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    entries = _hot.Entries(source.frame, more)
    entries.load(range(1), ["a"])
    first, second = anext(entries), anext(entries)
    assert await first == "a"
    waiting = asyncio.ensure_future(_of(second))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told == ["cancelled"]


@pytest.mark.skipif(not hot.is_compiled, reason="the extension is not there")
async def test_nothing_is_kept_for_ever_and_nothing_is_freed_too_early() -> None:
    from headwater.core import _hot

    world = World(_hot)
    key, value, marker = "a" * 30, 2.0**0.5, object()
    counts = [sys.getrefcount(thing) for thing in (key, value, marker)]
    world.part.hot[key] = 1.0

    def code() -> None:
        for _ in range(1000):
            world.table[key] = value
            assert world.table[key] is value
            with pytest.raises(TypeError):
                hash([])
            assert world.table[[]] == "read"

    world.run(code)
    world.part.keys, world.part.values, world.part.rows, world.part.hot = [], [], [], {}
    world.told.clear()
    source: Any = Source(_hot, [(range(1000), [marker] * 1000)])
    assert await collected(source.entries, lambda value: value is marker) == [True] * 1000
    # Entries and their source hold each other: only the collector frees them.
    del source
    gc.collect()
    assert [sys.getrefcount(thing) for thing in (key, value, marker)] == counts


@pytest.mark.skipif(not hot.is_compiled, reason="the extension is not there")
def test_wrong_arguments_are_refused() -> None:
    from headwater.core import _hot

    frame = _hot.HotFrame()
    entries = _hot.Entries(frame, _of)  # type: ignore[arg-type]
    for rows, values in ((range(1), 5), (5, ["a"])):
        with pytest.raises(TypeError):
            entries.load(rows, values)  # type: ignore[arg-type]
    entries.load(["x"], ["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        entries.take()
    with pytest.raises(TypeError):
        _hot.Entries(object(), _of)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        _ = frame.parts
    with pytest.raises(TypeError):
        frame.row = "1"  # type: ignore[assignment]


@pytest.mark.parametrize(
    "keys", [[], ["a"], ["a", b"a", "a", "b"], list("abcab") * 50, [str(at % 7) for at in range(1000)]]
)
def test_where_each_key_comes_last(made: Any, keys: list[Any]) -> None:
    expected = [at for at, key in enumerate(keys) if key not in keys[at + 1 :]]
    assert made.last_indices(keys) == expected


def test_keys_that_no_set_takes_are_refused(made: Any) -> None:
    with pytest.raises(TypeError):
        made.last_indices([["a"]])
