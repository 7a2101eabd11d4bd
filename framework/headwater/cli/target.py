"""What `-A` names: the module found, current directory first, and the one App in it; not how an app is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.core.errors import HeadwaterError, MisuseError, UnknownNameError, did_you_mean


class AppImportError(HeadwaterError):
    """The module that -A names raised while it was imported."""


@dataclass(frozen=True, slots=True)
class Target:
    """An app and where it was found; `spec` is what other processes give to -A to get the same."""

    app: Any
    module: str
    attribute: str

    @property
    def spec(self) -> str:
        """Return module:app."""
        return f"{self.module}:{self.attribute}"


def load_target(spec: str) -> Target:
    """Import a module and return its app.

    Raises UnknownNameError (no such module or app), MisuseError (none or several apps), AppImportError.
    """
    module_name, _, attribute = spec.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        better = module_name.removesuffix(".py").removeprefix("./").strip("/").replace("/", ".")
        raise MisuseError(f"-A takes a module, not a file: found {module_name!r}; write -A {better}")
    if not module_name or module_name.startswith("."):
        raise MisuseError(f"-A {spec!r} names no module; write -A module or -A module:app")
    here = str(Path.cwd())
    if here not in sys.path[:1]:
        sys.path.insert(0, here)
    module = _import(module_name)
    from headwater import App

    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if attribute:
        if attribute not in apps:
            found = getattr(module, attribute, None)
            what = (
                f"{attribute!r} is {type(found).__name__}, not an App"
                if found is not None
                else f"no app {attribute!r}"
            )
            raise UnknownNameError(f"module {module_name!r}: {what}{did_you_mean(attribute, apps)}")
        return Target(apps[attribute], module_name, attribute)
    if not apps:
        raise UnknownNameError(
            f'module {module_name!r} ({_file(module)}) has no App; write `app = headwater.App("name")` in it, '
            "or name the module that has one"
        )
    if len({id(app) for app in apps.values()}) > 1:
        raise MisuseError(
            f"module {module_name!r} has several apps; name one: "
            + ", ".join(f"-A {module_name}:{n}" for n in apps)
        )
    name = next(iter(apps))
    return Target(apps[name], module_name, name)


def target_of(app: Any) -> Target:
    """Return where an app stands that runs the command line itself (`app.main()` at the end of its module).

    Raises MisuseError where no module holds it.
    """
    for name, module in list(sys.modules.items()):
        found = [key for key, value in vars(module).items() if value is app] if module is not None else []
        if found:
            spec = getattr(module, "__spec__", None)
            script = getattr(module, "__file__", None)
            if name == "__main__":
                name = spec.name if spec is not None else Path(script or "app").stem
            return Target(app, name, found[0])
    raise MisuseError(f"app {app.id!r} is not a name of any module; write `app = …` at a module's top level")


def _import(name: str) -> Any:
    parent = ""
    for part in name.split("."):
        path = f"{parent}.{part}" if parent else part
        try:
            there = importlib.util.find_spec(path) is not None
        except (ImportError, ValueError):
            there = False
        if not there:
            raise UnknownNameError(
                f"no module {path!r} in {Path.cwd()} or among the installed packages{did_you_mean(path, _modules(parent))}"
            )
        parent = path
        _import_one(path)
    return sys.modules[name]


def _import_one(name: str) -> None:
    try:
        importlib.import_module(name)
    except HeadwaterError:
        raise
    except SystemExit as error:
        raise AppImportError(
            f"module {name!r} ended the program while it was imported (exit code {error.code})"
        ) from error
    except Exception as error:
        raise AppImportError(
            f"module {name!r} can't be imported: {type(error).__name__}: {error} ({line_of(error)}); "
            "correct it, or see the whole traceback with --debug"
        ) from error


def line_of(error: Exception) -> str:
    """Return file:line of the user's own code where something failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    inside = [frame for frame in frames if f"{os.sep}site-packages{os.sep}" not in frame.filename] or frames
    return f"{inside[-1].filename}:{inside[-1].lineno}" if inside else "no file"


def _modules(parent: str) -> list[str]:
    """Return the modules beside the one that isn't there."""
    if not parent:
        return [m.name for m in pkgutil.iter_modules([str(Path.cwd())])]
    return [f"{parent}.{m.name}" for m in pkgutil.iter_modules(getattr(sys.modules[parent], "__path__", []))]


def _file(module: Any) -> str:
    return getattr(module, "__file__", None) or "no file"
