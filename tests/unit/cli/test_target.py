"""What -A names, and each way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run

TWO_APPS = 'import headwater as hw\none = hw.App("one")\ntwo = hw.App("two")\n'


def test_the_current_directory_is_searched_first(run: Run, words_app: str) -> None:
    assert [row["agent"] for row in run("-A", words_app, "agents", "--json").rows] == ["count"]
    assert "counts" in run("-A", f"{words_app}:app", "models").out


@pytest.mark.parametrize(
    "spec, code, message",
    [
        ("word_app", 2, "no module 'word_app' in .*; did you mean 'words_app'"),
        ("words_app:ap", 2, "module 'words_app': no app 'ap'; did you mean 'app'"),
        ("words_app:words", 2, "module 'words_app': 'words' is Topic, not an App"),
        ("words_app.inner", 2, "no module 'words_app.inner'"),
        ("./words_app.py", 2, "takes a module, not a file.*write -A words_app"),
        (":app", 2, "names no module"),
        ("two_apps", 2, "has several apps; name one: -A two_apps:one, -A two_apps:two"),
        ("empty", 2, "has no App"),
        (
            "raises",
            1,
            r"module 'raises' can't be imported: ZeroDivisionError: division by zero \(.*raises.py:3\)",
        ),
        ("misspelt", 1, r"module 'misspelt' can't be imported: SyntaxError: .*misspelt.py:2\)"),
        (
            "lacking",
            1,
            r"module 'lacking' can't be imported: ModuleNotFoundError: No module named 'not_there_at_all'",
        ),
        ("leaving", 1, r"module 'leaving' ended the program .*exit code 3"),
    ],
)
def test_a_target_that_is_none_is_refused_by_one_clear_message(
    run: Run, tmp_path: Path, words_app: str, spec: str, code: int, message: str
) -> None:
    import re

    (tmp_path / "two_apps.py").write_text(TWO_APPS)
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "raises.py").write_text("def f():\n    x = 1\n    return x / 0\nf()\n")
    (tmp_path / "misspelt.py").write_text("x = 1\nx ==== 2\n")
    (tmp_path / "lacking.py").write_text("import not_there_at_all\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    err = run("-A", spec, "agents", code=code).err
    assert re.search(message, err), err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["worker", "agents", "models"])
def test_a_command_that_needs_an_app_says_how_to_name_one(run: Run, command: str) -> None:
    assert (
        f"`{command}` needs an app; name its module: headwater -A module[:app] {command}"
        in run(command, code=2).err
    )


def test_commands_about_an_app_find_the_only_one_of_the_log(run: Run) -> None:
    assert "no app has run on the log" in run("generations", code=2).err
    run("send", "one.control", "1", "--partitions", "1")
    assert "no generation 'live'" in run("table", "ls", code=2).err
    run("send", "two.control", "1", "--partitions", "1")
    assert "several apps use the log" in run("table", "ls", code=2).err
