"""Runs real workers in this process over a log in memory, an archive and state folders below a test's own folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, Batch, TopicPartition
from headwater.core.header import DEAD
from headwater.core.settings import Settings
from headwater.engine import session as session_module
from headwater.engine.history import fold_table
from headwater.engine.positions import Positions, TaskState
from headwater.engine.run import RunOptions, run_worker
from headwater.log import open_log
from headwater.log.interface import Log
from headwater.source.handover import HandoverSource
from headwater.source.interface import FETCH_BYTES_MAX

_NUMBERS = count()

Declare = Callable[[hw.App], Any]
"""Declares topics, tables and agents on an app; each run makes its app anew, as a worker process would."""


class Killed(BaseException):
    """Stands for `kill -9`: no code of the engine's own may answer it with a commit."""


class Place:
    """A log, an archive and a state folder, and workers run over them one after the other."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.settings = Settings(
            url or f"memory://place-{next(_NUMBERS)}", f"file://{folder / 'archive'}", str(folder / "state")
        )
        self.log: Log = open_log(self.settings.log)

    @property
    def archive(self) -> Archive:
        return open_archive(self.settings.archive, self.log.log_id)

    # Input

    def topic(self, name: str, partitions: int = 1) -> None:
        self.log.create_topic(name, partitions)

    def append(
        self,
        topic: str,
        values: Iterable[Any],
        *,
        keys: Sequence[bytes | None] | bytes | None = None,
        partition: int = 0,
        times: Sequence[int] | None = None,
        partitions: int = 1,
    ) -> None:
        """Append values: bytes and None as they are, anything else as JSON; event times rise from 1,000 unless given."""
        datas = [v if v is None or isinstance(v, bytes) else json.dumps(v).encode() for v in values]
        if self.log.topic(topic) is None:
            self.topic(topic, partitions)
        chosen = [keys] * len(datas) if keys is None or isinstance(keys, bytes) else list(keys)
        end = self.log.end_offset(topic, partition)
        stamps = [1_000 + end + at for at in range(len(datas))] if times is None else times
        self.log.append([Append(topic, partition, list(stamps), chosen, datas)])

    def archive_all(self) -> None:
        archiver = Archiver(self.log, self.archive, lambda: list(self.log.topics()))
        archiver.until_idle()

    # Work

    def app(self, declare: Declare, name: str = "app", **options: Any) -> hw.App:
        app = hw.App(name, **{"partitions": 1, **options})
        declare(app)
        return app

    def run(self, declare: Declare, *, options: RunOptions | None = None, **app_options: Any) -> hw.App:
        """Run a worker until idle and return its app. Raises what the worker raises."""
        app = self.app(declare, **app_options)
        self.run_app(app, options)
        return app

    def run_app(self, app: hw.App, options: RunOptions | None = None) -> None:
        assert run_worker(app, "app", options or RunOptions(until_idle=True), settings=self.settings) == 0

    # What came of it

    def batch(self, topic: str, partition: int = 0) -> Batch:
        start = self.log.start_offset(topic, partition)
        return self.log.read(topic, partition, start, bytes_max=1 << 30)

    def values(self, topic: str, partition: int = 0) -> list[Any]:
        return [None if v is None else json.loads(v) for v in self.batch(topic, partition).values]

    def table(self, name: str, app: str = "app", generation: str = "live") -> dict[bytes, Any]:
        """Return the rows as the changelog has them: what any worker would recover."""
        return {key: json.loads(data) for key, data in self.table_bytes(name, app, generation).items()}

    def table_bytes(self, name: str, app: str = "app", generation: str = "live") -> dict[bytes, bytes]:
        from headwater.engine.control import Control

        found = Control(self.log, self.archive, app).generation(generation)
        folded = fold_table(self.log, self.archive, app, found, name)
        return {key: data for part in folded.values() for key, data in part.items()}

    def dead(self, app: str = "app") -> list[tuple[bytes | None, bytes | None, dict[str, Any]]]:
        """Return dead letters as (key, value, what `hw.dead` says)."""
        batch = self.batch(f"{app}.live.dead")
        return [
            (key, value, json.loads(dict(batch.headers_at(at))[DEAD] or b"{}"))
            for at, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True))
        ]

    def states(self, tasks: int = 1, app: str = "app", generation: str = "live") -> dict[int, TaskState]:
        return Positions(self.log, app, generation).load(range(tasks))

    def commits(self, app: str = "app", generation: str = "live") -> list[TaskState]:
        """Return every epochs record, in order."""
        from headwater.engine.positions import _DECODER

        batch = self.batch(f"{app}.{generation}.epochs")
        return [
            _DECODER.decode(value)
            for key, value in zip(batch.keys, batch.values, strict=True)
            if key is not None and key.isdigit() and value is not None
        ]

    def position(self, tp: TopicPartition) -> int | None:
        return self.log.positions("app.live").get(tp)


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, passing: int = 1) -> Iterator[None]:
    """Let a worker run inside end at the n-th pass of a crash point of its session, with nothing after it done."""
    passed = count(1)

    def point(reached: str) -> None:
        if reached == name and next(passed) == passing:
            raise Killed(name)

    with monkeypatch.context() as patch:
        patch.setattr(session_module, "point", point)
        with pytest.raises(hw.HeadwaterError, match=name):
            yield


MARKER = b"\x00marker"
"""The key of a record that no reader is given, as the markers of Kafka's transactions."""


class MarkedSource(HandoverSource):
    """Reads a partition in which records of the key MARKER take an offset and are given to nobody."""

    def fetch(self, *, bytes_max: int = FETCH_BYTES_MAX) -> Batch:
        return without_markers(super().fetch(bytes_max=bytes_max))


def without_markers(batch: Batch) -> Batch:
    """Return a batch without the records of the key MARKER; their offsets stay taken."""
    keep = [at for at, key in enumerate(batch.keys) if key != MARKER]

    def pick(column: Any) -> list[Any]:
        return [column[at] for at in keep]

    return Batch(
        batch.topic, batch.partition, batch.base, batch.next, pick(batch.offsets), pick(batch.timestamps),
        pick(batch.keys), pick(batch.values), [batch.headers_at(at) for at in keep], nbytes=batch.nbytes,
    )  # fmt: skip


@asynccontextmanager
async def at_work(place: Place, app: hw.App, **options: Any) -> AsyncIterator[Any]:
    """Run a worker beside the test's own code and give its engine; it is stopped as by SIGTERM."""
    app.run = RunOptions(settings=place.settings, **options)
    app.finalize()
    await app.maybe_start()
    try:
        yield app.engine
    finally:
        await asyncio.wait_for(app.stop(), 10)


async def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    """Return when a condition of a running worker holds."""

    async def poll() -> None:
        while not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), within_s)
