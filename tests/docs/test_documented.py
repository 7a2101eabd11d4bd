"""Every command, option, JSON field, setting and error class is in the reference, as it is; examples in all pages parse."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import click
import pytest

from headwater.cli.app_command import AppCommandError
from headwater.cli.command import Group, _Shared
from headwater.cli.main import COMMANDS, cli
from headwater.cli.target import AppImportError
from headwater.core import errors
from headwater.core.settings import DEFAULTS, PREFIX
from tests.docs.tree import ROOT, documented_pages

REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
PAGES = [*documented_pages(), ROOT / "README.md"]
CONTEXT = click.Context(cli)


def commands() -> dict[str, _Shared]:
    """Return every command by the words that are typed."""
    found: dict[str, _Shared] = {}
    for name in COMMANDS:
        command = cli.get_command(CONTEXT, name)
        assert isinstance(command, _Shared)
        if isinstance(command, Group):
            found |= {
                f"{name} {verb}": inner
                for verb, inner in command.commands.items()
                if isinstance(inner, _Shared)
            }
        else:
            found[name] = command
    return found


def section(name: str) -> str:
    found = re.search(rf"^### `headwater {name}`[^\n]*\n(.*?)(?=^##|\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section for `headwater {name}`"
    return found.group(1)


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_is_documented_with_its_help_options_arguments_and_example(name: str) -> None:
    command, text = commands()[name], section(name)
    assert one_line(inspect.cleandoc(command.help or "")) in one_line(text)
    context = click.Context(command, info_name=name)
    for parameter in command.params:
        if parameter in command._shared:
            continue
        if isinstance(parameter, click.Argument):
            assert f"`{parameter.make_metavar(context)}`" in text
            continue
        record = parameter.get_help_record(context)
        assert record is not None
        written, meaning = (part.replace("|", "\\|") for part in record)
        assert f"| `{written}` | {meaning} |" in text
    assert command.example in text


def test_no_option_is_documented_that_is_none() -> None:
    for name, command in commands().items():
        there = {opt for parameter in command.params for opt in parameter.opts}
        for row in re.findall(r"^\| `(-[^`]+)` \|", section(name), re.MULTILINE):
            for option in re.findall(r"--?[a-zA-Z][\w-]*", row.split(" [")[0]):
                assert option in there, f"{name} has no {option}"


def test_the_shared_options_are_documented() -> None:
    shared = re.search(r"^## Options of every command\n(.*?)(?=^## )", REFERENCE, re.MULTILINE | re.DOTALL)
    assert shared is not None
    for parameter in cli._shared:
        record = parameter.get_help_record(CONTEXT)
        assert record is not None
        assert f"| `{record[0]}` | {record[1]} |" in shared.group(1)


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    for name, default in DEFAULTS.items():
        row = next(line for line in REFERENCE.splitlines() if f"`--{name}`" in line and "App(" in line)
        assert f"`{PREFIX}{name.upper()}`" in row
        assert f"`App({name}=…)`" in row
        assert f"`{default}`" in row
    assert "`HEADWATER_TRACEBACK`" in REFERENCE


def test_every_error_class_is_documented_with_its_exit_code() -> None:
    classes: list[type[errors.HeadwaterError]] = [AppImportError, AppCommandError]
    classes += [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.HeadwaterError)
    ]
    rows = dict(re.findall(r"^\| `(\w+Error)` \| (\d) \|", REFERENCE, re.MULTILINE))
    assert rows == {found.__name__: str(found.exit_code) for found in classes}


def test_every_command_with_json_output_has_its_fields_documented() -> None:
    own_output = {"demo", "worker"}
    for name in commands().keys() - own_output:
        assert re.search(r"^JSON: .*`\w+`", section(name), re.MULTILINE), name


def examples(page: Path) -> list[str]:
    """Return the command lines of a page's code blocks."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    joined = (block.replace("\\\n", " ") for block in blocks)
    return [
        line.strip() for block in joined for line in block.splitlines() if re.match(r"\s*headwater ", line)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_command_lines_of_a_page_name_commands_and_options_that_are_there(page: Path) -> None:
    """Parsed as click would parse them, and not run."""
    for line in examples(page):
        words = shlex.split(line.split(" | ")[0], comments=True)[1:]
        if "…" in line or "[" in line:
            continue
        context: click.Context = click.Context(cli, info_name="headwater")
        rest = list(words)
        command: click.Command = cli
        while True:
            context = command.make_context(command.name, rest, parent=None if command is cli else context)
            if not isinstance(command, click.Group):
                break
            rest = [*context._protected_args, *context.args]
            assert rest, f"{page.name}: {line}: no command"
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None, line
            command = found
