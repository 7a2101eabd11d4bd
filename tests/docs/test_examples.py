"""The pages' commands run as they are printed, one after the other, and print what the pages say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.tree import ROOT

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
EXIT_CODES = {"diff": 3}
"""What a command ends with on these pages, where it is not 0: their generations differ."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder in which the example apps have the name they are installed under."""
    (tmp_path / "headwater_apps").symlink_to(ROOT / "apps")
    return tmp_path


def run(line: str, folder: Path) -> str:
    """Run a page's command line in the folder, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    environment["PYTHONPATH"] = str(ROOT / "framework")
    program, *words = shlex.split(line)
    assert program == "headwater", line
    done = subprocess.run(
        [sys.executable, "-m", "headwater", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = next((code for verb, code in EXIT_CODES.items() if verb in words), 0)
    assert done.returncode == expected, f"{line}\n{done.stderr}"
    return done.stdout


def follow(text: str, folder: Path) -> int:
    """Run the commands of a page's part and compare what it shows; return how many answers it showed."""
    printed, shown = "", 0
    for language, body in BLOCK.findall(text):
        if language == "text":
            assert printed == body
            shown += 1
        elif language == "python":
            write_app(body, folder / "clicks.py")
        else:
            for line in body.splitlines():
                printed = run(line, folder)
    return shown


def write_app(code: str, app: Path) -> None:
    """Save a page's module, or put the loop that it shows in the place of the module's own."""
    if "async def" in code:
        app.write_text(code, encoding="utf-8")
        return
    before, loop, _ = app.read_text(encoding="utf-8").partition("    async for click in stream:\n")
    assert code.startswith(loop)
    app.write_text(before + code, encoding="utf-8")


def part(page: str, first: str, last: str) -> str:
    """Return a page's text from one heading to another."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.index(first) < text.index(last)
    return text[text.index(first) : text.index(last)]


def test_the_readmes_ten_lines_print_what_it_says(folder: Path) -> None:
    assert follow(part("README.md", "## Ten lines", "## More"), folder) == 1


def test_the_first_own_app_and_its_change_print_what_the_page_says(folder: Path) -> None:
    assert follow(part("docs/start.md", "## Your own app", "## The flights app"), folder) == 4
