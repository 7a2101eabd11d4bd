"""One input of a task: a source, the channels it fills, and where a bounded read of it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headwater.core.batch import Batch, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import LogCorruptError, ValueRefusedError
from headwater.core.header import MARK, ORIGIN, decode_origin, is_end_of_time, watermark_of
from headwater.merge.channel import END_OF_TIME, NEVER, Channel, Piece
from headwater.merge.watermark import WatermarkClock

if TYPE_CHECKING:
    from concurrent.futures import Future

    from headwater.core.event_time import EventTime
    from headwater.core.values import Codec
    from headwater.engine.positions import TaskState
    from headwater.source.interface import Source

BROADCAST = "*"
"""Begins the names of inputs and channels that each task reads: positions of their own, and ahead of all topics' names."""


FETCH_BYTES_FIRST = 64 << 10
FETCH_FAST_S = 0.2
FETCH_SLOW_S = 1.0
"""Reads begin small; the next one is longer where a read was worked off in less than the first, shorter above the second."""


class Input:
    """A topic partition that a task reads.

    `end` bounds the read (None: it never ends). `time_from` and `time_until` drop records of source topics outside
    [from, until). `is_shadow`: it is what this very generation sends to a topic that it reads. `senders` is None for a
    source topic, else how many upstream tasks send to the repartition topic. `event_time` takes event times from values;
    `clock` keeps the watermark of a source partition, `watermarked` says that records carry theirs (None, False: nobody
    asks). `drain`: the end of a bounded read counts as END-OF-TIME. After `idle_after_s` without a record a live input no
    longer holds its task's watermark. `broadcast`: each task reads the partition, ahead of all else of the same time.
    `name` is "topic/partition", with BROADCAST before it for those.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        source: Source,
        codec: Codec,
        *,
        senders: int | None = None,
        end: int | None = None,
        time_from: int | None = None,
        time_until: int | None = None,
        check_key: Any = None,
        skip_app: int | None = None,
        is_shadow: bool = False,
        event_time: EventTime | None = None,
        clock: WatermarkClock | None = None,
        watermarked: bool = False,
        drain: bool = False,
        idle_after_s: float | None = None,
        broadcast: bool = False,
    ) -> None:
        """Make the channels."""
        self.number = 0
        self.tp = TopicPartition(topic, partition)
        self.broadcast = broadcast
        self.name = f"{BROADCAST if broadcast else ''}{self.tp}"
        self.source = source
        self.codec = codec
        self.senders = senders
        self.end = end
        self.time_from = time_from
        self.time_until = time_until
        self.check_key = check_key
        self.skip_app = skip_app
        self.is_shadow = is_shadow
        self.event_time = event_time
        self.watermarked = watermarked or clock is not None
        self.drain = drain
        self.idle_after_s = idle_after_s
        self.caught_up = False
        self.caught_up_s = 0.0
        self._fetch_next = FETCH_BYTES_FIRST
        self._fetched_s = 0.0
        self._fetch_full = False
        if senders is None:
            sort = (BROADCAST + topic if broadcast else topic, partition)
            self.channels = [Channel(self.name, 0, None, sort)]
            self.channels[0].watermark = clock
        else:
            self.channels = [Channel(f"{self.tp}#{s}", 0, s, (topic, s)) for s in range(senders)]

    def assign_number(self, number: int) -> None:
        """Give the input its number in its task."""
        self.number = number
        for channel in self.channels:
            channel.input = number

    def restore(self, state: TaskState | None, start: int) -> None:
        """Go to where the task's last epoch left this input, or to its start."""
        name = self.name
        self.source.seek(start if state is None else state.read.get(name, start))
        for channel in self.channels:
            channel.drop()
            channel.tail, channel.tail_at = NEVER, None
            if state is None:
                channel.covered = start if self.senders is None else 0
                continue
            places = [p[channel.name] for p in state.positions.values() if channel.name in p]
            channel.skip_below = min(places, default=0)
            channel.covered = channel.skip_below if self.senders is not None else self.source.position
            if channel.name in state.clocks:
                channel.clock = channel.progress = state.clocks[channel.name]
            if (time := state.watermarks.get(channel.name)) is not None:
                time.restore(channel)
            if state.marks.get("ended", {}).get(channel.name):
                channel.done = True
        self._check_end()

    def reopen(self) -> None:
        """Forget that senders had come to their ends."""
        for channel in self.channels:
            channel.done = False

    def finish(self) -> None:
        """Note that nothing more will come."""
        for channel in self.channels:
            channel.done = True
            if self.drain:
                channel.end_time(None)

    def ahead(self, bytes_max: int) -> Future[Any] | None:
        """Begin what the next `fill` would wait for a network for, and return what to wait for, if anything."""
        if self.end is not None and self.source.position >= self.end:
            return None
        return self.source.ahead(bytes_max=min(self._fetch_next, bytes_max))

    def fill(self, bytes_max: int) -> bool:
        """Read what follows into the channels; tell whether there was anything."""
        if self.end is not None and self.source.position >= self.end:
            self._check_end()
            return False
        batch = self.source.fetch(bytes_max=min(self._fetch_next, bytes_max))
        if batch.next == batch.base:
            if not self.caught_up and self.source.at_end:
                self.caught_up, self.caught_up_s = True, SYSTEM_CLOCK.monotonic_s()
            return False
        self.caught_up = False
        self._note_fetch(batch.nbytes, bytes_max)
        if self.end is not None and batch.next > self.end:
            batch = batch.slice(batch.base, self.end)
            self.source.seek(self.end)
        if self.senders is None:
            self._add_records(batch)
        else:
            self._demultiplex(batch)
        self._check_end()
        return True

    def _note_fetch(self, nbytes: int, bytes_max: int) -> None:
        """Settle how much to read next: more where a whole read was worked off in a moment, less where it took long.

        What a slow agent will get to in an hour would only lie in memory; a fast one gets long batches, which cost less.
        How the records are cut into batches changes nothing but that.
        """
        now_s = SYSTEM_CLOCK.monotonic_s()
        took_s, self._fetched_s = now_s - self._fetched_s, now_s
        was_full, self._fetch_full = self._fetch_full, 2 * nbytes >= self._fetch_next
        if took_s > FETCH_SLOW_S:
            self._fetch_next = max(FETCH_BYTES_FIRST, self._fetch_next // 4)
        elif was_full and took_s < FETCH_FAST_S:
            self._fetch_next = min(4 * self._fetch_next, max(bytes_max, FETCH_BYTES_FIRST))

    def read_position(self) -> int:
        """Return the offset from which this input must be read again for all that still waits in its channels."""
        firsts = [o for channel in self.channels if (o := channel.first_offset()) is not None]
        return min(firsts, default=self.source.position)

    @property
    def ended(self) -> bool:
        """Whether a bounded read has reached its end and all that waits has been taken."""
        return all(channel.done and not channel.size for channel in self.channels)

    def _check_end(self) -> None:
        if self.senders is None and self.end is not None and self.source.position >= self.end:
            channel = self.channels[0]
            channel.done = True
            if self.drain and channel.tail != END_OF_TIME:
                channel.end_time(None)

    def _add_records(self, batch: Batch) -> None:
        """Add a source partition's records; END-OF-TIME marks among them are no records, and nobody sees them."""
        batch = self._within(batch)
        channel = self.channels[0]
        if batch.headers is not None and None in (values := batch.values):
            marks = [
                batch.offsets[at]
                for at, value in enumerate(values)
                if value is None and batch.keys[at] is None and is_end_of_time(batch.headers_at(at))
            ]
            base, whole = batch.base, batch
            for mark in marks:
                self._add_timed(channel, whole.slice(base, mark))
                base = channel.covered = mark + 1
                channel.end_time(mark)
            batch = whole.slice(base, whole.next)
        self._add_timed(channel, batch)

    def _add_timed(self, channel: Channel, batch: Batch) -> None:
        """Add records with their event times, where the topic takes them from the values."""
        if self.event_time is None or not len(batch):
            channel.add_batch(batch)
            return
        whole = self.event_time.is_field
        try:
            decoded = self.codec.decode_all(batch.values)
        except ValueRefusedError:
            # What can't be decoded has no event time; its hand-out says why.
            whole, decoded = False, [self._decoded_or_none(value) for value in batch.values]
        of = self.event_time.of
        times = [
            own if (found := of(value)) is None else found
            for value, own in zip(decoded, batch.timestamps, strict=True)
        ]
        timed = Batch(
            batch.topic, batch.partition, batch.base, batch.next, batch.offsets, times, batch.keys, batch.values,
            batch.headers, nbytes=batch.nbytes,
        )  # fmt: skip
        # Decoded values are handed on only where a field was read: a function may have changed what it was given.
        channel.add_batch(timed, decoded if whole else None)

    def _decoded_or_none(self, value: bytes | None) -> Any:
        try:
            return None if value is None else self.codec.decode(value)
        except ValueRefusedError:
            return None

    def _within(self, batch: Batch) -> Batch:
        low, high = self.time_from, self.time_until
        if (low is None and high is None and self.skip_app is None) or not len(batch):
            return batch
        times = batch.timestamps
        if (
            self.skip_app is None
            and (low is None or min(times) >= low)
            and (high is None or max(times) < high)
        ):
            return batch
        keep = [
            at
            for at, time in enumerate(times)
            if (low is None or time >= low) and (high is None or time < high) and not self._own(batch, at)
        ]
        if len(keep) == len(times):
            return batch

        def pick(column: Any) -> list[Any]:
            return [column[at] for at in keep]

        headers = None if batch.headers is None else pick(batch.headers)
        return Batch(
            batch.topic, batch.partition, batch.base, batch.next, pick(batch.offsets), pick(times), pick(batch.keys),
            pick(batch.values), headers, nbytes=batch.nbytes,
        )  # fmt: skip

    def _own(self, batch: Batch, at: int) -> bool:
        """Tell whether this app's own agents wrote the record, in a topic that the app both reads and writes."""
        if self.skip_app is None:
            return False
        value = dict(batch.headers_at(at)).get(ORIGIN)
        return value is not None and decode_origin(value).app == self.skip_app

    def _demultiplex(self, batch: Batch) -> None:
        """Sort a repartition batch into its channels; read marks."""
        columns: dict[int, tuple[list[Any], ...]] = {}
        keys, values, timestamps, offsets = batch.keys, batch.values, batch.timestamps, batch.offsets
        for at in range(len(batch)):
            headers = batch.headers_at(at)
            name, value = headers[-1] if headers else ("", None)
            if name == MARK and value is not None:
                mark = json.loads(value)
                channel = self.channels[mark["sender"]]
                channel.progress = max(channel.progress, mark["time"])
                channel.is_idle = bool(mark.get("idle"))
                if "watermark" in mark:
                    channel.add_mark(mark["watermark"], offsets[at])
                if mark.get("end"):
                    channel.done = True
                continue
            if name != ORIGIN or value is None:
                raise LogCorruptError(
                    f"{self.tp}@{offsets[at]} has no origin header; only the engine writes to repartition topics: discard "
                    "the generation and replay"
                )
            origin = decode_origin(value)
            sender = origin.partition if origin.sender is None else origin.sender
            if origin.sequence < self.channels[sender].skip_below:
                continue
            column = columns.get(sender)
            if column is None:
                column = columns[sender] = tuple([] for _ in range(13))
            time = timestamps[at]
            effective = time + origin.ahead_ms
            entry = (
                effective, time, keys[at], values[at], headers[:-1], offsets[at], origin.sequence,
                origin.topic, origin.partition, origin.offset, origin.emit,
                watermark_of(origin.behind, effective), self.channels[sender].tail,
            )  # fmt: skip
            for cells, cell in zip(column, entry, strict=True):
                cells.append(cell)
        for sender, c in columns.items():
            causes = (c[7], c[8], c[9], c[10])
            headers_column = c[4] if any(c[4]) else None
            watermarks, reached = (c[11], c[12]) if self.watermarked else ((), ())
            self.channels[sender].add_piece(
                Piece(c[0], c[1], c[2], c[3], headers_column, c[5], c[6], causes, None, watermarks, reached)
            )
