"""One input of a task: a source, the channels it fills, and where a bounded read of it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headwater.core.batch import Batch, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import LogCorruptError, ValueRefusedError
from headwater.core.header import MARK, ORIGIN, decode_origin
from headwater.merge.channel import Channel, Piece

if TYPE_CHECKING:
    from headwater.core.values import Codec
    from headwater.engine.positions import TaskState
    from headwater.source.interface import Source


class Input:
    """A topic partition that a task reads.

    `end` bounds the read (None: it never ends). `time_from` and `time_until` drop records of source topics outside
    [from, until). `is_shadow`: it is what this very generation sends to a topic that it reads. `senders` is None for a
    source topic, else how many upstream tasks send to the repartition topic.
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
    ) -> None:
        """Make the channels."""
        self.number = 0
        self.tp = TopicPartition(topic, partition)
        self.source = source
        self.codec = codec
        self.senders = senders
        self.end = end
        self.time_from = time_from
        self.time_until = time_until
        self.check_key = check_key
        self.skip_app = skip_app
        self.is_shadow = is_shadow
        self.caught_up = False
        self.caught_up_s = 0.0
        if senders is None:
            self.channels = [Channel(str(self.tp), 0, None, (topic, partition))]
        else:
            self.channels = [Channel(f"{self.tp}#{s}", 0, s, (topic, s)) for s in range(senders)]

    def assign_number(self, number: int) -> None:
        """Give the input its number in its task."""
        self.number = number
        for channel in self.channels:
            channel.input = number

    def restore(self, state: TaskState | None, start: int) -> None:
        """Go to where the task's last epoch left this input, or to its start."""
        name = str(self.tp)
        self.source.seek(start if state is None else state.read.get(name, start))
        for channel in self.channels:
            channel.drop()
            if state is None:
                channel.covered = start if self.senders is None else 0
                continue
            places = [p[channel.name] for p in state.positions.values() if channel.name in p]
            channel.skip_below = min(places, default=0)
            channel.covered = channel.skip_below if self.senders is not None else self.source.position
            if channel.name in state.clocks:
                channel.clock = channel.progress = state.clocks[channel.name]
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

    def fill(self, bytes_max: int) -> bool:
        """Read what follows into the channels; tell whether there was anything."""
        if self.end is not None and self.source.position >= self.end:
            self._check_end()
            return False
        batch = self.source.fetch(bytes_max=bytes_max)
        if batch.next == batch.base:
            if not self.caught_up:
                self.caught_up, self.caught_up_s = True, SYSTEM_CLOCK.monotonic_s()
            return False
        self.caught_up = False
        if self.end is not None and batch.next > self.end:
            batch = batch.slice(batch.base, self.end)
            self.source.seek(self.end)
        if self.senders is None:
            self.channels[0].add_batch(self._within(batch))
        else:
            self._demultiplex(batch)
        self._check_end()
        return True

    def decode_ahead(self) -> None:
        """Decode what waits first in each channel. What can't be decoded is left to the hand-out, which says why."""
        for channel in self.channels:
            piece = channel.pieces[0] if channel.pieces else None
            if piece is not None and piece.decoded is None:
                try:
                    piece.decoded = self.codec.decode_all(piece.values)
                except ValueRefusedError:
                    return

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
            self.channels[0].done = True

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
                if mark.get("end"):
                    channel.done = True
                continue
            if name != ORIGIN or value is None:
                raise LogCorruptError(
                    f"{self.tp}@{offsets[at]} has no origin header; only the engine writes to repartition topics: discard "
                    "the generation and replay"
                )
            origin = decode_origin(value)
            if origin.sequence < self.channels[origin.partition].skip_below:
                continue
            column = columns.get(origin.partition)
            if column is None:
                column = columns[origin.partition] = tuple([] for _ in range(11))
            time = timestamps[at]
            entry = (
                time + origin.ahead_ms, time, keys[at], values[at], headers[:-1], offsets[at], origin.sequence,
                origin.topic, origin.partition, origin.offset, origin.emit,
            )  # fmt: skip
            for cells, cell in zip(column, entry, strict=True):
                cells.append(cell)
        for sender, c in columns.items():
            causes = (c[7], c[8], c[9], c[10])
            headers_column = c[4] if any(c[4]) else None
            self.channels[sender].add_piece(Piece(c[0], c[1], c[2], c[3], headers_column, c[5], c[6], causes))
