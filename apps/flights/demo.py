"""The flights' story, as `headwater demo` tells it: a month live, a mistake in the logic, and the month again, corrected.

Every step runs the commands it shows, and every figure is taken from what they answer; nothing here knows the data.
"""

from __future__ import annotations

import difflib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import add_up, buggy

DATA = Path(__file__).parent / "data"
"""The month that ships; of its streams the story needs the departures."""
APP = __package__ or "headwater_apps.flights"
START = "2013-01-01T00:00:00Z"
MIDDLE = "2013-01-15T12:00:00Z"
ROWS_SHOWN = 5


class Done(Protocol):
    """What a command gave."""

    @property
    def code(self) -> int:
        """Its exit code."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What it printed with --json."""

    @property
    def seconds(self) -> float:
        """How long it took."""


class Shell(Protocol):
    """Runs the commands."""

    def run(self, line: str, *, watched: bool = False) -> Done:
        """Run `headwater …`, and return what it gave."""


def tell(shell: Shell, *, json: bool) -> None:
    """Run the whole story in the current directory, which holds the data."""
    teller: Teller = Lines(shell) if json else Page(shell)
    for step in (live, tables, archive, trim, mistake, rewind, diff, promote, as_of):
        step(teller)
    teller.end()


class Teller:
    """Runs a step's commands and gathers its figures; how they are shown is a subclass's."""

    def __init__(self, shell: Shell) -> None:
        """Nothing is told yet."""
        self._shell = shell
        self.seconds = 0.0
        self.facts: dict[str, Any] = {}
        """What later steps compare with."""

    def begin(self, step: str, title: str, about: str) -> None:
        """Begin a step."""

    def run(self, line: str, *, watched: bool = False) -> Done:
        """Run a command."""
        done = self._shell.run(line, watched=watched)
        self.seconds += done.seconds
        return done

    def table(
        self,
        name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        total: int | None = None,
    ) -> None:
        """Give the step a table; `columns`: titles by field; `total`: rows there are, where not all are given."""

    def say(self, sentence: str) -> None:
        """Say what the figures mean."""

    def code(self, lines: Iterable[str]) -> None:
        """Show a change of code."""

    def end(self) -> None:
        """End the story."""


class Lines(Teller):
    """One JSON object a step on stdout."""

    def __init__(self, shell: Shell) -> None:
        """Nothing is told yet."""
        super().__init__(shell)
        self._step: dict[str, Any] = {}

    def begin(self, step: str, title: str, about: str) -> None:
        """Write the step before, and begin this one."""
        self.end()
        self._step = {"step": step, "title": title, "commands": [], "seconds": 0.0, "says": []}

    def run(self, line: str, *, watched: bool = False) -> Done:
        """Run a command."""
        done = super().run(line, watched=watched)
        self._step["commands"].append(line)
        self._step["seconds"] = round(self._step["seconds"] + done.seconds, 3)
        return done

    def table(
        self,
        name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        total: int | None = None,
    ) -> None:
        """Give the step a table."""
        self._step[name] = [{field: row.get(field) for field in columns} for row in rows]

    def say(self, sentence: str) -> None:
        """Say what the figures mean."""
        self._step["says"].append(sentence)

    def code(self, lines: Iterable[str]) -> None:
        """Show a change of code."""
        self._step["code"] = list(lines)

    def end(self) -> None:
        """Write the step."""
        if self._step:
            sys.stdout.write(json.dumps(self._step, ensure_ascii=False) + "\n")
            sys.stdout.flush()


class Page(Teller):
    """A page to read: on a terminal with colours, elsewhere plain text."""

    def __init__(self, shell: Shell) -> None:
        """Nothing is told yet."""
        super().__init__(shell)
        plain = Console()
        self._console = plain if plain.is_terminal else Console(width=100, color_system=None)
        self._number = 0

    def begin(self, step: str, title: str, about: str) -> None:
        """Print a heading."""
        self._number += 1
        self._print(Text(f"\n{self._number}. {title}", style="bold cyan"))
        self._print(Text(about))

    def run(self, line: str, *, watched: bool = False) -> Done:
        """Print a command, then run it."""
        self._print(Text.assemble(("$ ", "dim"), (line, "green")), indent=2)
        return super().run(line, watched=watched)

    def table(
        self,
        name: str,
        columns: Mapping[str, str],
        rows: Sequence[Mapping[str, Any]],
        total: int | None = None,
    ) -> None:
        """Print the first rows."""
        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for field, title in columns.items():
            numbers = any(isinstance(row.get(field), int | float) for row in rows)
            shown.add_column(title, justify="right" if numbers else "left", no_wrap=True)
        for row in rows[:ROWS_SHOWN]:
            shown.add_row(*(figure(row.get(field)) for field in columns))
        self._console.print(Padding(shown, (0, 0, 0, 4), expand=False))
        more = (len(rows) if total is None else total) - len(rows[:ROWS_SHOWN])
        if more > 0:
            self._print(Text(f"and {more:,} more", style="dim"), indent=4)

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self._print(Text(sentence, style="bold"), indent=2)

    def code(self, lines: Iterable[str]) -> None:
        """Print a change, added lines green and removed ones red."""
        for line in lines:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            self._print(Text(line, style=style), indent=4)

    def end(self) -> None:
        """Print how long all commands took."""
        self._print(Text(f"\nThe commands took {self.seconds:.1f} s.", style="bold"))

    def _print(self, text: Text, indent: int = 0) -> None:
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)


def figure(value: Any) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def live(teller: Teller) -> None:
    """Send the month to the log, and have a worker process it."""
    teller.begin(
        "live",
        "Live: a month of flights out of New York",
        "Departures go to the log, keyed by plane; a worker keeps tables of planes and of airlines.",
    )
    sent = teller.run("headwater send departures --file departures.parquet").rows
    worked = teller.run(f"headwater -A {APP}.buggy worker --until-idle")
    teller.table("sent", {"topic": "topic", "sent": "records"}, sent)
    teller.say(f"The worker took {worked.seconds:.1f} s. Its app has a mistake in it; watch for it.")


def tables(teller: Teller) -> None:
    """Look at a table."""
    teller.begin(
        "tables",
        "The tables: what the app says",
        "Totals by airline: departures, miles flown, mean delay in minutes.",
    )
    teller.facts["before"] = airlines(teller.run(f"headwater -A {APP} table dump airline_totals"))
    teller.table("airlines", AIRLINE, most_flown(teller.facts["before"].values()))
    counted, mean = overall(teller.facts["before"].values())
    teller.facts["counted"] = counted
    teller.say(f"{counted:,} departures, {mean:.1f} minutes late in the mean. Is New York as bad as that?")


def archive(teller: Teller) -> None:
    """Copy the log to the archive, and check it."""
    teller.begin(
        "archive",
        "The archive: the log as Parquet",
        "Every offset of every partition goes into segments, each written once and checksummed.",
    )
    teller.run(f"headwater -A {APP} archive run --until-idle")
    segments = teller.run("headwater archive ls").rows
    checked = teller.run("headwater archive verify")
    found: dict[str, dict[str, Any]] = {}
    for segment in segments:
        # The app's internal topics are archived as well; what people sent is what they look for.
        name = segment["topic"] if segment["topic"] == "departures" else "the app's own"
        row = found.setdefault(name, {"topic": name, "segments": 0, "records": 0, "bytes": 0})
        row["segments"] += 1
        row["records"] += segment["count"]
        row["bytes"] += segment["bytes"]
    teller.table(
        "archived",
        {"topic": "topic", "segments": "segments", "records": "records", "bytes": "bytes"},
        list(found.values()),
    )
    whole = checked.code == 0 and not checked.rows
    teller.say("No byte differs, no offset is missing." if whole else f"{len(checked.rows):,} findings.")


def trim(teller: Teller) -> None:
    """Drop from the log what is archived."""
    teller.begin(
        "trim",
        "Trim: the log keeps only what the archive has not",
        "What is archived may leave the log; reading goes on over both as one.",
    )
    teller.run("headwater trim departures")
    topics = [row for row in teller.run("headwater topics").rows if row["records"]]
    rows = [
        {
            "topic": topic["topic"],
            "archive": sum(length(part["archive"]) for part in topic["ranges"]),
            "log": sum(length(part["log"]) for part in topic["ranges"]),
        }
        for topic in topics
    ]
    teller.table("left", {"topic": "topic", "archive": "in the archive", "log": "in the log"}, rows)
    teller.facts["departures"] = next(t["records"] for t in topics if t["topic"] == "departures")


def mistake(teller: Teller) -> None:
    """Find the mistake and show its correction."""
    departures, counted = teller.facts["departures"], teller.facts["counted"]
    teller.begin(
        "mistake",
        "A mistake in the logic",
        f"The archive holds {departures:,} departures, the table counts {counted:,}.",
    )
    teller.table(
        "departures",
        {"archived": "archived", "counted": "counted", "skipped": "skipped"},
        [{"archived": departures, "counted": counted, "skipped": departures - counted}],
    )
    teller.say("The agents took early departures, whose delay is negative, for bad data. The correction:")
    teller.code(correction())


def rewind(teller: Teller) -> None:
    """Reprocess the month from the archive with the corrected app."""
    teller.begin(
        "rewind",
        "The rewind: the same agents over the archive, from a timestamp",
        "The corrected app builds a generation of its own; readers see nothing of it yet.",
    )
    done = teller.run(f"headwater -A {APP} replay --from {START} --as fixed", watched=True)
    generations = teller.run(f"headwater -A {APP} generations").rows
    teller.table(
        "generations",
        {"name": "generation", "state": "state", "promoted": "readers see it"},
        [
            {
                "name": row["name"],
                "state": row["state"],
                "promoted": "yes" if row["promoted"] else "no",
            }
            for row in generations
        ],
    )
    teller.say(f"The month took {done.seconds:.1f} s.")


def diff(teller: Teller) -> None:
    """Compare the generations."""
    teller.begin(
        "diff",
        "The diff: what the correction changes",
        "Tables are compared by key, live first, then corrected.",
    )
    found = {row["table"]: row for row in teller.run(f"headwater -A {APP} diff live fixed").rows}
    teller.table(
        "tables",
        {
            "table": "table",
            "rows_a": "rows live",
            "rows_b": "rows fixed",
            "changed": "changed",
            "only_a": "only live",
            "only_b": "only fixed",
        },
        [row for row in found.values() if row["rows_a"] or row["rows_b"]],
    )
    columns = {"n_a": "flights", "mean_a": "mean delay", "n_b": "-> flights", "mean_b": "-> mean delay"}
    for table, name, title in (
        ("airline_totals", "airlines", "airline"),
        ("plane_mean", "planes", "plane"),
    ):
        rows = [both_sides(row) for row in found[table]["keys"]]
        rows.sort(key=lambda row: -(row["n_b"] or 0))
        total = sum(found[table][count] for count in ("changed", "only_a", "only_b"))
        teller.table(name, {"key": title} | columns, rows, total)


def promote(teller: Teller) -> None:
    """Make the corrected tables what readers see."""
    teller.begin(
        "promote",
        "The promotion: readers see the corrected tables",
        "One pointer moves. The old generation stays, for `headwater rollback`.",
    )
    before = teller.facts["before"]
    teller.run(f"headwater -A {APP} promote fixed")
    now = airlines(teller.run(f"headwater -A {APP} table dump airline_totals"))
    teller.facts["now"] = now
    rows = most_flown(
        row | {"before": before[key]["mean"] if key in before else None} for key, row in now.items()
    )
    teller.table("airlines", AIRLINE | {"before": "before"}, rows)
    counted, mean = overall(now.values())
    teller.say(f"All {counted:,} departures, {mean:.1f} minutes late in the mean.")


def as_of(teller: Teller) -> None:
    """Ask what a table held in mid-month."""
    teller.begin(
        "as_of",
        "Time travel: what the table held in mid-month",
        "Every change is kept with its time.",
    )
    then = airlines(teller.run(f"headwater -A {APP} table dump airline_totals --as-of {MIDDLE}"))
    now = teller.facts["now"]
    rows = most_flown(
        row | {"n_end": now[key]["n"], "mean_end": now[key]["mean"]} for key, row in then.items()
    )
    teller.table("airlines", AIRLINE | {"n_end": "flights at the end", "mean_end": "mean at the end"}, rows)
    counted, mean = overall(then.values())
    teller.say(f"By {MIDDLE}: {counted:,} departures, {mean:.1f} minutes late in the mean.")


AIRLINE = {"carrier": "airline", "n": "flights", "distance": "miles", "mean": "mean delay"}


def airlines(dumped: Done) -> dict[str, dict[str, Any]]:
    """Return a dump of airline_totals by airline."""
    return {row["key"]: row["value"] for row in dumped.rows}


def most_flown(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return airlines by their flights, most first."""
    return sorted(rows, key=lambda row: (-row["n"], row["carrier"]))


def overall(rows: Iterable[Mapping[str, Any]]) -> tuple[int, float]:
    """Return the departures of all airlines and their mean delay."""
    found = list(rows)
    counted = sum(row["n"] for row in found)
    return counted, sum(row["delay"] for row in found) / max(counted, 1)


def length(offsets: Sequence[int] | None) -> int:
    """Return how many offsets a half-open range has."""
    return offsets[1] - offsets[0] if offsets else 0


def both_sides(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a key's figures in both generations; a side without the row has none."""
    a, b = row.get("a") or {}, row.get("b") or {}
    return {
        "key": row["key"],
        "n_a": a.get("n"),
        "mean_a": a.get("mean"),
        "n_b": b.get("n"),
        "mean_b": b.get("mean"),
    }


def correction() -> list[str]:
    """Return how the corrected agent differs from the mistaken one, as a unified diff without its heading."""
    old, new = (inspect.getsource(agent.fun).splitlines() for agent in (buggy.add_up, add_up))
    return list(difflib.unified_diff(old, new, lineterm="", n=1))[3:]
