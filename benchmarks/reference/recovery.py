"""Recovery of a table as a bare loop: changelog blobs from SQLite, the last value of each key, sorted, into one SST file."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc
import rocksdict

from benchmarks import data
from benchmarks.reference import sqlite_table


def store(path: Path, keys: int) -> None:
    """Write a changelog in which each key has one change, 50,000 a blob."""
    raw = sqlite_table.connect(path)
    raw.execute("CREATE TABLE changelog (number INTEGER PRIMARY KEY, data BLOB)")
    rows = [
        row
        for clicks in data.partitions(keys, keys)
        for row in zip(clicks.keys, clicks.timestamps, strict=True)
    ]
    for low in range(0, len(rows), sqlite_table.EPOCH_RECORDS):
        part = rows[low : low + sqlite_table.EPOCH_RECORDS]
        blob = sqlite_table.changelog(
            [key.decode() for key, _ in part],
            [float(time) for _, time in part],
            [pa.array([time for _, time in part], pa.int64())],
            ([pa.repeat(pa.scalar(0, pa.int32()), len(part))], [pa.array(range(len(part)), pa.int64())]),
        )
        raw.execute("INSERT INTO changelog (data) VALUES (?)", (blob,))
    raw.close()


def run(path: Path) -> float:
    """Return the seconds from the first blob read to the file taken in; the keys of this changelog are distinct."""
    raw = sqlite3.connect(path)
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        options = rocksdict.Options(raw_mode=True)
        database = rocksdict.Rdict(f"{folder}/state", options)
        begin = perf_counter()
        batches = [
            pa.ipc.open_stream(blob).read_next_batch().select(["key", "value"])
            for (blob,) in raw.execute("SELECT data FROM changelog ORDER BY number")
        ]
        table = pa.Table.from_batches(batches)
        table = table.take(pc.sort_indices(table.column("key")))
        file = rocksdict.SstFileWriter(options)
        file.open(f"{folder}/rows.sst")
        put = file.__setitem__
        for key, value in zip(
            table.column("key").to_pylist(), table.column("value").to_pylist(), strict=True
        ):
            put(key, value)
        file.finish()
        database.ingest_external_file([f"{folder}/rows.sst"])
        seconds = perf_counter() - begin
        database.close()
    raw.close()
    return seconds
