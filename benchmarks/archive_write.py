"""The archiver, log to segments, beside pyarrow alone: MB of raw records a second of one core.

Raw is key and value and 16 bytes (offset and timestamp) a record. Headwater reads the embedded log, checks and sums up each
record, encodes, puts checksums on every byte, and syncs. The reference has the columns in memory and writes Parquet of the
same layout to memory. Both are timed by the processor: a disk's sync and other work on the machine are no part of the claim.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data
from benchmarks.loading import load_log
from headwater.archive import open_archive
from headwater.archive.segment import ROW_GROUP_ROWS
from headwater.archive.writer import Archiver
from headwater.log import open_log

GOAL_MB_S = 100.0
RECORD_BYTES = 16


def raw_mb(records: int) -> float:
    """Return the size of all records."""
    parts = data.partitions(records)
    return (
        sum(
            len(k) + len(v) + RECORD_BYTES
            for part in parts
            for k, v in zip(part.keys, part.values, strict=True)
        )
        / 1e6
    )


def by_headwater(folder: Path, turn: int, records: int) -> tuple[float, float]:
    """Archive the log; return processor and wall seconds."""
    log = open_log(f"file://{folder}/log")
    archive = open_archive(f"file://{folder}/archive-{turn}", log.log_id)
    archiver = Archiver(log, archive, ["clicks"])
    began, began_s = time.process_time(), time.perf_counter()
    archived = archiver.until_idle()
    taken = time.process_time() - began, time.perf_counter() - began_s
    if archived != records or archive.store.url is None:
        raise SystemExit(f"{archived} of {records} records were archived")
    archive.close()
    log.close()
    return taken


def by_pyarrow(records: int) -> float:
    """Write the same columns as Parquet; return processor seconds."""
    tables = [
        pa.table(
            {
                "offset": pa.array(range(len(part)), pa.int64()), "timestamp": pa.array(part.timestamps, pa.int64()),
                "key": pa.array(part.keys, pa.binary()), "value": pa.array(part.values, pa.binary()),
            }
        )
        for part in data.partitions(records)
    ]  # fmt: skip
    began = time.process_time()
    for table in tables:
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink, table.schema, compression="zstd", compression_level=1, use_dictionary=False, write_page_index=True,
            write_page_checksum=True, write_statistics=["offset", "timestamp"],
        ) as writer:  # fmt: skip
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return time.process_time() - began


def main() -> int:
    """Print one line; exit code 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = raw_mb(options.records)
    mine: list[float] = []
    wall: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        load_log(f"file://{name}/log", options.records)
        by_headwater(Path(name), -1, options.records)  # the first use of pyarrow costs a second
        for turn in range(options.rounds):
            processor_s, wall_s = by_headwater(Path(name), turn, options.records)
            mine.append(size / processor_s)
            wall.append(size / wall_s)
            theirs.append(size / by_pyarrow(options.records))
    ratio = median(one / other for one, other in zip(mine, theirs, strict=True))
    met = median(mine) >= GOAL_MB_S
    sys.stdout.write(
        f"{'archive write, raw records a core':46} headwater {median(mine):5.0f} MB/s  reference {median(theirs):5.0f} MB/s  "
        f"ratio {ratio:.2f}  goal {GOAL_MB_S:.0f} MB/s {'pass' if met else 'FAIL'}  (by the wall {median(wall):.0f} MB/s)\n"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
