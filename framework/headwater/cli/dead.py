"""`headwater dead`: records that could not be processed: list them, look at them, send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from headwater.cli.command import group
from headwater.cli.output import json_line, time_text
from headwater.cli.session import Session, pass_session
from headwater.core.batch import Append, TopicPartition
from headwater.core.envelope import to_envelope
from headwater.core.errors import FencedError, GenerationError, HandoverGapError, UnknownNameError
from headwater.core.header import DEAD, TARGET
from headwater.core.names import internal_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.core.batch import Headers
    from headwater.log.interface import Membership

_COLUMNS = (
    "offset",
    "topic",
    "source_partition",
    "source_offset",
    "timestamp",
    "agent",
    "error",
    "message",
    "attempts",
    "redriven",
)
_CHUNK_BYTES = 8 << 20


class DeadLetter(NamedTuple):
    """One record of the dead-letter topic, with what its header says."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: dict[str, Any]

    @property
    def own_headers(self) -> Headers:
        """The record's headers as they were: without the reason, which was put last."""
        last = max((at for at, (name, _) in enumerate(self.headers) if name == DEAD), default=None)
        return self.headers if last is None else self.headers[:last] + self.headers[last + 1 :]


class _Again(NamedTuple):
    """A record to be sent again, as it was, for the agent that a letter names."""

    letter: DeadLetter
    topic: str
    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@group("dead", example="headwater -A headwater_apps.flights dead ls")
def dead() -> None:
    """Dead letters: list them, look, send them again."""


def _generation(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--generation", metavar="NAME", help="This generation's (else the promoted one's).")(
        function
    )


@dead.command("ls", example="headwater -A headwater_apps.flights dead ls --json")
@_generation
@pass_session
def ls(session: Session, generation: str | None) -> None:
    """List dead letters: the record's own place, the agent (or `decode`), the error, whether it was sent again."""
    topic, positions = _open(session, generation)
    rows = (
        {
            **_describe(letter),
            "redriven": letter.offset < positions.get(letter.partition, 0) and not _is_derived(letter),
        }
        for letter in _letters(session, topic)
    )
    if not session.output.json:
        rows = (
            {**row, "timestamp": time_text(row["timestamp"]), "message": row["message"][:80]} for row in rows
        )
    session.output.rows(rows, _COLUMNS, empty="no dead letters")


@dead.command("show", example="headwater -A headwater_apps.flights dead show 17 --raw")
@click.argument("offset", type=click.IntRange(0), required=False)
@click.option("--raw", is_flag=True, help="Keys, values and headers as base64 always.")
@_generation
@pass_session
def show(session: Session, offset: int | None, raw: bool, generation: str | None) -> None:
    """Show dead letters whole: the one at OFFSET, or all.

    The record's envelope, with its own topic, partition and offset, and why it is here under `dead`.
    """
    topic, _ = _open(session, generation)
    found = 0
    for letter in _letters(session, topic):
        if offset is not None and letter.offset != offset:
            continue
        found += 1
        reason = letter.reason
        envelope = to_envelope(
            str(reason.get("topic", "")), reason.get("partition", 0), reason.get("offset", -1), letter.timestamp,
            letter.key, letter.value, letter.headers if raw else letter.own_headers, raw=raw,
        )  # fmt: skip
        session.output.write(json_line({**envelope, "dead": {**reason, "dead_offset": letter.offset}}))
    if offset is not None and not found:
        raise UnknownNameError(f"no dead letter at {topic}/0@{offset}; `headwater dead ls` lists them")


@dead.command("redrive", example="headwater -A headwater_apps.flights dead redrive")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Only the first N that were not sent again yet."
)
@_generation
@pass_session
def redrive(session: Session, limit: int | None, generation: str | None) -> None:
    """Send dead letters again to where they came from, as they were, each once.

    The records they came from are appended to their topics and partitions once more, in order, each for the agent that
    failed on it and for no other (for all, where the record could not be decoded). What was sent is noted in the same
    transaction: a second call sends only what died since.

    A result of an operator that another one failed on is no record of a topic, and is left where it is: mend what failed
    and replay.
    """
    from headwater.engine.control import redrive_group
    from headwater.log.interface import Transaction

    topic, _ = _open(session, generation)
    name = session.generation(generation).name
    if name != session.control.pointer():
        raise GenerationError(
            f"dead letters of generation {name!r} can't be sent again: its topics are the source's, which "
            f"{session.control.pointer()!r} reads too; replay again once the agent is mended, or promote {name!r} first"
        )
    log, group_name = session.log, redrive_group(session.app_id, name)
    member = _join(log.join(group_name, 1), group_name)
    sent = left = 0
    try:
        # Read again now that nobody else can redrive.
        positions = _positions(session, topic, name)
        waiting: list[_Again] = []
        size = 0
        for letter in _letters(session, topic, positions):
            if sent + len(waiting) == limit:
                break
            if _is_derived(letter):
                left += 1
                continue
            again = _original(session, name, letter)
            waiting.append(again)
            size += len(again.value or b"") + len(again.key or b"")
            if size >= _CHUNK_BYTES:
                log.commit(Transaction(_appends(waiting), _next(topic, waiting), member, (0,)))
                sent, waiting, size = sent + len(waiting), [], 0
        if waiting:
            log.commit(Transaction(_appends(waiting), _next(topic, waiting), member, (0,)))
            sent += len(waiting)
    finally:
        member.leave()
    text = f"sent {sent:,} dead letter{'' if sent == 1 else 's'} again"
    if left:
        text += f"; left {left:,}, which operators had made of records: mend what failed on them and replay"
    session.output.result({"redriven": sent, "left": left, "generation": name}, text)


def _is_derived(letter: DeadLetter) -> bool:
    """Tell whether a letter is what an operator had made of a record, and not a record of a topic."""
    return "derived" in letter.reason


def _open(session: Session, generation: str | None) -> tuple[str, dict[int, int]]:
    """Return a generation's dead-letter topic, and up to where its letters were sent again."""
    name = session.generation(generation).name
    topic = internal_topic(session.app_id, name, "dead")
    return topic, _positions(session, topic, name)


def _positions(session: Session, topic: str, generation: str) -> dict[int, int]:
    from headwater.engine.control import redrive_group

    found = session.log.positions(redrive_group(session.app_id, generation))
    return {place.partition: position for place, position in found.items() if place.topic == topic}


def _letters(session: Session, topic: str, positions: dict[int, int] | None = None) -> Iterator[DeadLetter]:
    """Yield dead letters in the order of the topic, from `positions` on."""
    from headwater.engine.history import partitions_of, read_topic

    for partition in partitions_of(session.log, session.archive, topic):
        start = None if positions is None else positions.get(partition)
        for batch in read_topic(session.log, session.archive, topic, partition, start):
            columns = zip(batch.offsets, batch.timestamps, batch.keys, batch.values, strict=True)
            for index, (offset, timestamp, key, value) in enumerate(columns):
                headers = batch.headers_at(index)
                yield DeadLetter(partition, offset, timestamp, key, value, headers, _reason(headers))


def _reason(headers: Headers) -> dict[str, Any]:
    # The last one: an earlier one would be the record's own.
    for name, value in reversed(headers):
        if name == DEAD and value is not None:
            found: dict[str, Any] = msgspec.json.decode(value)
            return found
    return {}


def _describe(letter: DeadLetter) -> dict[str, Any]:
    reason = letter.reason
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "topic": reason.get("topic"),
        "source_partition": reason.get("partition"),
        "source_offset": reason.get("offset"),
        "timestamp": letter.timestamp,
        "agent": reason.get("agent"),
        "error": reason.get("error"),
        "message": str(reason.get("message", "")),
        "attempts": reason.get("attempts"),
    }


def _join(member: Membership, group_name: str) -> Membership:
    """Return the member once it owns the group's one task. Raises FencedError where another redrive has it."""
    if 0 not in member.heartbeat().owned:
        member.leave()
        raise FencedError(
            f"another `dead redrive` is at work (group {group_name}); wait for its end, 10 s at most if it was killed"
        )
    return member


def _original(session: Session, generation: str, letter: DeadLetter) -> _Again:
    """Return the record that a letter came from, for the letter's agent. Raises where it has no place to go back to;
    nothing is sent past it.

    The letter's own key and value may be those that a group_by gave it; the record's are in the topic it came from.
    """
    from headwater.engine.history import read_topic

    topic, partition = str(letter.reason.get("topic")), letter.reason.get("partition")
    offset = letter.reason.get("offset")
    info = session.log.topic(topic)
    if (
        info is None
        or not isinstance(partition, int)
        or not isinstance(offset, int)
        or partition >= info.partitions
    ):
        raise HandoverGapError(
            f"dead letter @{letter.offset} came from {topic}/{partition}, which the log {session.log.url} has no longer; "
            "make the topic again with as many partitions, or look at the letter with `headwater dead show`",
            base=letter.offset,
            end=letter.offset + 1,
        )
    for batch in read_topic(session.log, session.archive, topic, partition, offset, offset + 1):
        if len(batch):
            kept = tuple(header for header in batch.headers_at(0) if header[0] != TARGET)
            target = f"{session.app_id}.{generation}/{letter.reason.get('agent')}".encode()
            return _Again(
                letter, topic, partition, batch.timestamps[0], batch.keys[0], batch.values[0],
                (*kept, (TARGET, target)),
            )  # fmt: skip
    raise HandoverGapError(
        f"dead letter @{letter.offset} came from {topic}/{partition}@{offset}, where there is no record any more; look at "
        "the letter with `headwater dead show`, and send it by hand",
        base=offset,
        end=offset + 1,
    )


def _appends(records: list[_Again]) -> list[Append]:
    places: dict[tuple[str, int], list[_Again]] = {}
    for record in records:
        places.setdefault((record.topic, record.partition), []).append(record)
    return [
        Append(
            topic,
            partition,
            [record.timestamp for record in found],
            [record.key for record in found],
            [record.value for record in found],
            [record.headers for record in found],
        )
        for (topic, partition), found in places.items()
    ]


def _next(topic: str, records: list[_Again]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, r.letter.partition): r.letter.offset + 1 for r in records}
