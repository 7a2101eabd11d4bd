"""What a task's open epoch sends to the log, as appends: outputs, changelog blobs, dead letters, marks. Sends nothing itself."""

from __future__ import annotations

import json
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.core import hot
from headwater.core.batch import Append, TopicPartition
from headwater.core.header import DEAD, MARK, ORIGIN, decode_origin, encode_varints
from headwater.core.sending import Causes, Laid, Lane
from headwater.core.windowed import WindowedCodec, split_window_key, split_windowed
from headwater.stream.frame import Send
from headwater.stream.operator import NEVER
from headwater.table.changelog import encode_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from headwater.engine.plan import RunPlan
    from headwater.engine.runner import DeadLetter
    from headwater.stream.frame import Rows
    from headwater.table.captured import CapturedPart
    from headwater.table.changelog import History
    from headwater.table.sealed import Columns

Changed: TypeAlias = "Columns | tuple[list[bytes], list[bytes | None], list[int]]"
"""Keys, values and rows of changes, side by side."""

_encode_shown = msgspec.json.Encoder(order="sorted").encode

TIME_MAX = (1 << 63) - 1


def sends(
    staged_by: Sequence[tuple[str, list[Send]]],
    rows: Rows,
    plan: RunPlan,
    partition: int,
    emitted: dict[str, int],
) -> list[Append]:
    """Return what agents have sent, in row order, then order of declaration.

    `staged_by` has each agent's sends, `emitted` the next emit sequence by "topic/partition" of internal topics, which is
    moved on.
    """
    by_row: list[tuple[int, int, Send]] = []
    if len(staged_by) > 1:
        # Sorted by row; within one, in the order of declaration and of sending.
        by_row = [(send.row, number, send) for number, (_, mine) in enumerate(staged_by) for send in mine]
        by_row.sort(key=itemgetter(0))
    laid = _Laid(plan, partition, rows, emitted)
    if len(staged_by) == 1:
        agent, mine = staged_by[0]
        laid.take(agent, mine)
    for number, run in groupby(by_row, key=itemgetter(1)):
        laid.take(staged_by[number][0], [send for _, _, send in run])
    return laid.appends()


class _Laid:
    """What is sent, as columns by partition, in the order in which partitions were first sent to."""

    def __init__(self, plan: RunPlan, partition: int, rows: Rows, emitted: dict[str, int]) -> None:
        self._plan = plan
        self._partition = partition
        self._emitted = emitted
        self._app = encode_varints(plan.app_number)
        self._rows = rows
        self._outward: Causes | None = None
        self._inward: Causes | None = None
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._columns: dict[TopicPartition, Laid] = {}
        self._internal: list[TopicPartition] = []

    def take(self, agent: str, sends: list[Send]) -> None:
        """Lay out sends of one agent that follow on each other."""
        counted = [-1, 0]
        at = 0
        while at < len(sends):
            topic = sends[at].topic
            lane = self._lanes.get((agent, topic))
            if lane is None:
                lane = self._lanes[agent, topic] = self._lane(agent, topic)
            causes = self._inward_causes() if lane.is_internal else self._outward_causes()
            at = hot.lay_out(sends, at, lane, causes, counted)

    def _outward_causes(self) -> Causes:
        """Return the rows' origins without what internal topics are told besides: columns are made lists only where needed."""
        if self._outward is None:
            rows, single = self._rows, self._rows.single
            topics = rows.cause_topics.flat() if single is None else single[0]
            partitions = rows.cause_partitions.flat() if single is None else single[1]
            self._outward = Causes(
                topics, partitions, rows.cause_offsets.flat(), rows.timestamps.flat(), [], []
            )
        return self._outward

    def _inward_causes(self) -> Causes:
        if self._inward is None:
            rows = self._rows
            self._inward = self._outward_causes()._replace(
                times=rows.task_times.flat(), watermarks=rows.watermarks.flat()
            )
        return self._inward

    def _lane(self, agent: str, topic: str) -> Lane:
        plan = self._plan
        is_internal = plan.is_internal(topic)
        written = topic if is_internal else plan.output_topic(topic)
        count = plan.partitions_of(written, topic)
        return Lane(
            topic, plan.number_of(agent), count, self._partition % count, b"" if is_internal else self._app, self._partition,
            is_internal, {}, partial(self._of, written, is_internal),
        )  # fmt: skip

    def _of(self, topic: str, is_internal: bool, target: int) -> Laid:
        """Return the columns of a partition, which several agents may send to."""
        tp = TopicPartition(topic, target)
        found = self._columns.get(tp)
        if found is None:
            found = self._columns[tp] = Laid([], [], [], [], [self._emitted.get(str(tp), 0)])
            if is_internal:
                self._internal.append(tp)
        return found

    def appends(self) -> list[Append]:
        """Return what was laid out, and move the emit sequences on. Nothing more is taken."""
        # A lane knows how to make columns by this object: the circle would keep the whole epoch until garbage is collected.
        self._lanes.clear()
        for tp in self._internal:
            self._emitted[str(tp)] = self._columns[tp].sequence[0]
        return [
            Append(tp.topic, tp.partition, laid.timestamps, laid.keys, laid.values, laid.headers)
            for tp, laid in self._columns.items()
        ]


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


def changelog(changes: Changed, rows: Rows, topic: str, partition: int, history: History) -> list[Append]:
    """Return an epoch's changes of a part as blobs, thinned as the table's `history` says."""
    keys, values, at = changes
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
