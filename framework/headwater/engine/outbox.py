"""What a task's open epoch sends to the log, as appends: outputs, changelog blobs, dead letters, marks. Sends nothing itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core.batch import Append, TopicPartition
from headwater.core.header import (
    DEAD,
    MARK,
    ORIGIN,
    behind_of,
    decode_origin,
    encode_channel,
    encode_varints,
    varint,
)
from headwater.core.partitioner import partition_of
from headwater.core.windowed import WindowedCodec, split_window_key, split_windowed
from headwater.stream.frame import Send
from headwater.stream.operator import NEVER
from headwater.table.changelog import encode_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from headwater.core.batch import Headers
    from headwater.engine.plan import RunPlan
    from headwater.engine.runner import DeadLetter
    from headwater.stream.frame import Rows
    from headwater.table.captured import CapturedPart
    from headwater.table.changelog import History
    from headwater.table.part import TablePart
    from headwater.table.state import StatePart

_encode_shown = msgspec.json.Encoder(order="sorted").encode

TIME_MAX = (1 << 63) - 1


def sends(
    staged_by: Sequence[tuple[str, Sequence[Send]]],
    rows: Rows,
    plan: RunPlan,
    partition: int,
    emitted: dict[str, int],
) -> list[Append]:
    """Return what agents have sent, in row order, then order of declaration.

    `staged_by` has each agent's sends, `emitted` the next emit sequence by "topic/partition" of internal topics, which is
    moved on.
    """
    staged = [(send, agent) for agent, mine in staged_by for send in mine]
    if len(staged_by) > 1:
        staged.sort(key=lambda entry: entry[0].row)
    ways: dict[tuple[str, str], _Way] = {}
    columns: dict[TopicPartition, _Columns] = {}
    single, offsets = rows.single, rows.cause_offsets
    is_kept = bool(len(rows.watermarks))
    emit, last_row, last_agent = 0, -1, ""
    for send, agent in staged:
        row, key = send.row, send.key
        if row == last_row and agent == last_agent:
            emit += 1
        else:
            emit, last_row, last_agent = 0, row, agent
        way = ways.get((agent, send.topic))
        if way is None:
            way = ways[agent, send.topic] = _Way(plan, agent, send.topic, columns)
        target = send.partition
        if target is None:
            target = partition % way.count if key is None else partition_of(key, way.count)
        column = way.columns.get(target)
        if column is None:
            column = way.column(target, emitted)
        timestamp = rows.timestamps[row] if send.timestamp is None else send.timestamp
        topic, source, offset = (*single, offsets[row]) if single is not None else rows.cause(row)[:3]
        header = way.head(topic, source) + varint(offset) + varint(emit)
        if way.is_internal:
            time = rows.task_times[row]
            own = rows.watermarks[row] if send.watermark is None and is_kept else send.watermark
            behind = behind_of(own, time) if is_kept and own is not None else None
            sender = None if partition == source else partition
            header += encode_channel(column.sequence, time - timestamp, behind, sender)
            column.sequence += 1
        else:
            header += way.app
        column.timestamps.append(timestamp)
        column.keys.append(key)
        column.values.append(send.value)
        column.headers.append((*send.headers, (ORIGIN, header)))
    for tp, column in columns.items():
        if column.is_internal:
            emitted[str(tp)] = column.sequence
    return [
        Append(tp.topic, tp.partition, c.timestamps, c.keys, c.values, c.headers) for tp, c in columns.items()
    ]


class _Columns:
    """What goes to one partition."""

    __slots__ = ("headers", "is_internal", "keys", "sequence", "timestamps", "values")

    def __init__(self, sequence: int, *, is_internal: bool) -> None:
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []
        self.sequence = sequence
        self.is_internal = is_internal


class _Way:
    """What one agent's sends to one topic have in common."""

    __slots__ = ("_all", "_heads", "_number", "app", "columns", "count", "is_internal", "topic")

    def __init__(
        self, plan: RunPlan, agent: str, topic: str, columns: dict[TopicPartition, _Columns]
    ) -> None:
        self.is_internal = plan.is_internal(topic)
        self.topic = topic if self.is_internal else plan.output_topic(topic)
        self.count = plan.partitions_of(self.topic, topic)
        self.app = encode_varints(plan.app_number)
        self.columns: dict[int, _Columns] = {}
        self._all = columns
        self._number = plan.number_of(agent)
        self._heads: dict[tuple[int, int], bytes] = {}

    def head(self, topic: int, partition: int) -> bytes:
        """Return the beginning of the header for a source partition."""
        found = self._heads.get((topic, partition))
        if found is None:
            found = self._heads[topic, partition] = encode_varints(self._number, topic, partition)
        return found

    def column(self, target: int, emitted: dict[str, int]) -> _Columns:
        """Return the columns of a partition, which several agents may send to."""
        tp = TopicPartition(self.topic, target)
        found = self._all.get(tp)
        if found is None:
            found = self._all[tp] = _Columns(emitted.get(str(tp), 0), is_internal=self.is_internal)
        self.columns[target] = found
        return found


def table_changes(part: CapturedPart, topic: str, shown: Callable[[bytes], Any]) -> list[Send]:
    """Return a table's changes as sends of `{"key":…, "old":…, "new":…}` (of windows also start and end), in order.

    `shown` gives a key as people see it. A change's event time is that of the record which caused it.
    """
    sends = []
    for change in part.captured():
        key, window = change.key, b""
        old, new = change.old, change.new
        if part.windowed:
            key, start, end = split_window_key(key)
            window = b',"start":%d,"end":%d' % (start, end)
            old = None if old is None else split_windowed(old)[1]
            new = None if new is None else split_windowed(new)[1]
        value = b'{"key":%s%s,"old":%s,"new":%s}' % (
            _encode_shown(shown(key)), window, _embedded(part, old), _embedded(part, new),
        )  # fmt: skip
        sends.append(Send(change.row, topic, None, None, key, value, (), NEVER))
    return sends


def _embedded(part: CapturedPart, data: bytes | None) -> bytes:
    """Return a row's value as JSON, null where there is no row."""
    if data is None:
        return b"null"
    codec = part.codec.codec if isinstance(part.codec, WindowedCodec) else part.codec
    return data if codec.is_json else _encode_shown(codec.decode(data))


def changelog(
    part: TablePart | StatePart, rows: Rows, topic: str, partition: int, history: History
) -> list[Append]:
    """Return a part's changes as blobs, thinned as the table's `history` says."""
    if not part.count:
        return []
    keys, values, at = part.collect()
    if not len(keys):
        return []
    numbers = at if isinstance(at, pa.Array) else pa.array(at, pa.int32())
    times = rows.task_times.arrow(pa.int64()).take(numbers)
    offsets = rows.cause_offsets.arrow(pa.int64()).take(numbers)
    if rows.single is not None:
        causes: Any = (*rows.single, offsets, 0)
    else:
        causes = (
            rows.cause_topics.arrow(pa.int32()).take(numbers),
            rows.cause_partitions.arrow(pa.int32()).take(numbers),
            offsets,
            rows.cause_emits.arrow(pa.int32()).take(numbers),
        )
    blobs = encode_changes(keys, values, times, causes, history=history or "exact")
    stamp = max(0, pc.max(times).as_py())
    return [Append(topic, partition, [stamp] * len(blobs), [None] * len(blobs), blobs)]


def dead_letters(dead: list[tuple[DeadLetter, dict[str, Any]]], topic: str) -> list[Append]:
    """Return dead letters in row order: the records as they were, and what is known of the failure as a header."""
    if not dead:
        return []
    dead.sort(key=lambda entry: entry[0].row)
    works = [letter.work for letter, _ in dead]
    headers = [(*letter.work.headers_at(0), (DEAD, _compact(info))) for letter, info in dead]
    return [
        Append(
            topic,
            0,
            [work.timestamps[0] for work in works],
            [work.keys[0] for work in works],
            [work.raw_values[0] for work in works],
            headers,
        )
    ]


def diverted(append: Append, index: int, reason: str, plan: RunPlan) -> Append | None:
    """Return the dead letter for an output that the log refuses, or None for what only the engine writes."""
    headers = () if append.headers is None else append.headers[index]
    name, value = headers[-1] if headers else ("", None)
    origin = decode_origin(value) if name == ORIGIN and value is not None else None
    if origin is None or origin.app is None:
        return None
    info = {
        "topic": plan.name_of(origin.topic), "partition": origin.partition, "offset": origin.offset,
        "agent": plan.name_of(origin.agent), "error": "ValueRefusedError", "message": reason, "attempts": 1,
        "output": append.topic,
    }  # fmt: skip
    return Append(
        plan.dead_topic,
        0,
        [append.timestamps[index]],
        [append.keys[index]],
        [append.values[index]],
        [(*headers, (DEAD, _compact(info)))],
    )


def marks(
    topics: Iterable[str],
    plan: RunPlan,
    partition: int,
    task_time: int,
    *,
    ending: Collection[str],
    watermark: int | None = None,
    idle: bool = False,
) -> list[Append]:
    """Return marks for all channels of repartition topics: how far this task is, and the end of those in `ending`.

    `watermark` is the task's, None where it keeps none; `idle`: nothing in it counts, so nobody need wait for it.
    """
    stamp = min(max(0, task_time), TIME_MAX)
    appends = []
    for topic in topics:
        mark: dict[str, Any] = {"sender": partition, "time": task_time}
        if watermark is not None:
            mark["watermark"] = plan.held_back(topic, watermark)
        if idle:
            mark["idle"] = True
        if topic in ending:
            mark["end"] = True
        header = ((MARK, _compact(mark)),)
        appends += [
            Append(topic, number, [stamp], [None], [None], [header])
            for number in range(plan.partitions_of(topic, topic))
        ]
    return appends


def _compact(value: Any) -> bytes:
    # An error's message may hold lone surrogates, which UTF-8 has no bytes for.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
