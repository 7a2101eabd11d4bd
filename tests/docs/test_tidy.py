"""What no linter sees: names, calls and imports that have a better place, and packages nobody listed."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from tests.docs.tree import (
    CODE,
    FRAMEWORK,
    ROOT,
    imports,
    parsed,
    python_files,
    resolved_names,
    text_files,
)

NOUNLESS_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}

BANNED_CALLS = {
    "time.time": "headwater.core.clock",
    "time.time_ns": "headwater.core.clock",
    "time.monotonic": "headwater.core.clock",
    "time.monotonic_ns": "headwater.core.clock",
    "datetime.datetime.now": "headwater.core.clock",
    "datetime.datetime.utcnow": "headwater.core.clock",
    "datetime.datetime.today": "headwater.core.clock",
    "datetime.date.today": "headwater.core.clock",
    "random.random": "a random.Random that is passed in",
    "random.randint": "a random.Random that is passed in",
    "random.randrange": "a random.Random that is passed in",
    "random.choice": "a random.Random that is passed in",
    "random.choices": "a random.Random that is passed in",
    "random.sample": "a random.Random that is passed in",
    "random.shuffle": "a random.Random that is passed in",
    "random.uniform": "a random.Random that is passed in",
    "random.seed": "a random.Random that is passed in",
    "os.environ": "headwater.core.settings",
    "os.getenv": "headwater.core.settings",
}
ALLOWED_IN = {
    "headwater.core.clock": FRAMEWORK / "core" / "clock.py",
    "headwater.core.settings": FRAMEWORK / "core" / "settings.py",
}
PARQUET_PACKAGES = {"archive", "lake"}

# Written in parts, so that this file doesn't find itself.
PLACES = "|".join(["work", "opt", "root", "tmp", "home", "Users"])
MACHINE_PATH = re.compile(rf"(?<![\w.~:/*-])/(?:{PLACES})/\w")
HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + "hosted", "crates" + r"\.io", "repo1" + r"\.maven"])
)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_or_folder_has_a_name_without_a_noun() -> None:
    named = [
        shown(path)
        for folder in CODE
        for path in folder.rglob("*")
        if path.stem in NOUNLESS_NAMES and (path.is_dir() or path.suffix == ".py")
    ]
    assert named == [], "name the file after the noun it serves"


def test_the_clock_the_environment_and_chance_come_from_one_place() -> None:
    found = []
    for path in python_files(FRAMEWORK, ROOT / "apps"):
        for line, name in resolved_names(path):
            place = BANNED_CALLS.get(name)
            if place is not None and ALLOWED_IN.get(place) != path:
                found.append(f"{shown(path)}:{line}: {name} (use {place})")
    assert found == []


def test_only_the_archive_and_the_lake_know_parquet() -> None:
    found = [
        shown(path)
        for path in python_files(FRAMEWORK)
        if path.relative_to(FRAMEWORK).parts[0] not in PARQUET_PACKAGES
        and any(name == "pyarrow.parquet" or name.startswith("pyarrow.parquet.") for name in imports(path))
    ]
    assert found == [], "read and write Parquet through headwater.archive"


def test_every_module_says_what_it_is() -> None:
    for path in python_files(FRAMEWORK, ROOT / "apps"):
        body = parsed(path).body
        first = body[0] if body else None
        value = getattr(getattr(first, "value", None), "value", None)
        assert isinstance(value, str), f"{shown(path)} has no docstring"
        assert value.strip(), f"{shown(path)} has an empty docstring"


def test_every_package_is_listed_for_installation() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    there = [
        *(
            ".".join(path.parent.relative_to(ROOT / "framework").parts)
            for path in FRAMEWORK.rglob("__init__.py")
        ),
        *(
            ".".join(("headwater_apps", *path.parent.relative_to(ROOT / "apps").parts))
            for path in (ROOT / "apps").rglob("__init__.py")
        ),
    ]
    assert sorted(listed) == sorted(there)


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in python_files(ROOT / "tests")}
    assert [shown(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_file_names_a_machines_path_or_a_package_host() -> None:
    found = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line) or HOSTS.search(line)
    ]
    assert found == []


def test_nothing_is_left_to_do_in_a_comment() -> None:
    marks = re.compile(
        "|".join([r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bXX" + r"X\b", "raise NotImpl" + "ementedError"])
    )
    found = [
        f"{shown(path)}:{number}"
        for path in python_files(*CODE)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []
