"""Runs one `headwater` command in a process of its own and notes what a benchmark asks for; not part of Headwater.

    python -m benchmarks.stopwatch REPORT.json [--stages] -- -A benchmarks.apps.spend worker --until-idle

Counted is from the first fetch from a source to the end of the last epoch (log committed and stores written): start-up
and imports are left out, everything between is in. On Kafka the first fetch that gives records counts, as for the loops
beside it: connecting to brokers is start-up. The command is the public one, the clocks are put around the parts'
public methods.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = {
    "headwater.engine.task:Task": ("next_group", "collect", "committed"),
    "headwater.engine.intake:Intake": ("take",),
    "headwater.engine.runner:Runner": ("run",),
    "headwater.log.embedded.log:EmbeddedLog": ("read", "commit"),
}


class Stopwatch:
    """First fetch, last commit, and the seconds inside chosen methods."""

    def __init__(self) -> None:
        """Begin before the first fetch."""
        self.first: float | None = None
        self.last: float | None = None
        self.cpu_first = self.cpu_last = 0.0
        # What stores are written after the last commit, when they close; not the time until then.
        self.behind_s = self.cpu_behind_s = 0.0
        self.commits = 0
        self.recovery: list[float] = []
        self.stages: dict[str, float] = {}

    def fetching(self) -> None:
        """Note the first fetch."""
        if self.first is None:
            self.first, self.cpu_first = perf_counter(), process_time()

    def committed(self) -> None:
        """Note the end of a commit."""
        if self.first is not None:
            self.last, self.cpu_last = perf_counter(), process_time()
            self.behind_s = self.cpu_behind_s = 0.0

    def around(
        self, owner: Any, name: str, before: Callable[[], None] | None, after: Callable[..., None] | None
    ) -> None:
        """Have a method note its begin or end."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if before is not None:
                before()
            result = method(*args, **kwargs)
            if after is not None:
                after(*args)
            return result

        setattr(owner, name, noted)

    def fetched(self, source: Any) -> None:
        """Have a source's first batch with records note the begin."""
        fetch = source.fetch

        @functools.wraps(fetch)
        def noted(*args: Any, **kwargs: Any) -> Any:
            batch = fetch(*args, **kwargs)
            if self.first is None and len(batch):
                self.fetching()
            return batch

        source.fetch = noted

    def written(self, store: Any) -> None:
        """Add up what stores are written since the last commit."""
        write = store.write

        @functools.wraps(write)
        def noted(*args: Any, **kwargs: Any) -> None:
            since, cpu_since = perf_counter(), process_time()
            write(*args, **kwargs)
            self.behind_s += perf_counter() - since
            self.cpu_behind_s += process_time() - cpu_since

        store.write = noted

    def timed(self, owner: Any, name: str) -> None:
        """Add up the seconds inside a method; an async one's include what it awaits."""
        import inspect

        method = getattr(owner, name)
        label = f"{owner.__name__}.{name}"
        self.stages[label] = 0.0

        def add(since: float) -> None:
            if self.first is not None:
                self.stages[label] += perf_counter() - since

        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                since = perf_counter()
                try:
                    return await method(*args, **kwargs)
                finally:
                    add(since)

            setattr(owner, name, awaited)
            return

        @functools.wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            since = perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                add(since)

        setattr(owner, name, called)

    def install(self, *, stages: bool, kafka: bool = False) -> None:
        """Put the clocks around the parts, before the engine is imported."""
        from importlib import import_module

        from headwater.log.embedded.log import EmbeddedLog
        from headwater.source.handover import HandoverSource
        from headwater.source.live import LiveSource
        from headwater.source.replay import ReplaySource
        from headwater.table import recovery
        from headwater.table.store import Store

        for source in (LiveSource, ReplaySource, HandoverSource):
            if kafka:
                self.fetched(source)
            else:
                self.around(source, "fetch", self.fetching, None)

        def after_commit(_: Any, transaction: Any, *rest: Any) -> None:
            if transaction.member is not None:
                self.commits += 1
                self.committed()

        log: Any = EmbeddedLog
        if kafka:
            from headwater.log.kafka import KafkaLog

            log = KafkaLog
        self.around(log, "commit", None, after_commit)
        self.written(Store)
        recover = recovery.recover

        @functools.wraps(recover)
        def recovering(*args: Any, **kwargs: Any) -> Any:
            self.recovery.append(perf_counter())
            try:
                return recover(*args, **kwargs)
            finally:
                self.recovery.append(perf_counter())

        recovery.recover = recovering
        if stages:
            for place, names in STAGES.items():
                module, _, owner = place.partition(":")
                for name in names:
                    self.timed(getattr(import_module(module), owner), name)

    def report(self) -> dict[str, Any]:
        """Return what was noted."""
        ran = self.first is not None and self.last is not None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {
            "seconds": self.last - self.first + self.behind_s if ran else None,  # type: ignore[operator]
            "cpu_seconds": self.cpu_last - self.cpu_first + self.cpu_behind_s if ran else None,
            "began_s": time() - (perf_counter() - self.first) if self.first is not None else None,
            "commits": self.commits,
            "recovery_seconds": max(self.recovery) - min(self.recovery) if self.recovery else None,
            "peak_rss_bytes": peak,
            "stages": self.stages,
        }


def main() -> int:
    """Run the command and write the report."""
    arguments = sys.argv[1:]
    report = Path(arguments.pop(0))
    stages = arguments[0] == "--stages"
    command = arguments[arguments.index("--") + 1 :]
    watch = Stopwatch()
    watch.install(stages=stages)
    # What belongs to start-up and not to a record: pyarrow looks for other packages at its first array.
    import pyarrow as pa

    pa.array([b"warm"], pa.binary())
    from headwater.cli.main import main as headwater

    code: Any = 0
    try:
        sys.argv = ["headwater", *command]
        headwater()
    except SystemExit as leaving:
        code = leaving.code
    finally:
        report.write_text(json.dumps(watch.report()))
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
