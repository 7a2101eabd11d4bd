"""Commands that an app declares, in faust's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

APP = '''
import faust.cli

import headwater as hw

app = hw.App("commands")
numbers = app.topic("numbers", value_type=int, partitions=1)


@app.command(faust.cli.argument("count", type=int), faust.cli.option("--first", type=int, default=0))
async def count_up(self, count: int, first: int) -> None:
    """Send numbers."""
    for number in range(first, first + count):
        await numbers.send(key="k", value=number)
    print("counted")


@app.command()
async def stumble() -> None:
    """Fail."""
    raise ValueError("a stone")
'''


@pytest.fixture
def commands_app(tmp_path: Path, run: Run) -> str:
    (tmp_path / "commands_app.py").write_text(APP)
    return "commands_app"


def test_a_command_of_the_app_runs_and_sends_where_the_options_say(run: Run, commands_app: str) -> None:
    place = ["--log", "file://./there"]
    assert run("-A", commands_app, *place, "count-up", "2", "--first", "7").out == "counted\n"
    assert [row["value"] for row in run(*place, "read", "numbers").rows] == [7, 8]


def test_the_help_lists_the_commands_of_the_app(run: Run, commands_app: str) -> None:
    out = run("-A", commands_app, "--help").out
    assert "Commands of the app:" in out
    assert "Send numbers." in out
    assert "--first" in run("-A", commands_app, "count-up", "--help").out


def test_a_command_that_raises_is_one_message_with_its_line(run: Run, commands_app: str) -> None:
    err = run("-A", commands_app, "stumble", code=1).err
    line = APP.splitlines().index('    raise ValueError("a stone")') + 1
    assert "command 'stumble' failed: ValueError: a stone" in err
    assert f"commands_app.py:{line}" in err


def test_a_misspelt_command_of_the_app_is_offered(run: Run, commands_app: str) -> None:
    assert "no command 'stumbl'; did you mean 'stumble'" in run("-A", commands_app, "stumbl", code=2).err
