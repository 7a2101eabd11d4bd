"""Rival archivers under a schedule drawn from a seed: who steps next, who is killed, stalled, replaced, whose reply is lost.

Strategy
Each archiver runs in a thread of its own that stands still at every step of its protocol and at both ends of every request,
until the schedule lets it go on; so one seed is one interleaving. A kill unwinds the thread at that step with all it knew, as
`kill -9` does, and another archiver takes its place; a stall leaves it standing while the others go on, a zombie that wakes
up later. Records come in between; cuts are random.
Invariants, checked on the raw files by a reader of its own: they tile the offsets with no gap and no overlap (I13), and hold
the log's records bit for bit (I14); `verify` finds nothing.

Long form: `python -m tests.archive_schedules --on local --count 1000` (also `moto`, or a versitygw binary's path).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow.parquet as pq

from headwater.archive.archive import Archive
from headwater.archive.local import LocalStore
from headwater.archive.objects import ObjectClient, ObjectStore
from headwater.archive.opening import open_store
from headwater.archive.storage import ArchiveUnavailableError
from headwater.archive.writer import Archiver
from headwater.core.batch import Append, Batch
from headwater.core.clock import ManualClock
from headwater.log import open_log
from headwater.log.interface import Log
from tests import object_stores

WRITERS = 4
WAIT_S = 60.0


class Killed(BaseException):
    """This archiver's process is dead."""


class Actor:
    """One archiver's thread: runs until its next stand, then waits for its turn."""

    def __init__(self, number: int, main: Callable[[Actor], None]) -> None:
        self.number = number
        self.is_dead = self.is_done = False
        self.killed_at = ""
        self.error: BaseException | None = None
        self._turn, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(main,), daemon=True)
        self._thread.start()

    def _run(self, main: Callable[[Actor], None]) -> None:
        self._turn.acquire()
        try:
            main(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._stands.release()

    def stand(self, at: str) -> None:
        """Stand still until it is this one's turn; die where told to."""
        if self.is_dead:
            raise Killed  # what a finally would still ask for, the dead don't
        self._stands.release()
        self._turn.acquire()
        if self.is_dead:
            self.killed_at = at
            raise Killed

    def step(self) -> None:
        """Let it go on to its next stand (or its end), and wait for that."""
        self._turn.release()
        assert self._stands.acquire(timeout=WAIT_S), "an archiver hangs"

    def kill(self) -> None:
        self.is_dead = True
        self.step()
        self._thread.join(WAIT_S)


class FaultyClient:
    """A client whose requests fail in ways drawn from the schedule; each stands still before and after it is done."""

    def __init__(
        self, inner: ObjectClient, actor: Actor, chance: random.Random, counts: Counter[str]
    ) -> None:
        self._inner = inner
        self._actor = actor
        self._chance = chance
        self._counts = counts
        self._damaged: set[str] = set()
        self._probes: dict[str, bytes] = {}
        self.url = inner.url
        self.creates_once = inner.creates_once

    def _fault(self, *kinds: str) -> str:
        if self._chance.random() >= 0.25:
            return ""
        kind = self._chance.choice(kinds)
        self._counts[f"fault {kind}"] += 1
        return kind

    def create(self, name: str, data: bytes | memoryview) -> None:
        if name.startswith(".probe-"):
            self._probe(name, data)
            return
        self._actor.stand("create")
        kind = self._fault("throttled", "partial", "lost", "doubled")
        if kind == "throttled":
            raise ConnectionError("503 SlowDown")
        if kind == "partial":
            raise ConnectionResetError("after half of the bytes: nothing becomes visible")
        self._inner.create(name, data)
        self._actor.stand("created")
        if kind == "lost":
            raise TimeoutError("no reply")
        if kind == "doubled":
            self._inner.create(name, data)  # the reply is the second one's

    def _probe(self, name: str, data: bytes | memoryview) -> None:
        # Answered here: schedules are about segments, and a probe for each archiver would be most of the requests.
        if name in self._probes:
            raise FileExistsError(name)
        self._probes[name] = bytes(data)

    def replace(self, name: str, data: bytes | memoryview) -> None:
        self._inner.replace(name, data)

    def read(self, name: str) -> bytes:
        return self._probes[name] if name in self._probes else self._inner.read(name)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        self._actor.stand("read")
        kind = self._fault("throttled", "cut", "flipped")
        if kind == "throttled":
            raise TimeoutError("no reply")
        data = self._inner.read_range(name, start, end)
        if kind == "cut":
            return data[: self._chance.randrange(len(data))]
        if kind == "flipped" and name not in self._damaged:
            # Once for each: the same bytes damaged twice on their way are taken for damaged where they are kept.
            self._damaged.add(name)
            at = self._chance.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << self._chance.randrange(8)]) + data[at + 1 :]
        return data

    def size(self, name: str) -> int:
        return self._inner.size(name)

    def names(self, folder: str, after: str) -> list[tuple[str, int | None]]:
        self._actor.stand("list")
        kind = self._fault("throttled", "stale")
        if kind == "throttled":
            raise ConnectionError("503 SlowDown")
        names = sorted(self._inner.names(folder, after))
        if kind == "stale" and names and names[0][0].endswith(".parquet"):
            return names[: self._chance.randrange(len(names))]
        return names

    def remove(self, name: str) -> None:
        del self._probes[name]


class FaultyFolder(LocalStore):
    """A folder whose writes fail in ways drawn from the schedule."""

    def __init__(self, root: str, actor: Actor, chance: random.Random, counts: Counter[str]) -> None:
        super().__init__(fsspec.filesystem("file"), root)
        self._actor = actor
        self._chance = chance
        self._counts = counts

    def put_if_absent(self, name: str, data: bytes | memoryview) -> bool:
        self._actor.stand("create")
        kind = self._chance.choice(["refused", "lost", "doubled"]) if self._chance.random() < 0.25 else ""
        if kind:
            self._counts[f"fault {kind}"] += 1
        if kind == "refused":
            raise ArchiveUnavailableError("disk full", transient=True)
        won = super().put_if_absent(name, data)
        self._actor.stand("created")
        if kind == "lost":
            raise ArchiveUnavailableError("the call was interrupted", transient=True)
        return super().put_if_absent(name, data) if kind == "doubled" else won


class HoleyLog:
    """The log with some offsets without a record, as transaction markers and compaction leave them."""

    def __init__(self, log: Log, holes: frozenset[int]) -> None:
        self._log = log
        self._holes = holes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, topic: str, partition: int, offset: int, **options: Any) -> Batch:
        batch = self._log.read(topic, partition, offset, **options)
        keep = [at for at, number in enumerate(batch.offsets) if number not in self._holes]
        columns = (batch.offsets, batch.timestamps, batch.keys, batch.values)
        offsets, timestamps, keys, values = ([column[at] for at in keep] for column in columns)
        headers = [batch.headers_at(at) for at in keep]
        return Batch(
            topic, partition, batch.base, batch.next, offsets, timestamps, keys, values, headers, nbytes=batch.nbytes,
        )  # fmt: skip


class Row(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Backend(NamedTuple):
    """Where archives are: a store for an actor, a clean one, and the raw files below a prefix by another reader."""

    faulty: Callable[[str, Actor, random.Random, Counter[str]], LocalStore | ObjectStore]
    clean: Callable[[str], LocalStore | ObjectStore]
    files: Callable[[str], dict[str, bytes]]
    forget: Callable[[str], None]


def local_backend(root: Path) -> Backend:
    def files(prefix: str) -> dict[str, bytes]:
        folder = root / prefix
        return {
            str(path.relative_to(root)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    return Backend(
        lambda prefix, actor, chance, counts: FaultyFolder(str(root / prefix), actor, chance, counts),
        lambda prefix: open_store(f"file://{root / prefix}"),
        files,
        lambda prefix: shutil.rmtree(root / prefix),
    )


def s3_backend(place: object_stores.Place, *, accelerate: bool = True) -> Backend:
    options = {**place.options, "accelerate": accelerate}
    # One connection pool for all: a schedule's archivers differ in what they know, not in their sockets.
    shared = open_store(place.url("x"), options)
    assert isinstance(shared, ObjectStore)

    def client(prefix: str) -> ObjectClient:
        made = open_store(place.url(prefix), options)
        assert isinstance(made, ObjectStore)
        mine, theirs = made._client, shared._client
        behind: Any = getattr(mine, "_behind", mine)
        pool: Any = getattr(theirs, "_behind", theirs)
        behind.filesystem = pool.filesystem
        if mine is not behind:
            connected: Any = theirs
            mine.__dict__["_store"] = connected._connected()
        return mine

    def faulty(prefix: str, actor: Actor, chance: random.Random, counts: Counter[str]) -> ObjectStore:
        return ObjectStore(
            FaultyClient(client(prefix), actor, chance, counts),
            sleep=lambda _: actor.stand("sleep"),
            clock=ManualClock(),
        )

    return Backend(faulty, lambda prefix: ObjectStore(client(prefix)), place.objects, lambda prefix: None)


def run_schedule(seed: int, backend: Backend, *, verify_every: int = 1) -> Counter[str]:
    """Run one schedule and check what came of it; return what happened. Raises AssertionError naming the seed.

    The raw files are checked always; `verify` is run for one seed in `verify_every`.
    """
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    prefix = f"s{seed}"
    log = open_log(f"memory://schedule-{id(backend)}-{seed}")
    log.create_topic("orders", 1)
    holes = frozenset(n for n in range(400) if chance.random() < 0.1)
    source = HoleyLog(log, holes)
    archivers: list[Archiver] = []

    def main(actor: Actor) -> None:
        own = random.Random(chance.random())
        archive = Archive(backend.faulty(prefix, actor, own, counts), log.log_id)
        archiver = None
        while archiver is None:
            try:
                archiver = Archiver(source, archive, ["orders"], crash=actor.stand, clock=ManualClock())
            except ArchiveUnavailableError as error:
                _must_pass(error)
        archivers.append(archiver)
        while not (finishing and archive.end("orders", 0) == log.end_offset("orders", 0)):
            archiver._roll_rows = own.randrange(1, 14)
            try:
                archiver.flush()
            except ArchiveUnavailableError as error:
                _must_pass(error)
            actor.stand("pass")

    finishing = False
    _append(log, chance, chance.randrange(1, 20))
    actors = [Actor(number, main) for number in range(WRITERS)]
    stalled: dict[Actor, int] = {}
    for _ in range(chance.randrange(120, 260)):
        deed = chance.random()
        actor = chance.choice(actors)
        if deed < 0.04:
            _append(log, chance, chance.randrange(1, 8))
        elif deed < 0.07:
            stalled[actor] = chance.randrange(10, 150)
            counts["stalls"] += 1
        elif deed < 0.10 and not actor.is_done:
            actor.kill()
            counts["kills"] += 1
            counts[f"killed at {actor.killed_at or 'start'}"] += 1
            actors[actors.index(actor)] = Actor(actor.number, main)
            stalled.pop(actor, None)
        elif actor in stalled:
            stalled[actor] -= 1
            if stalled[actor] <= 0:
                del stalled[actor]
        elif not actor.is_done:
            actor.step()
    finishing = True
    # The stalled ones wake up last, with what they knew when they fell asleep.
    for actor in sorted(actors, key=lambda actor: actor in stalled):
        while not actor.is_done:
            actor.step()
    for actor in actors:
        if actor.error is not None:
            raise AssertionError(f"schedule {seed}: an archiver failed") from actor.error
    for archiver in archivers:
        counts["overtaken"] += archiver.counts.overtaken
        counts["own reply lost"] += archiver.counts.repeated
    last = Archive(backend.clean(prefix), log.log_id)
    Archiver(source, last, ["orders"], clock=ManualClock()).until_idle()
    if seed % verify_every == 0:
        findings = list(last.verify())
        assert findings == [], (seed, findings)
        counts["verified"] += 1
    last.close()
    counts["segments"] += check(
        seed, backend.files(prefix), expected_rows(log, holes), log.end_offset("orders", 0)
    )
    log.close()
    backend.forget(prefix)
    counts["schedules"] += 1
    return counts


def _must_pass(error: ArchiveUnavailableError) -> None:
    if not error.transient:
        raise error


def _append(log: Log, chance: random.Random, count: int) -> None:
    columns: tuple[list[Any], ...] = ([], [], [], [])
    for _ in range(count):
        row = (
            chance.choice([-1, 0, 2**63 - 1, chance.randrange(10**9)]),
            chance.choice([None, b"", chance.randbytes(3)]),
            chance.choice([None, b"", chance.randbytes(30)]),
            chance.choice([(), (("h", None), ("h", b"\xff")), (("ü", b""),)]),
        )
        for column, cell in zip(columns, row, strict=True):
            column.append(cell)
    log.append([Append("orders", 0, *columns)])


def expected_rows(log: Log, holes: frozenset[int]) -> list[Row]:
    """Return the records that the archive must hold, from the log."""
    rows: list[Row] = []
    position, end = 0, log.end_offset("orders", 0)
    while position < end:
        batch = log.read("orders", 0, position)
        rows += [
            Row(offset, batch.timestamps[at], batch.keys[at], batch.values[at], batch.headers_at(at))
            for at, offset in enumerate(batch.offsets)
            if offset not in holes
        ]
        position = batch.next
    return rows


def check(seed: int, files: dict[str, bytes], expected: list[Row], end: int) -> int:
    """Check the raw files with nothing of Headwater's: tiling by their names and metadata, records by plain Parquet."""
    segments = sorted((name, data) for name, data in files.items() if name.endswith(".parquet"))
    segments = [(name, data) for name, data in segments if not name.rpartition("/")[2].startswith(".")]
    rows: list[Row] = []
    position = 0
    for name, data in segments:
        metadata = pq.read_metadata(io.BytesIO(data)).metadata
        base, following = int(metadata[b"hw.base_offset"]), int(metadata[b"hw.next_offset"])
        assert int(name.rpartition("/")[2].removesuffix(".parquet")) == base, (seed, name)
        assert base == position, (
            f"schedule {seed}: {'gap' if base > position else 'overlap'} at {position}: {name}"
        )
        assert json.loads(metadata[b"hw.gap"]) is None, (seed, name)
        table = pq.read_table(io.BytesIO(data))
        columns = [table.column(c).to_pylist() for c in ("offset", "timestamp", "key", "value", "headers")]
        for offset, timestamp, key, value, headers in zip(*columns, strict=True):
            assert base <= offset < following, (seed, name, offset)
            rows.append(
                Row(offset, timestamp, key, value, tuple((h["key"], h["value"]) for h in headers or ()))
            )
        position = following
    assert position == end, (seed, position, end)
    assert rows == expected, f"schedule {seed}: records differ"
    return len(segments)


@contextmanager
def backend_named(name: str) -> Iterator[Backend]:
    """Make a backend: `local`, `moto`, `moto-s3fs`, or the path of a versitygw binary."""
    if name == "local":
        with tempfile.TemporaryDirectory(prefix="headwater-schedules-") as folder:
            yield local_backend(Path(folder))
    elif name.startswith("moto"):
        with object_stores.moto() as place:
            yield s3_backend(place, accelerate=name == "moto")
    else:
        with object_stores.versitygw(name) as place:
            yield s3_backend(place)


def main() -> int:
    """Run the long form and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--on", default="local", help="local, moto, moto-s3fs, or the path of a versitygw binary"
    )
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    with backend_named(options.on) as backend:
        for seed in range(options.first, options.first + options.count):
            total += run_schedule(seed, backend)
            if total["schedules"] % 100 == 0:
                print(
                    f"{total['schedules']} schedules on {options.on}, all exact", file=sys.stderr, flush=True
                )
    print(json.dumps({"on": Path(options.on).name, **dict(sorted(total.items()))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
