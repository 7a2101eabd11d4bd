"""A topic's whole history, archive and log as one, and a table's rows folded from it; no store of a worker is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.errors import HandoverGapError, OffsetTrimmedError, UnknownNameError, did_you_mean
from headwater.core.names import internal_topic, parse_internal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.archive.archive import Archive
    from headwater.core.batch import Batch
    from headwater.engine.generation import Generation
    from headwater.log.interface import Log


def partitions_of(log: Log, archive: Archive | None, topic: str) -> list[int]:
    """Return a topic's partitions, those of the archive where the log has it no longer; empty: there is no such topic."""
    info = log.topic(topic)
    if info is not None:
        return list(range(info.partitions))
    return [] if archive is None else archive.partitions(topic)


def known_topics(log: Log, archive: Archive | None) -> list[str]:
    """Return the topics of log and archive together."""
    return sorted({*log.topics(), *(() if archive is None else archive.topics())})


def require_topic(log: Log, archive: Archive | None, topic: str) -> list[int]:
    """Return a topic's partitions. Raises UnknownNameError where neither log nor archive has it."""
    partitions = partitions_of(log, archive, topic)
    if not partitions:
        raise UnknownNameError(
            f"no topic {topic!r} in the log {log.url}{did_you_mean(topic, known_topics(log, archive))}"
        )
    return partitions


def range_of(log: Log, archive: Archive | None, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset of archive and log together, and one past the last."""
    _bind(log, archive, topic)
    start = None if archive is None else archive.start(topic, partition)
    if log.topic(topic) is None:
        end = None if archive is None else archive.end(topic, partition)
        return start or 0, end or 0
    low, high = log.start_offset(topic, partition), log.end_offset(topic, partition)
    return (low if start is None else min(start, low)), high


def read_topic(
    log: Log,
    archive: Archive | None,
    topic: str,
    partition: int,
    start: int | None = None,
    end: int | None = None,
) -> Iterator[Batch]:
    """Yield a partition's batches in offset order within [start, end), by default all that is there now.

    The log is read where it has the records, the archive below that. An `end` may be one that the log gave of what is not
    committed yet: it is waited for. Raises HandoverGapError where neither has them.
    """
    in_log = log.topic(topic) is not None
    if start is None or end is None or not in_log:
        first, last = range_of(log, archive, topic, partition)
        start = first if start is None else start
        end = last if end is None else end if in_log else min(end, last)
    else:
        _bind(log, archive, topic)
    position = start
    while position < end:
        if in_log:
            try:
                batch = log.read(topic, partition, position, end=end)
                if batch.next <= position:
                    return
                position = batch.next
                yield batch
                continue
            except OffsetTrimmedError as trimmed:
                stop = min(end, trimmed.start)
        else:
            stop = end
        before = position
        if archive is not None:
            for batch in archive.read(topic, partition, position, end=stop):
                if batch.next > position:
                    position = batch.next
                    yield batch
        if position < stop and position == before:
            raise HandoverGapError(
                f"{topic}/{partition} has no offsets {position}..{stop - 1}, neither in the archive nor in the log; "
                f"start from offset {stop}, or restore the archive's files from a copy",
                base=position,
                end=stop,
            )


def tables_of(log: Log, archive: Archive | None, app_id: str, generation: Generation) -> list[str]:
    """Return the tables a generation has a changelog of; what operators keep for themselves is left out."""
    parts = (parse_internal(topic, app_id) for topic in known_topics(log, archive))
    states = {state for sub in generation.topology.get("subs", ()) for state in sub.get("states", ())}
    return sorted(
        p.name
        for p in parts
        if p is not None
        and p.generation == generation.name
        and p.kind == "changelog"
        and p.name not in states
    )


def is_windowed(generation: Generation, table: str) -> bool:
    """Tell whether a table's rows are windows."""
    return any(table in sub.get("windowed", ()) for sub in generation.topology.get("subs", ()))


def require_table(log: Log, archive: Archive | None, app_id: str, generation: Generation, table: str) -> str:
    """Return the name of a table's changelog topic. Raises UnknownNameError."""
    tables = tables_of(log, archive, app_id, generation)
    if table not in tables:
        more = did_you_mean(table, tables) or "; it has no table with a changelog yet: has a worker run?"
        raise UnknownNameError(
            f"generation {generation.name!r} of app {app_id!r} has no table {table!r}{more}"
        )
    return internal_topic(app_id, generation.name, "changelog", table)


def fold_table(
    log: Log,
    archive: Archive | None,
    app_id: str,
    generation: Generation,
    table: str,
    *,
    as_of: int | None = None,
) -> dict[int, dict[bytes, bytes]]:
    """Return a table's rows by partition, now or after all changes with task time <= `as_of`.

    Raises UnknownNameError, AsOfError where a task has not reached `as_of` and is not at its end, or where the
    generation began later.
    """
    # Here, not at the top: Arrow costs 0.1 s, which `read` and `send` need not pay.
    from headwater.table.as_of import check_as_of, fold

    topic = require_table(log, archive, app_id, generation, table)
    partitions = require_topic(log, archive, topic)
    if as_of is not None:
        progress = TaskProgress(log, archive, app_id, generation)
        for partition in partitions:
            reached, at_end = progress.of_table(table, partition)
            check_as_of(
                table, partition, as_of, kept_from=generation.time_from, reached=reached, at_end=at_end
            )
    return {partition: fold(read_topic(log, archive, topic, partition), as_of) for partition in partitions}


class TaskProgress:
    """How far the tasks of one generation are, from the latest record of each in its `epochs` topic."""

    def __init__(self, log: Log, archive: Archive | None, app_id: str, generation: Generation) -> None:
        """Read the epochs topic, which is one pass over its history."""
        self._log = log
        self._archive = archive
        self._generation = generation
        self.latest = latest_epochs(log, archive, app_id, generation.name)

    def of_table(self, table: str, partition: int) -> tuple[int | None, bool]:
        """Return the task time that a table's partition has reached, and whether its task is at its end."""
        for sub in self._generation.topology.get("subs", ()):
            if table in sub["tables"]:
                task = sub["first_task"] + partition
                record = self.latest.get(task)
                if record is None:
                    return None, self._at_end(sub, partition, {})
                # A replay's task says itself that it has ended: its topics may end in a transaction marker it never read.
                ended = bool(record.get("marks", {}).get("end")) or self._at_end(
                    sub, partition, record["read"]
                )
                return record["time"], ended
        return None, False

    def _at_end(self, sub: dict[str, Any], partition: int, read: dict[str, int]) -> bool:
        for topic in sub["topics"]:
            place = f"{topic}/{partition}"
            if partition not in partitions_of(self._log, self._archive, topic):
                continue
            bound = self._generation.bounds.get(place)
            start, end = range_of(self._log, self._archive, topic, partition)
            if bound is not None and bound[1] is not None and not self._generation.follow:
                end = bound[1]
            if bound is not None and bound[0] is not None:
                start = bound[0]
            if read.get(place, start) < end:
                return False
        return True


def latest_epochs(
    log: Log, archive: Archive | None, app_id: str, generation: str
) -> dict[int, dict[str, Any]]:
    """Return the latest `epochs` record of each task of a generation; empty where none ran."""
    topic = internal_topic(app_id, generation, "epochs")
    found: dict[bytes, bytes] = {}
    for partition in partitions_of(log, archive, topic)[:1]:
        for batch in read_topic(log, archive, topic, partition):
            found.update(
                (key, value)
                for key, value in zip(batch.keys, batch.values, strict=True)
                if key is not None and value is not None and key.isdigit()
            )
    return {int(key): msgspec.json.decode(value) for key, value in found.items()}


def dump_table(
    log: Log,
    archive: Archive | None,
    app_id: str,
    generation: Generation,
    table: str,
    *,
    as_of: int | None = None,
    raw: bool = False,
    key_json: Callable[[bytes], Any] | None = None,
) -> Iterator[str]:
    """Yield a table's canonical dump, a line a row, over all partitions in the order of key bytes."""
    from headwater.table.dump import canonical_rows, merge_partitions

    parts = fold_table(log, archive, app_id, generation, table, as_of=as_of)
    return canonical_rows(
        merge_partitions(sorted(rows.items()) for rows in parts.values()), raw=raw, key_json=key_json,
        windowed=is_windowed(generation, table),
    )  # fmt: skip


def _bind(log: Log, archive: Archive | None, topic: str) -> None:
    info = log.topic(topic)
    if archive is not None and info is not None:
        archive.bind({topic: info})
