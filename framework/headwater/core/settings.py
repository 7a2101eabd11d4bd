"""Settings: where log, archive and state lie, and where each value came from. The one place that reads the environment.

The order: command-line option, environment, keyword of App, default.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from headwater.core.errors import MisuseError, did_you_mean

PREFIX = "HEADWATER_"
ARCHIVE_OPTIONS = f"{PREFIX}ARCHIVE_OPTIONS"
COMPILED = f"{PREFIX}COMPILED"
KAFKA = f"{PREFIX}KAFKA_"
KAFKA_CONFIG = f"{KAFKA}CONFIG"
HIDDEN = "***"

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "log": "file://./.headwater/log",
        "archive": "file://./.headwater/archive",
        "state": "./.headwater/state",
    }
)
_SECRET_NAME = re.compile(
    r"passw|secret|token|sasl|credential|api_?key|access_?key|account_?key|customer_?key|private_?key|signature|"
    r"connection_?string|^key$|key\.pem|keystore|assertion",
    re.IGNORECASE,
)

_SHOWN = frozenset({"sasl.mechanism", "sasl.mechanisms"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force, shown with its secrets hidden; `origin` says who gave it, in words."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `state` is a folder, or `memory://` for none.

    `archive_options` are the archive storage's own options (endpoint, credentials, time-outs); `kafka` are librdkafka's
    settings by its own names, for a log on Kafka.
    """

    log: str = DEFAULTS["log"]
    archive: str = DEFAULTS["archive"]
    state: str = DEFAULTS["state"]
    archive_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kafka: Mapping[str, str] = field(default_factory=dict, hash=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def resolve(
        cls,
        options: Mapping[str, str | None] | None = None,
        app: Mapping[str, str | None] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        archive_options: Mapping[str, Any] | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Return what holds, given options of the command line and keywords of App by setting name.

        None means not given; an empty variable counts as not given. `environment` is the process's own unless given.
        Archive options of the environment (a JSON object) are added to those of App, and win over them name by name.
        Kafka's settings come from variables (HEADWATER_KAFKA_SASL_PASSWORD is sasl.password), before the file that
        HEADWATER_KAFKA_CONFIG names, before App's. Raises MisuseError for a name that is no setting, and for an empty value.
        """
        options, app = options or {}, app or {}
        variables = read_environment(environment)
        for given, where in ((options, "option"), (app, "keyword of App")):
            for name in given:
                if name not in DEFAULTS:
                    raise MisuseError(f"no {where} {name!r}{did_you_mean(name, DEFAULTS)}")
        values: dict[str, str] = {}
        origins: dict[str, str] = {}
        for name, default in DEFAULTS.items():
            variable = PREFIX + name.upper()
            candidates = (
                (options.get(name), f"option --{name}"),
                (variables.get(variable) or None, f"environment {variable}"),
                (app.get(name), f"App({name}=…)"),
                (default, "default"),
            )
            value, origin = next((value, origin) for value, origin in candidates if value is not None)
            if not value.strip():
                raise MisuseError(f"{origin} is empty; give a URL such as {default}, or leave it out")
            values[name], origins[name] = value, origin
        from_environment = _json_object(variables.get(ARCHIVE_OPTIONS))
        merged = {**(archive_options or {}), **from_environment}
        if merged:
            places = [f"environment {ARCHIVE_OPTIONS}"] if from_environment else []
            places += ["App(archive_options=…)"] if archive_options else []
            origins["archive_options"] = " and ".join(places)
        chosen, chosen_by = _kafka_settings(variables, kafka or {})
        origins.update({f"kafka.{name}": origin for name, origin in chosen_by.items()})
        return cls(
            **values,
            archive_options=MappingProxyType(merged),
            kafka=MappingProxyType(chosen),
            origins=MappingProxyType(origins),
        )

    def shown(self) -> list[Setting]:
        """Return the settings as people may see them, in the order of declaration."""
        return [
            Setting(name, hide_secrets(name, getattr(self, name)), self.origins.get(name, "default"))
            for name in (*DEFAULTS, *(["archive_options"] if self.archive_options else []))
        ] + [
            Setting(
                f"kafka.{name}", hide_secrets(name, value), self.origins.get(f"kafka.{name}", "App(kafka=…)")
            )
            for name, value in sorted(self.kafka.items())
        ]


def _kafka_settings(
    variables: Mapping[str, str], app: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return librdkafka's settings, and where each came from."""
    found: dict[str, str] = {}
    origins: dict[str, str] = {}
    path = variables.get(KAFKA_CONFIG)
    for name, item in app.items():
        found[name], origins[name] = _text(item), "App(kafka=…)"
    given = _properties(path) if path else {}
    for name, value in given.items():
        found[name], origins[name] = value, f"file {path}"
    for variable, value in variables.items():
        if variable.startswith(KAFKA) and variable != KAFKA_CONFIG and value:
            name = variable.removeprefix(KAFKA).lower().replace("_", ".")
            found[name], origins[name] = value, f"environment {variable}"
    return found, origins


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _properties(path: str) -> dict[str, str]:
    """Return the settings in a file of `name=value` lines, as Kafka's own tools read them."""
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if not text or text.startswith(("#", "!")):
                    continue
                name, equals, value = text.partition("=")
                if not equals or not name.strip():
                    # Not shown: it may hold a secret.
                    raise MisuseError(f"{KAFKA_CONFIG}: {path}, line {number}, is not name=value")
                found[name.strip()] = value.strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MisuseError(f"{KAFKA_CONFIG}: {path} can't be read: {reason}") from error
    return found


def _json_object(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        # Not shown: it may hold a secret.
        raise MisuseError(
            f"{ARCHIVE_OPTIONS} can't be read as a JSON object; write for example "
            '\'{"endpoint_url": "http://127.0.0.1:9000"}\''
        )
    return found


def read_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of this package (HEADWATER_…), of the process unless another environment is given."""
    source = os.environ if environment is None else environment
    return {name: value for name, value in source.items() if name.startswith(PREFIX)}


def hide_secrets(name: str, value: Any) -> str:
    """Return a setting's value as text without what must not be shown.

    Hidden are: everything where the name speaks of a secret; a URL's user and password (tokens are passed as users);
    query parameters whose names speak of a secret.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{inner}={hide_secrets(str(inner), item)}" for inner, item in value.items())
    text = str(value)
    if _SECRET_NAME.search(name) and name not in _SHOWN:
        return HIDDEN
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return HIDDEN  # what can't be read can't be cleaned
    place = parts.netloc
    if "@" in place:
        place = f"{HIDDEN}@{place.rpartition('@')[2]}"
    query = parts.query
    if any(_SECRET_NAME.search(key) for key, _ in parse_qsl(query, keep_blank_values=True)):
        shown = [
            (key, HIDDEN if _SECRET_NAME.search(key) else item)
            for key, item in parse_qsl(query, keep_blank_values=True)
        ]
        query = urlencode(shown, safe="*/:")
    if (place, query) == (parts.netloc, parts.query):
        return text  # as it was written: taking apart and joining would change file://./x
    return urlunsplit((parts.scheme, place, parts.path, query, parts.fragment))
