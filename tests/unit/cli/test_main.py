"""The command line itself: help, shared options, errors, start-up; in the process and as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headwater.cli.command import Group, _Shared
from headwater.cli.main import COMMANDS, cli
from tests.unit.cli.conftest import Run

ROOT = Path(__file__).parents[3]


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "headwater", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def all_commands() -> dict[str, _Shared]:
    found: dict[str, _Shared] = {}
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert isinstance(command, _Shared), name
        if isinstance(command, Group):
            for verb, inner in command.commands.items():
                assert isinstance(inner, _Shared), verb
                found[f"{name} {verb}"] = inner
        else:
            found[name] = command
    return found


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    context = click.Context(cli)
    for name, (_, _, sentence) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").startswith(sentence.split(":")[0].rstrip(".")), name


@pytest.mark.parametrize("name", sorted(all_commands()))
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    out = run(*name.split(), "--help").out
    assert "Example:" in out
    assert f"headwater {name.split()[0]}" in out or f" {name} " in f"{out} " or name == "completion"
    assert "--json" in out
    for option in all_commands()[name].params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts} has no help"


def test_help_comes_without_faust_pyarrow_or_rich() -> None:
    code = (
        "import sys\nfrom headwater.cli.main import cli\ncli(['--help'], standalone_mode=False)\n"
        "heavy = {'faust', 'pyarrow', 'rich', 'sqlite3', 'aiokafka', 'rocksdict'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "framework")}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["send", "words", "1"],
        ["read", "words"],
        ["topics"],
        ["config"],
        ["archive", "run", "--until-idle"],
        ["archive", "ls"],
        ["archive", "verify"],
        ["generations"],
    ],
    ids=" ".join,
)
def test_commands_without_an_app_do_not_import_faust(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom headwater.cli.main import cli\n"
        "try:\n    cli(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "assert not {'faust', 'mode', 'rich'} & set(sys.modules), {'faust', 'mode', 'rich'} & set(sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "framework")}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("place", ["before", "after", "group"])
def test_shared_options_stand_before_or_after_the_command(run: Run, tmp_path: Path, place: str) -> None:
    run("--log", "file://./elsewhere", "send", "words", "1")
    options = ["--log", "file://./elsewhere", "--json"]
    arguments = {
        "before": [*options, "topics"],
        "after": ["topics", *options],
        "group": ["archive", *options, "run", "--until-idle"],
    }[place]
    [row] = run(*arguments).rows
    assert row["records"] == 1
    assert not (tmp_path / ".headwater" / "log").exists()


def test_the_option_after_the_command_wins(run: Run) -> None:
    rows = run("--log", "file://./one", "config", "--log", "file://./two", "--json").rows
    assert rows[0] == {"setting": "log", "value": "file://./two", "origin": "option --log"}


def test_an_unknown_command_is_refused_with_near_names(run: Run) -> None:
    assert "no command 'topic'; did you mean 'topics'" in run("topic", code=2).err


def test_an_unknown_option_is_misuse(run: Run) -> None:
    assert "No such option: --fron" in run("read", "t", "--fron", "1", code=2).err


def test_an_error_is_one_message_and_its_traceback_is_there_when_asked_for(tmp_path: Path) -> None:
    plain = process("read", "nothing", cwd=tmp_path)
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert plain.stderr.count("\n") == 1
    assert plain.stderr.startswith("headwater: no topic 'nothing'")
    assert "Traceback" in process("read", "nothing", "--debug", cwd=tmp_path).stderr
    assert "Traceback" in process("read", "nothing", cwd=tmp_path, HEADWATER_TRACEBACK="1").stderr


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    lines = '{"key": "k", "value": "' + "x" * 1000 + '"}\n'
    (tmp_path / "many.jsonl").write_text(lines * 2000)
    assert process("send", "many", "--file", "many.jsonl", cwd=tmp_path).returncode == 0
    paths = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-m", "headwater", "read", "many"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as reader:  # fmt: skip
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.readline()
        reader.stdout.close()
        assert reader.stderr.read() == b""
        assert reader.wait(timeout=30) == 0


def test_a_log_that_cannot_be_opened_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "file" in run("--log", "file://./file", "topics", code=1).err
    found = run("--log", "redis://nowhere:9092", "topics", code=2)
    assert "can't open the log 'redis://nowhere:9092'" in found.err


def test_a_broker_that_is_not_there_is_named_at_once(run: Run) -> None:
    found = run("--log", "kafka://127.0.0.1:1", "topics", code=1)
    assert found.err.startswith("headwater: no Kafka broker answers at kafka://127.0.0.1:1: 127.0.0.1:1 (")
    assert "headwater doctor" in found.err
    assert len(found.err.strip().splitlines()) == 1
    for wrong in ("kafka://", "kafka://host:port", "kafka://:9"):
        assert "kafka://HOST:PORT" in run("--log", wrong, "topics", code=2).err


def test_the_doctor_says_what_is_there_and_what_is_not(run: Run) -> None:
    rows = {row["check"]: row for row in run("doctor", "--json").rows}
    assert {rows[check]["state"] for check in ("versions", "state", "clock", "log", "archive")} == {"ok"}
    rows = {row["check"]: row for row in run("--log", "kafka://127.0.0.1:1", "doctor", "--json", code=1).rows}
    assert rows["log"]["state"] == "failed"
    assert "start the brokers" in rows["log"]["advice"]


def test_config_says_where_each_value_came_from_and_hides_secrets(
    run: Run, words_app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_ARCHIVE", "s3://me:swordfish@bucket/x?token=plugh")
    rows = {row["setting"]: row for row in run("-A", words_app, "--state", "here", "config", "--json").rows}
    assert rows["log"]["origin"] == "default"
    assert rows["state"] == {"setting": "state", "value": "here", "origin": "option --state"}
    assert rows["archive"]["origin"] == "environment HEADWATER_ARCHIVE"
    assert rows["retries"] == {"setting": "retries", "value": "0", "origin": "App(retries=…)"}
    shown = run("config").out
    assert "swordfish" not in shown + str(rows)
    assert "plugh" not in shown + str(rows)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run: Run, shell: str) -> None:
    assert "_HEADWATER_COMPLETE" in run("completion", shell).out
