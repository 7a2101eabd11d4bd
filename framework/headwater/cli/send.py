"""`headwater send`: append one record, or a file of them, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from headwater.cli.command import command
from headwater.cli.envelopes import Rows, read_lines, read_rows
from headwater.cli.session import Session, pass_session
from headwater.core.batch import Append
from headwater.core.errors import EnvelopeError, HeadwaterError, MisuseError, PartitionCountError
from headwater.core.names import check_topic, refuse_internal
from headwater.core.partitioner import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.core.batch import Headers

ATOMIC_BYTES_MAX = 256 << 20
"""Up to this much is sent in one transaction, so that a bad line anywhere leaves nothing behind."""

_PARTITIONS = 4


class _Columns:
    """The records for one partition."""

    __slots__ = ("headers", "keys", "timestamps", "values")

    def __init__(self) -> None:
        self.timestamps: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        # None until a record has any: a batch without headers is smaller and faster everywhere.
        self.headers: list[Headers] | None = None


class Sender:
    """Gives records to partitions and appends them."""

    def __init__(self, topic: str, partitions: int) -> None:
        """Records without a key go round robin from partition 0."""
        self._topic = topic
        self._partitions = partitions
        self._homes: dict[bytes, int] = {}
        self._without_key = 0
        self._columns = [_Columns() for _ in range(partitions)]
        self.nbytes = 0
        self.count = 0

    def add(self, rows: Rows) -> None:
        """Take records. Raises EnvelopeError for a partition that the topic hasn't got."""
        homes, columns, count = self._homes, self._columns, self._partitions
        if len(homes) > 1 << 20:
            homes.clear()
        for at, (key, value, timestamp) in enumerate(
            zip(rows.keys, rows.values, rows.timestamps, strict=True)
        ):
            partition = None if rows.partitions is None else rows.partitions[at]
            if partition is None:
                if key is None:
                    partition = self._without_key % count
                    self._without_key += 1
                else:
                    partition = homes.get(key)
                    if partition is None:
                        partition = homes[key] = partition_of(key, count)
            elif not 0 <= partition < count:
                raise EnvelopeError(
                    f"line {rows.line(at)} names partition {partition}, but topic {self._topic!r} has {count}: "
                    f"0 to {count - 1}; leave `partition` out, so that the key decides"
                )
            column = columns[partition]
            column.timestamps.append(timestamp)
            column.keys.append(key)
            column.values.append(value)
            if column.headers is not None:
                column.headers.append(() if rows.headers is None else rows.headers[at])
            elif rows.headers is not None and rows.headers[at]:
                column.headers = [()] * (len(column.keys) - 1) + [rows.headers[at]]
            self.nbytes += 24 + len(key or b"") + len(value or b"")
        self.count += len(rows.keys)

    def take(self) -> list[Append]:
        """Return what was added since the last call."""
        taken, self._columns, self.nbytes = self._columns, [_Columns() for _ in self._columns], 0
        return [
            Append(self._topic, partition, c.timestamps, c.keys, c.values, c.headers)
            for partition, c in enumerate(taken)
            if c.keys
        ]


@command(
    "send",
    example="""headwater send clicks '{"amount": 3.5}' --key ada
headwater send departures --file departures.parquet
headwater read clicks --json | headwater --log file://./copy send clicks --file -""",
)
@click.argument("topic")
@click.argument("value", required=False)
@click.option("--key", metavar="K", help="The record's key.")
@click.option(
    "--file", "path", metavar="F", help="Envelopes: JSON lines, *.parquet, or - for JSON lines from stdin."
)
@click.option(
    "--partitions",
    type=click.IntRange(1),
    metavar="N",
    help="Make the topic with N partitions (else as the app declares, or 4).",
)
@pass_session
def send(
    session: Session, topic: str, value: str | None, key: str | None, path: str | None, partitions: int | None
) -> None:
    """Append records to a topic.

    VALUE is JSON, or else text; null is a tombstone. A topic that does not exist is made. A bad line anywhere in a file of up to 256 MB of records means
    that nothing is appended; larger files are checked whole before the first record is appended, stdin is not.
    """
    check_topic(topic)
    if (value is None) == (path is None):
        raise MisuseError("give either a VALUE or --file" + ("" if value is None else ", not both"))
    if path is not None and key is not None:
        raise MisuseError("--key goes with a VALUE; in a file each envelope has its own key")
    now = session.clock.now_ms()
    if path is None:
        assert value is not None
        one = Rows(1, [now], [None if key is None else key.encode()], [_value_bytes(value)])
        sent = _append(session, topic, partitions, [one])
    elif path == "-":
        sent = _append(session, topic, partitions, read_lines(click.get_binary_stream("stdin"), now))
    else:
        sent = _append(session, topic, partitions, _read_file(path, now), again=lambda: _read_file(path, now))
    session.output.result(
        {"topic": topic, "sent": sent}, f"sent {sent:,} record{'' if sent == 1 else 's'} to {topic}"
    )


def _value_bytes(value: str) -> bytes | None:
    """Return the bytes of a VALUE: JSON as it is written, a tombstone for null, else text as a JSON string."""
    data = value.encode()
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.encode(value)
    return None if found is None else data


def _read_file(path: str, now_ms: int) -> Iterator[Rows]:
    if path.endswith((".parquet", ".parq", ".pq")):
        from headwater.archive.foreign import read_parquet

        yield from read_rows(read_parquet(path), now_ms)
        return
    with open(path, "rb") as lines:
        try:
            yield from read_lines(lines, now_ms)
        except EnvelopeError as error:
            raise EnvelopeError(f"{path}: {error}; nothing of a file with a bad line is sent") from error


def _append(session: Session, topic: str, partitions: int | None, found: Any, *, again: Any = None) -> int:
    """Append all rows: in one transaction if they fit, else in several once all were looked at."""
    count = _partition_count(session, topic, partitions)
    sender = Sender(topic, count)
    rows = iter(found)
    for part in rows:
        sender.add(part)
        if sender.nbytes > ATOMIC_BYTES_MAX:
            break
    else:
        session.log.create_topic(topic, count)
        if sender.count:
            session.log.append(sender.take())
        return sender.count
    if again is not None:
        for part in rows:  # looked at, not kept
            sender.add(part)
            sender.take()
        sender, rows = Sender(topic, count), iter(again())
    session.log.create_topic(topic, count)
    appended = 0
    try:
        if sender.nbytes:
            session.log.append(sender.take())
            appended = sender.count
        for part in rows:
            sender.add(part)
            if sender.nbytes > ATOMIC_BYTES_MAX // 8:
                session.log.append(sender.take())
                appended = sender.count
        session.log.append(sender.take())
    except HeadwaterError as error:
        error.add_note(f"{appended} records were appended before that")
        session.output.note(
            f"headwater: the first {appended:,} records were appended; send the rest after them"
        )
        raise
    return sender.count


def _partition_count(session: Session, topic: str, asked: int | None) -> int:
    """Return how many partitions the topic has or is to get. Raises PartitionCountError naming both numbers."""
    declared, default = None, _PARTITIONS
    if session.target is not None:
        refuse_internal(topic, session.app_id)
        found = session.target.app.declared.topics.get(topic)
        if found is not None:
            # The app's own number is for topics that are made and don't say; it declares none of them.
            declared, default = found.partitions, session.target.app.options.partitions
    info = session.log.topic(topic)
    there = None if info is None else info.partitions
    if asked is not None and there is not None and asked != there:
        raise PartitionCountError(
            f"topic {topic!r} has {there} partitions, --partitions says {asked}; leave --partitions out, or use another topic"
        )
    if asked is not None and declared is not None and asked != declared:
        raise PartitionCountError(
            f"the app declares topic {topic!r} with {declared} partitions, --partitions says {asked}; leave --partitions out"
        )
    if there is not None and declared is not None and there != declared:
        raise PartitionCountError(
            f"topic {topic!r} has {there} partitions, the app declares {declared}; declare {there}, or use another topic"
        )
    return there or asked or declared or default
