"""A keyed table over an embedded log, as a bare loop: SQLite batches, one transaction every 50,000 records.

The log: Arrow IPC streams (lz4) of 5,000 records in SQLite (WAL, synchronous=FULL). The loop reads a batch, decodes
its JSON into Structs, adds to a dict, and commits changelog and positions together. No partitions are moved, no
record is retried, nothing is fenced: what is left is what any engine must do.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import rocksdict

from benchmarks import data

EPOCH_RECORDS = 50_000

_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)
_BATCH = pa.schema([("timestamp", pa.int64()), ("key", pa.binary()), ("value", pa.binary())])
_CAUSE = pa.struct([
    ("input", pa.int32()), ("partition", pa.int32()), ("offset", pa.int64()), ("emit", pa.int32()),
])  # fmt: skip
_CHANGES = pa.schema([
    ("key", pa.binary()), ("value", pa.binary()), ("task_time", pa.int64()), ("cause", _CAUSE),
])  # fmt: skip


class Click(msgspec.Struct, gc=False):
    user: str
    amount: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took, by the wall clock and of the processor, and the table it made."""

    seconds: float
    processor_s: float
    table: dict[str, float]


def connect(path: Path) -> sqlite3.Connection:
    """Open the database with the settings of a log that survives a power cut."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA page_size = 16384")
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    return raw


def ipc(columns: list[Any], schema: Any) -> bytes:
    """Return columns as an Arrow IPC stream."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, schema, options=_WRITE) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return bytes(out.getvalue())


def store(path: Path, records: int = data.RECORDS, users: int = data.USERS) -> None:
    """Write the log beforehand."""
    raw = connect(path)
    raw.execute("CREATE TABLE batch (number INTEGER PRIMARY KEY, partition, base, next, data BLOB)")
    raw.execute("CREATE TABLE changelog (number INTEGER PRIMARY KEY, data BLOB)")
    raw.execute("CREATE TABLE position (partition INTEGER PRIMARY KEY, next)")
    for clicks in data.batches(records, users):
        blob = ipc(
            [
                pa.array(clicks.timestamps),
                pa.array(clicks.keys, pa.binary()),
                pa.array(clicks.values, pa.binary()),
            ],
            _BATCH,
        )
        raw.execute(
            "INSERT INTO batch (partition, base, next, data) VALUES (?, ?, ?, ?)",
            (clicks.partition, clicks.base, clicks.base + len(clicks), blob),
        )
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()


def changelog(
    keys: list[str], totals: list[float], times: list[Any], causes: tuple[list[Any], list[Any]]
) -> bytes:
    """Return an epoch's changes as one blob."""
    count = len(keys)
    zeros = pa.repeat(pa.scalar(0, pa.int32()), count)
    cause = pa.StructArray.from_arrays(
        [zeros, pa.concat_arrays(causes[0]), pa.concat_arrays(causes[1]), zeros], fields=list(_CAUSE)
    )
    columns = [
        pa.array(keys, pa.string()).cast(pa.binary()),
        pa.array(list(map(_encode, totals)), pa.binary()),
        pa.concat_arrays(times),
        cause,
    ]
    return ipc(columns, _CHANGES)


OFFSETS = pa.array(range(data.BATCH_RECORDS), pa.int64())
_encode = msgspec.json.Encoder().encode


def run(path: Path, *, every_change: bool, state: Path | None = None) -> Run:
    """Read the whole log once; with `state` the changed rows of an epoch also go to RocksDB in one WriteBatch."""
    raw = connect(path)
    raw.execute("PRAGMA wal_autocheckpoint = 1000")
    raw.execute("DELETE FROM changelog")
    raw.execute("DELETE FROM position")
    rocks = None if state is None else rocksdict.Rdict(str(state), rocksdict.Options(raw_mode=True))
    decode = msgspec.json.Decoder(Click).decode
    table: dict[str, float] = {}
    get = table.get
    positions: dict[int, int] = {}
    clocks = [0] * data.PARTITIONS

    keys: list[str] = []
    totals: list[float] = []
    times: list[Any] = []
    origins: tuple[list[Any], list[Any]] = ([], [])
    last: dict[str, int] = {}
    pending = number = 0

    def commit() -> None:
        nonlocal keys, totals, times, origins, last, pending
        if every_change:
            blob = changelog(keys, totals, times, origins)
            changed = dict.fromkeys(keys)
        else:
            changed = dict.fromkeys(last)
            rows = pa.array(list(last.values()), pa.int64())
            blob = changelog(
                list(last),
                [table[user] for user in last],
                [pa.concat_arrays(times).take(rows)],
                ([pa.concat_arrays(origins[0]).take(rows)], [pa.concat_arrays(origins[1]).take(rows)]),
            )
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO changelog (data) VALUES (?)", (blob,))
        raw.executemany("INSERT OR REPLACE INTO position VALUES (?, ?)", list(positions.items()))
        raw.execute("COMMIT")
        if rocks is not None:
            rows_batch = rocksdict.WriteBatch(raw_mode=True)
            for user in changed:
                rows_batch.put(user.encode(), _encode(table[user]))
            rocks.write(rows_batch)
        keys, totals, times, origins, last, pending = [], [], [], ([], []), {}, 0

    pa.array([b"warm"], pa.binary())
    begin, processor = perf_counter(), process_time()
    while True:
        number += 1
        row = raw.execute(
            "SELECT partition, base, next, data FROM batch WHERE number = ?", (number,)
        ).fetchone()
        if row is None:
            break
        partition, base, end, blob = row
        batch = pa.ipc.open_stream(blob, options=_READ).read_next_batch()
        effective = pc.cumulative_max(batch.column(0), start=clocks[partition])
        clocks[partition] = effective[-1].as_py()
        times.append(effective)
        origins[0].append(pa.repeat(pa.scalar(partition, pa.int32()), end - base))
        origins[1].append(pc.add(OFFSETS.slice(0, end - base), base))
        if every_change:
            keep_key, keep_total = keys.append, totals.append
            for click in map(decode, batch.column(2).to_pylist()):
                user = click.user
                table[user] = total = get(user, 0.0) + click.amount
                keep_key(user)
                keep_total(total)
        else:
            for at, click in enumerate(map(decode, batch.column(2).to_pylist()), pending):
                user = click.user
                table[user] = get(user, 0.0) + click.amount
                last[user] = at
        positions[partition] = end
        pending += end - base
        if pending >= EPOCH_RECORDS:
            commit()
    if pending:
        commit()
    seconds, processor = perf_counter() - begin, process_time() - processor
    if rocks is not None:
        rocks.close()
    raw.close()
    return Run(seconds, processor, table)


def main() -> None:
    """Print the rates of the three variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    variants = {
        "every change kept": (True, False, 740),
        "the last per key and epoch": (False, False, 1250),
        "every change kept, rows in RocksDB": (True, True, None),
        "the last per key and epoch, rows in RocksDB": (False, True, None),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        path = Path(folder) / "log.sqlite"
        store(path, options.records)
        for turn in range(options.rounds):
            for at, (name, (every_change, with_state, _)) in enumerate(variants.items()):
                state = Path(folder) / f"state-{turn}-{at}" if with_state else None
                done = run(path, every_change=every_change, state=state)
                data.check(done.table, options.records)
                rates[name].append(options.records / done.seconds / 1000)
    for name, (_, _, quoted) in variants.items():
        beside = "" if quoted is None else f"  (design: {quoted})"
        sys.stdout.write(f"sqlite_table, {name:45} {median(rates[name]):8.0f} k/s{beside}\n")


if __name__ == "__main__":
    main()
