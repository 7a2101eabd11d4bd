"""A replay of Parquet as a bare loop: pyarrow → Struct → `async for` → a table that is a dict.

Two halves: the archive's own segments (raw bytes, JSON decoded as the replay must), and flat typed columns, where
nothing is left to decode. No changelog, no positions, no commit: what remains is reading, decoding and adding up; with
`every_change` the changelog of each 50,000 records goes to SQLite in one transaction, as in `sqlite_table`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.reference import sqlite_table
from benchmarks.reference.sqlite_table import Click, Run

_RAW = pa.schema(
    [("offset", pa.int64()), ("timestamp", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
)
_FLAT = pa.schema([("timestamp", pa.int64()), ("user", pa.string()), ("amount", pa.float64())])


def store_raw(folder: Path, records: int = data.RECORDS) -> list[Path]:
    """Write one file a partition with raw keys and values, as an archive has them."""
    paths = []
    for clicks in data.partitions(records):
        path = folder / f"raw-{clicks.partition}.parquet"
        columns = [
            pa.array(range(len(clicks)), pa.int64()),
            pa.array(clicks.timestamps, pa.int64()),
            pa.array(clicks.keys, pa.binary()),
            pa.array(clicks.values, pa.binary()),
        ]
        pq.write_table(pa.table(columns, schema=_RAW), path, compression="zstd", use_dictionary=["key"])
        paths.append(path)
    return paths


def store_flat(folder: Path, records: int = data.RECORDS) -> list[Path]:
    """Write one file a partition with the fields as typed columns."""
    decode = msgspec.json.Decoder(Click).decode
    paths = []
    for clicks in data.partitions(records):
        path = folder / f"flat-{clicks.partition}.parquet"
        decoded = [decode(value) for value in clicks.values]
        columns = [
            pa.array(clicks.timestamps, pa.int64()),
            pa.array([click.user for click in decoded], pa.string()),
            pa.array([click.amount for click in decoded], pa.float64()),
        ]
        pq.write_table(pa.table(columns, schema=_FLAT), path, compression="zstd")
        paths.append(path)
    return paths


def _batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(data.BATCH_RECORDS * 2, columns=list(columns), use_threads=False)


async def _raw(paths: Iterable[Path], changes: Changes | None) -> AsyncIterator[Click]:
    decode = msgspec.json.Decoder(Click).decode
    for partition, path in enumerate(paths):
        columns = ["value"] if changes is None else ["offset", "timestamp", "value"]
        for batch in _batches(path, columns):
            if changes is not None:
                changes.note(partition, batch)
            for click in map(decode, batch.column(batch.num_columns - 1).to_pylist()):
                yield click
            if changes is not None and changes.due():
                changes.commit()


async def _flat(paths: Iterable[Path]) -> AsyncIterator[dict[str, Any]]:
    for path in paths:
        for batch in _batches(path, ["user", "amount"]):
            users, amounts = (column.to_pylist() for column in batch.columns)
            for user, amount in zip(users, amounts, strict=True):
                yield {"user": user, "amount": amount}


class Changes:
    """The changelog of the loop: every change, one SQLite transaction an epoch."""

    def __init__(self, path: Path) -> None:
        """Make the database."""
        self.raw = sqlite_table.connect(path)
        self.raw.execute("CREATE TABLE IF NOT EXISTS changelog (number INTEGER PRIMARY KEY, data BLOB)")
        self._begin()

    def _begin(self) -> None:
        self.keys: list[str] = []
        self.totals: list[float] = []
        self.times: list[Any] = []
        self.origins: tuple[list[Any], list[Any]] = ([], [])

    def note(self, partition: int, batch: Any) -> None:
        """Note the causes of a batch."""
        self.origins[0].append(pa.repeat(pa.scalar(partition, pa.int32()), len(batch)))
        self.origins[1].append(batch.column(0))
        self.times.append(pc.cumulative_max(batch.column(1)))

    def due(self) -> bool:
        """Whether an epoch's worth is there."""
        return len(self.keys) >= sqlite_table.EPOCH_RECORDS

    def commit(self) -> None:
        """Write the epoch."""
        blob = sqlite_table.changelog(self.keys, self.totals, self.times, self.origins)
        self.raw.execute("BEGIN IMMEDIATE")
        self.raw.execute("INSERT INTO changelog (data) VALUES (?)", (blob,))
        self.raw.execute("COMMIT")
        self._begin()


async def _total(clicks: AsyncIterator[Click], changes: Changes | None) -> dict[str, float]:
    table: dict[str, float] = {}
    get = table.get
    if changes is None:
        async for click in clicks:
            user = click.user
            table[user] = get(user, 0.0) + click.amount
        return table
    async for click in clicks:
        user = click.user
        table[user] = total = get(user, 0.0) + click.amount
        changes.keys.append(user)
        changes.totals.append(total)
    if changes.keys:
        changes.commit()
    return table


async def _total_flat(clicks: AsyncIterator[dict[str, Any]]) -> dict[str, float]:
    table: dict[str, float] = {}
    get = table.get
    async for click in clicks:
        user = click["user"]
        table[user] = get(user, 0.0) + click["amount"]
    return table


def run(paths: Sequence[Path], *, flat: bool = False, changelog: Path | None = None) -> Run:
    """Read all files once."""

    async def work() -> Run:
        changes = None if changelog is None else Changes(changelog)
        begin, processor = perf_counter(), process_time()
        table = await (_total_flat(_flat(paths)) if flat else _total(_raw(paths, changes), changes))
        seconds, processor = perf_counter() - begin, process_time() - processor
        if changes is not None:
            changes.raw.close()
        return Run(seconds, processor, table)

    return asyncio.run(work())


def main() -> None:
    """Print the rates of the variants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        raw, flat = store_raw(folder, options.records), store_flat(folder, options.records)
        for turn in range(options.rounds):
            runs = {
                "raw values, decoded": run(raw),
                "flat columns as dicts": run(flat, flat=True),
                "raw values, decoded, every change kept": run(
                    raw, changelog=folder / f"changes-{turn}.sqlite"
                ),
            }
            for variant, done in runs.items():
                data.check(done.table, options.records)
                rates.setdefault(variant, []).append(options.records / done.seconds / 1000)
    for variant, found in rates.items():
        beside = "  (design: 1500)" if "every" not in variant else ""
        sys.stdout.write(f"parquet_loop, {variant:45} {median(found):8.0f} k/s{beside}\n")


if __name__ == "__main__":
    main()
