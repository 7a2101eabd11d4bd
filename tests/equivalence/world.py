"""A log, an archive and a state in this process, and an app made anew for each run over them: no command line, no waiting."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import headwater as hw
from headwater.archive import open_archive
from headwater.archive.archive import Archive
from headwater.archive.writer import Archiver
from headwater.core.batch import Append
from headwater.core.header import DEAD, MARK, ORIGIN, TARGET, TIME
from headwater.core.names import internal_topic
from headwater.core.partitioner import partition_of
from headwater.core.settings import Settings
from headwater.core.times import EARLIEST
from headwater.engine.control import Control
from headwater.engine.history import dump_table, read_topic
from headwater.engine.options import RunOptions
from headwater.engine.replay import prepare_replay
from headwater.engine.run import run_worker
from headwater.log import open_log
from headwater.log.interface import Log

ENGINE_HEADERS = {ORIGIN, TIME, MARK, DEAD, TARGET}


class Given(NamedTuple):
    """A record to be appended."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Output(NamedTuple):
    """A record that an app sent: what comparisons look at (headers, offsets and log times are left out)."""

    key: bytes | None
    value: bytes | None
    timestamp: int


@dataclass(slots=True)
class World:
    """Where an app lives. `make` gives a fresh app: one app object runs once."""

    make: Callable[[], hw.App]
    folder: Path
    log_url: str
    state: str = "memory://"
    app_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.app_id = self.make().id

    def owns(self, topic: str) -> bool:
        """Tell whether a topic is this world's: others may be on the same broker."""
        return not self.log_url.startswith("kafka://") or self.app_id in topic

    @property
    def settings(self) -> Settings:
        """Where everything lies."""
        return Settings(log=self.log_url, archive=f"file://{self.folder}/archive", state=self.state)

    def open_log(self) -> Log:
        """Return the log; the memory log is the same one each time."""
        return open_log(self.log_url)

    def open_archive(self, log: Log) -> Archive:
        """Return the archive of the log."""
        return open_archive(self.settings.archive, log.log_id, self.settings.archive_options)

    # What goes in

    def send(self, topic: str, partitions: int, records: Iterable[Given], *, home: int | None = None) -> None:
        """Append records, each to its key's home (`home` or partition 0 for those without a key)."""
        log = self.open_log()
        log.create_topic(topic, partitions)
        parts: dict[int, list[Given]] = {}
        for record in records:
            at = (
                home
                if home is not None
                else 0
                if record.key is None
                else partition_of(record.key, partitions)
            )
            parts.setdefault(at, []).append(record)
        log.append(
            [
                Append(
                    topic, at, [r.timestamp for r in part], [r.key for r in part], [r.value for r in part],
                    [r.headers for r in part],
                )
                for at, part in sorted(parts.items())
            ]
        )  # fmt: skip
        log.close()

    # What is done

    def work(self, **options: Any) -> None:
        """Run a worker of this process until all is done."""
        self._run(RunOptions(until_idle=True, **options))

    def archive(self) -> None:
        """Archive all that is in the log."""
        log = self.open_log()
        archive = self.open_archive(log)
        Archiver(log, archive, lambda: sorted(filter(self.owns, log.topics()))).until_idle()
        archive.close()
        log.close()

    def trim(self, topic: str) -> None:
        """Drop from the log what is archived of a topic."""
        log = self.open_log()
        archive = self.open_archive(log)
        info = log.topic(topic)
        assert info is not None
        archive.bind({topic: info})
        for partition in range(info.partitions):
            end = archive.end(topic, partition)
            if end is not None:
                log.trim(topic, partition, end)
        archive.close()
        log.close()

    def replay(
        self, name: str, *, order: str = "time", time_from: int = EARLIEST, until: int | None = None
    ) -> None:
        """Replay as generation `name`, to the end."""
        self.prepare(name, order=order, time_from=time_from, until=until)
        self.resume(name)

    def prepare(
        self, name: str, *, order: str = "time", time_from: int = EARLIEST, until: int | None = None
    ) -> None:
        """Begin a replay: its bounds are fixed, nothing has run."""
        log = self.open_log()
        archive = self.open_archive(log)
        prepare_replay(
            self.make(), log, archive, time_from=time_from, time_until=until, name=name, order=order
        )
        archive.close()
        log.close()

    def resume(self, name: str, **options: Any) -> None:
        """Run a prepared generation to its end."""
        self._run(RunOptions(generation=name, **options))

    def _run(self, options: RunOptions) -> None:
        try:
            run_worker(self.make(), "", options, settings=self.settings)
        finally:
            # A worker freezes what it finds, as it owns its process; this one it does not own.
            gc.unfreeze()

    def forget(self) -> None:
        """Let go of a log in memory, which would live as long as the process."""
        log = self.open_log()
        for topic in filter(self.owns, list(log.topics())):
            log.delete_topic(topic)
        log.close()

    # What comes out

    def dump(self, table: str, generation: str = "live", as_of: int | None = None) -> list[str]:
        """Return a table's canonical dump."""
        log = self.open_log()
        archive = self.open_archive(log)
        found = Control(log, archive, self.app_id).generation(generation)
        lines = list(dump_table(log, archive, self.app_id, found, table, as_of=as_of))
        archive.close()
        log.close()
        return lines

    def topic(self, topic: str) -> dict[int, list[Output]]:
        """Return a topic's records by partition, in offset order."""
        return {at: [Output(*row[:3]) for row in rows] for at, rows in self.records(topic).items()}

    def outputs(self, topic: str, generation: str = "live") -> dict[int, list[Output]]:
        """Return what a generation sent to a topic."""
        return self.topic(
            topic if generation == "live" else internal_topic(self.app_id, generation, "out", topic)
        )

    def dead(self, generation: str = "live") -> list[tuple[bytes | None, bytes | None, int, bytes]]:
        """Return a generation's dead letters with the reason, in any order: they are of several tasks.

        The reason names internal topics, which have the generation in their names; here they are those of any.
        """
        rows = self.records(internal_topic(self.app_id, generation, "dead"))
        own, any_ones = f"{self.app_id}.{generation}.".encode(), f"{self.app_id}.*.".encode()
        return sorted(
            (
                (key, value, time, (dict(headers)[DEAD] or b"").replace(own, any_ones))
                for key, value, time, headers in rows.get(0, [])
            ),
            key=repr,
        )

    def records(self, topic: str) -> dict[int, list[tuple[Any, ...]]]:
        """Return key, value, timestamp and headers of a topic's records by partition."""
        log = self.open_log()
        archive = self.open_archive(log)
        info = log.topic(topic)
        found: dict[int, list[tuple[Any, ...]]] = {}
        for partition in range(0 if info is None else info.partitions):
            found[partition] = [
                (key, value, time, batch.headers_at(at))
                for batch in read_topic(log, archive, topic, partition)
                for at, (key, value, time) in enumerate(
                    zip(batch.keys, batch.values, batch.timestamps, strict=True)
                )
            ]
        archive.close()
        log.close()
        return found


def sha256(lines: Sequence[str]) -> str:
    """Return the SHA-256 of a dump."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def per_key(outputs: dict[int, list[Output]]) -> dict[tuple[int, bytes | None], list[Output]]:
    """Return outputs by partition and key, in order: what `diff` compares."""
    found: dict[tuple[int, bytes | None], list[Output]] = {}
    for partition, records in outputs.items():
        for record in records:
            found.setdefault((partition, record.key), []).append(record)
    return found
