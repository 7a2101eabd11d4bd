"""The files of the project, as the tidiness tests read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FRAMEWORK = ROOT / "framework" / "headwater"
CODE = (ROOT / "framework", ROOT / "apps", ROOT / "tests", ROOT / "benchmarks")
TEXT_SUFFIXES = {".py", ".pyi", ".c", ".md", ".cfg", ".toml", ".sql", ".sh", ""}


def python_files(*folders: Path) -> list[Path]:
    """Return all modules below the folders, without what running them made."""
    return sorted(path for folder in folders for path in folder.rglob("*.py") if not is_made(path))


def text_files() -> Iterator[Path]:
    """Yield every text file that people wrote."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and is_text(path))
    for folder in (*CODE, ROOT / "docs", ROOT / ".ci"):
        yield from (path for path in folder.rglob("*") if path.is_file() and is_text(path))


def is_text(path: Path) -> bool:
    """Whether a file is text that people wrote, and not the licence (nor what a worktree has in place of a folder)."""
    return path.suffix in TEXT_SUFFIXES and not is_made(path) and path.name not in ("LICENSE", ".git")


def is_made(path: Path) -> bool:
    """Whether a file was made by running or building something."""
    inside = path.relative_to(ROOT).parts[:-1]
    return any(part == "__pycache__" or part.endswith(".egg-info") for part in inside) or any(
        part.startswith(".") and part != ".ci" for part in inside
    )


@cache
def parsed(path: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for such an expression, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def imports(path: Path) -> set[str]:
    """Return the absolute names a module imports, `from a import b` as `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def resolved_names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute name) of every name used, `now` as `datetime.datetime.now` where it was imported so."""
    known: dict[str, str] = {}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            known.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            known.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute | ast.Name) and (name := dotted(node)):
            first, dot, rest = name.partition(".")
            if first in known:
                yield node.lineno, f"{known[first]}{dot}{rest}"


def documented_pages() -> list[Path]:
    """Return the pages of the docs."""
    return sorted((ROOT / "docs").rglob("*.md"))
