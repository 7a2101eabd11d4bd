"""The pages: one title each, links that lead somewhere, and a README that opens with two commands."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.tree import ROOT, documented_pages

PAGES = [*documented_pages(), ROOT / "README.md", ROOT / "CHANGELOG.md"]
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")

COMMANDS = [
    "demo",
    "worker",
    "send",
    "read",
    "trim",
    "topics",
    "replay",
    "generations",
    "diff",
    "promote",
    "rollback",
    "discard",
    "doctor",
    "archive run",
    "archive ls",
    "archive verify",
    "table ls",
    "table get",
    "table dump",
    "dead ls",
    "dead show",
    "dead redrive",
    "config",
]


def bare(code: str) -> str:
    """Return code without docstrings, annotations of functions, and layout, to compare what it does."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
        if isinstance(node, ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(tree)


def prose(page: Path) -> str:
    """Return a page without its code blocks, where `#` begins a comment."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_one_title_and_it_comes_first(page: Path) -> None:
    text = prose(page)
    assert text.lstrip().startswith("# ")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_pages_links_lead_to_files_that_are_there(page: Path) -> None:
    targets = [target for target in LINK.findall(prose(page)) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_opens_with_exactly_two_commands() -> None:
    before, block, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("```", 2)
    assert before.strip() == "# Headwater", "the commands come first"
    language, *lines = block.split("\n")
    assert language == ""
    commands = [line for line in lines if line]
    assert len(commands) == 2
    assert not any(command.startswith(("$", "#", ">")) for command in commands)
    assert commands[0].endswith("headwater demo")
    assert "pytest" in commands[1]


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_ten_lines_are_the_clicks_app(page: str) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert example is not None
    app = (ROOT / "apps" / "clicks" / "__init__.py").read_text(encoding="utf-8")
    assert bare(example.group(1)) == bare(app)


def test_every_command_has_a_heading_and_an_example() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^### `headwater ([a-z ]+?)`\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
    )
    assert sorted(sections) == sorted(COMMANDS)
    for command, section in sections.items():
        assert re.search(rf"```\nheadwater [^\n]*\b{command}\b", section), f"{command} has no example"


def test_every_decision_is_numbered_once_and_has_the_templates_headings() -> None:
    notes = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [note.name[:4] for note in notes]
    assert len(set(numbers)) == len(numbers)
    headings = re.findall(r"^## .+", notes[0].read_text(encoding="utf-8"), flags=re.MULTILINE)
    for note in notes:
        assert re.findall(r"^## .+", note.read_text(encoding="utf-8"), flags=re.MULTILINE) == headings, (
            note.name
        )


def test_pytest_and_ruff_are_set_up_as_the_docs_say() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["pytest"]["ini_options"]["filterwarnings"] == ["error"]
    assert settings["ruff"]["line-length"] == 110


def test_the_architecture_names_only_files_that_are_there() -> None:
    page = (ROOT / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", page)
    assert len(named) > 15
    framework = ROOT / "framework" / "headwater"
    assert [name for name in named if not ((framework / name).exists() or (ROOT / name).exists())] == []
