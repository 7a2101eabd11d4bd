"""Where a record's time goes: each step of the engine's loop over a keyed table, beside the same step of the bare loop.

The steps are the engine's own parts (log, codec, feed, table, changelog, store) in the order a task runs them, with the
least glue between; what groups, retries and the worker add shows in `embedded_table.py --stages`. With `--cprofile`
the functions that cost most are listed (their times are then inflated).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import tempfile
from contextvars import copy_context
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import data
from benchmarks.apps.spend import Click, clicks, spend
from benchmarks.loading import load_log
from benchmarks.reference import sqlite_table
from headwater.core.batch import Append
from headwater.core.keys import key_text
from headwater.engine import outbox
from headwater.log import open_log
from headwater.log.interface import Transaction
from headwater.merge.channel import Channel
from headwater.merge.merge import Merge
from headwater.stream.feed import Feed
from headwater.stream.frame import CURRENT, Frame, Rows, Work
from headwater.table.behind import WriteBehind
from headwater.table.part import TablePart
from headwater.table.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.core.batch import Batch
    from headwater.log.interface import Log
    from headwater.merge.channel import Piece
    from headwater.merge.merge import Group

CHANGELOG = "spend.live.changelog.spend"
STEPS = ("read", "merge", "decode", "rows", "agent", "changelog", "commit", "store")


class Stages:
    """Seconds spent by step: of this thread's processor time, or of the wall clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin at nothing."""
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self._now = now
        self._since = 0.0

    def begin(self) -> None:
        """Begin a step."""
        self._since = self._now()

    def end(self, step: str) -> None:
        """End the step and begin the next."""
        now = self._now()
        self.seconds[step] += now - self._since
        self._since = now


class MiniTask:
    """One partition's rows, table part, and running agent, without merge, retries and assignment."""

    def __init__(self, partition: int, state: str, history: Any) -> None:
        """Open the store and start the agent's loop."""
        self.partition = partition
        self.position = 0
        self.merge = Merge(
            [Channel(f"clicks/{partition}", 0, None, ("clicks", partition))], records_max=1 << 30
        )
        store = open_store(state, "spend", partition)
        self.part = TablePart(
            "spend",
            0,
            partition,
            data.PARTITIONS,
            WriteBehind(store),
            spend.codec,
            default=float,
            last_only=history is None,
        )
        self.rows = Rows((0, self.partition))
        self.frame = Frame("total", self.rows)
        self.frame.parts[spend.number] = self.part
        self.feed = Feed(self.frame)
        context = copy_context()
        context.run(CURRENT.set, self.frame)
        self.agent = context.run(asyncio.get_running_loop().create_task, self._agent())

    async def _agent(self) -> None:
        # The body of apps/spend.py, on the feed's own iterator as Stream.__aiter__ hands it out.
        async for click in self.feed.values():
            spend[click.user] += click.amount

    def wait(self, batch: Batch) -> Group:
        """Have the merge take a batch, and cut all of it."""
        self.merge.channels[0].add_batch(batch)
        group = self.merge.cut(lambda channel: False)
        assert group is not None
        return group

    def take(self, piece: Piece, values: Any) -> Work:
        """Give records rows, as Intake.take does where a task has one source topic."""
        rows, first, count = self.rows, len(self.rows), len(values)
        rows.task_times.extend(piece.times)
        rows.timestamps.extend(piece.timestamps)
        rows.keys.extend(piece.keys)
        rows.cause_offsets.extend(piece.offsets)
        return Work(
            range(first, first + count), values, piece.keys, piece.values, piece.timestamps, piece.offsets,
            piece.headers, 0, [("clicks", self.partition)], 0, piece.places, piece.times,
        )  # fmt: skip

    def changelog(self, history: Any) -> list[Append]:
        """Return the epoch's changes as an append, by the engine's own step."""
        return outbox.changelog(self.part.cut(), self.rows, CHANGELOG, self.partition, history)

    def begin_epoch(self) -> None:
        """Take new rows."""
        self.rows = Rows((0, self.partition))
        self.frame.rows, self.frame.row = self.rows, -1


async def headwater(
    log: Log, state: str, history: Any, now: Callable[[], float]
) -> tuple[Stages, dict[Any, float]]:
    """Run the parts once over the log."""
    stages = Stages(now)
    tasks = [MiniTask(partition, state, history) for partition in range(data.PARTITIONS)]
    codec = clicks.codec
    ends = [log.end_offset("clicks", partition) for partition in range(data.PARTITIONS)]
    pending = 0

    def commit() -> None:
        stages.begin()
        # A partition that has come to its end earlier has nothing to append.
        appends = {task.partition: task.changelog(history) for task in tasks}
        stages.end("changelog")
        bases = log.commit(Transaction([append for own in appends.values() for append in own]))
        stages.end("commit")
        for task in tasks:
            if appends[task.partition]:
                base = bases[(CHANGELOG, task.partition)]  # type: ignore[index]
                task.part.store.commit(base + sum(map(len, appends[task.partition])))
            task.begin_epoch()
        stages.end("store")

    while any(task.position < ends[task.partition] for task in tasks):
        for task in tasks:
            if task.position >= ends[task.partition]:
                continue
            stages.begin()
            batch = log.read("clicks", task.partition, task.position, bytes_max=700_000)
            stages.end("read")
            piece = task.wait(batch).piece
            stages.end("merge")
            values = codec.decode_all(piece.values)
            stages.end("decode")
            work = task.take(piece, values)
            stages.end("rows")
            task.feed.put(work)
            await task.feed.turn()
            stages.end("agent")
            task.part.seal()
            stages.end("changelog")
            task.position = batch.next
            pending += len(batch)
        if pending >= sqlite_table.EPOCH_RECORDS:
            commit()
            pending = 0
    if pending:
        commit()
    found: dict[Any, float] = {}
    for task in tasks:
        found.update({key_text(key): value for key, value in task.part.items()})
        task.agent.cancel()
        task.part.store.close()
    return stages, found


def bare(path: Path, now: Callable[[], float], *, every_change: bool) -> Stages:
    """Run the reference's steps one after the other, each timed."""
    import msgspec

    stages = Stages(now)
    raw = sqlite_table.connect(path)
    raw.execute("DELETE FROM changelog")
    decode = msgspec.json.Decoder(sqlite_table.Click).decode
    table: dict[str, float] = {}
    get = table.get
    keys: list[str] = []
    totals: list[float] = []
    times: list[Any] = []
    origins: tuple[list[Any], list[Any]] = ([], [])
    last: dict[str, int] = {}

    def commit() -> None:
        nonlocal keys, totals, times, origins, last
        stages.begin()
        if every_change:
            blob = sqlite_table.changelog(keys, totals, times, origins)
        else:
            rows = pa.array(list(last.values()), pa.int64())
            blob = sqlite_table.changelog(
                list(last),
                [table[user] for user in last],
                [pa.concat_arrays(times).take(rows)],
                ([pa.concat_arrays(origins[0]).take(rows)], [pa.concat_arrays(origins[1]).take(rows)]),
            )
        stages.end("changelog")
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO changelog (data) VALUES (?)", (blob,))
        raw.execute("COMMIT")
        stages.end("commit")
        keys, totals, times, origins, last = [], [], [], ([], []), {}

    number = pending = 0
    while True:
        number += 1
        stages.begin()
        row = raw.execute(
            "SELECT partition, base, next, data FROM batch WHERE number = ?", (number,)
        ).fetchone()
        if row is None:
            break
        partition, base, end, blob = row
        batch = pa.ipc.open_stream(blob).read_next_batch()
        values = batch.column(2).to_pylist()
        stages.end("read")
        decoded = list(map(decode, values))
        stages.end("decode")
        times.append(pc.cumulative_max(batch.column(0)))
        origins[0].append(pa.repeat(pa.scalar(partition, pa.int32()), end - base))
        origins[1].append(pc.add(sqlite_table.OFFSETS.slice(0, end - base), base))
        stages.end("rows")
        if every_change:
            keep_key, keep_total = keys.append, totals.append
            for click in decoded:
                user = click.user
                table[user] = total = get(user, 0.0) + click.amount
                keep_key(user)
                keep_total(total)
        else:
            for at, click in enumerate(decoded, pending):
                user = click.user
                table[user] = get(user, 0.0) + click.amount
                last[user] = at
        stages.end("agent")
        pending += end - base
        if pending >= sqlite_table.EPOCH_RECORDS:
            commit()
            pending = 0
    if pending:
        commit()
    raw.close()
    return stages


def _run(log: Log, state: str, history: Any, now: Callable[[], float]) -> tuple[Stages, dict[Any, float]]:
    return asyncio.run(headwater(log, state, history, now))


def profiled(enabled: bool, run: Callable[[], Any]) -> Any:
    """Run, and list the dearest functions where asked for."""
    if not enabled:
        return run()
    profile = cProfile.Profile()
    result = profile.runcall(run)
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)
    return result


def main() -> None:
    """Print nanoseconds a record by step, of the parts and of the bare loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=data.RECORDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cprofile", action="store_true")
    parser.add_argument("--wall", action="store_true", help="wall clock, waiting for the disk included")
    options = parser.parse_args()
    now = perf_counter if options.wall else thread_time
    gc.collect()
    gc.freeze()  # as a worker does
    assert spend.codec.decode(b"1.5") == 1.5
    assert Click.__name__ == "Click"
    for history in ("exact", None):
        best: list[dict[str, float]] = [{}, {}]
        for turn in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
                url = f"file://{folder}/log"
                load_log(url, options.records)
                log = open_log(url)
                log.create_topic(CHANGELOG, data.PARTITIONS)
                log.topics()
                path = Path(folder) / "bare.sqlite"
                sqlite_table.store(path, options.records)
                run = partial(_run, log, f"{folder}/state", history, now)
                stages, found = profiled(options.cprofile and turn == options.rounds - 1, run)
                data.check(found, options.records)
                log.close()
                reference = bare(path, now, every_change=history is not None)
                for at, side in enumerate((stages, reference)):
                    if not best[at] or sum(side.seconds.values()) < sum(best[at].values()):
                        best[at] = side.seconds
        sys.stdout.write(
            f"\nhistory={history!r}: ns a record, best of {options.rounds}, {'wall' if options.wall else 'processor'} time\n"
        )
        for step in STEPS:
            mine, bare_ns = (best[at][step] / options.records * 1e9 for at in range(2))
            sys.stdout.write(f"  {step:10} headwater {mine:7.0f}   bare {bare_ns:7.0f}\n")
        mine, bare_ns = (sum(best[at].values()) / options.records * 1e9 for at in range(2))
        sys.stdout.write(
            f"  {'all':10} headwater {mine:7.0f}   bare {bare_ns:7.0f}   = {1e6 / mine:.0f} of {1e6 / bare_ns:.0f} k/s, "
            f"ratio {bare_ns / mine:.2f}\n"
        )


if __name__ == "__main__":
    main()
