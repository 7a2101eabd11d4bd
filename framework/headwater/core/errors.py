"""Every error Headwater raises on purpose: one class per thing a caller would do differently.

A message says what happened, where (topic/partition@offset), what was found and expected, and what to do next.
`exit_code` is what the command line ends with: 1 failed, 2 misused.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HeadwaterError(Exception):
    """The root of all errors of this package."""

    exit_code = 1


class MisuseError(HeadwaterError):
    """What was asked for can't be meant: a wrong option, name, range or declaration."""

    exit_code = 2


class NameRefusedError(MisuseError):
    """A name holds letters that a topic, table or agent name can't have."""


class UnknownNameError(MisuseError):
    """No such topic, table, agent, generation, module or app; the message offers near names."""


class PartitionCountError(MisuseError):
    """A topic exists with another number of partitions than asked for or declared."""


class EnvelopeError(MisuseError):
    """A line of an envelope file is malformed; the message has its number."""


class TimeRangeError(MisuseError):
    """A time can't be read, lies outside what is kept, or T is after U."""


class KeyRefusedError(HeadwaterError):
    """A key can't be encoded, or can't be decoded as the declared key type."""


class ValueRefusedError(HeadwaterError):
    """A value can't be encoded, or can't be decoded as the declared value type."""


class HomePartitionError(HeadwaterError):
    """A table row was written in a partition that is not its key's home."""


class ReadOnlyTableError(HeadwaterError):
    """A table was changed outside an agent."""


class TopologyError(MisuseError):
    """Agents, topics or tables are declared in a way that can't run."""


class OffsetTrimmedError(HeadwaterError):
    """A read asked for offsets below the log's start.

    `start` is the first offset that is still there.
    """

    def __init__(self, message: str, *, start: int) -> None:
        super().__init__(message)
        self.start = start


class HandoverGapError(HeadwaterError):
    """Offsets are neither in the archive nor in the log: [`base`, `end`) of one partition is missing."""

    def __init__(self, message: str, *, base: int, end: int) -> None:
        super().__init__(message)
        self.base = base
        self.end = end


class FencedError(HeadwaterError):
    """The group gave this member's tasks to another: nothing of the transaction was kept."""


class LogCorruptError(HeadwaterError):
    """Stored bytes of the log don't have their checksum."""


class LogUnavailableError(HeadwaterError):
    """The log can't be opened, reached or written (disk full, network file system, no broker)."""


class LogInterruptedError(LogUnavailableError):
    """The log doesn't answer for now, or it isn't known whether it took what was given: trying again later may do."""


class SegmentCorruptError(HeadwaterError):
    """A segment's bytes, records or place in the chain aren't what they must be."""


class StoreRefusedError(HeadwaterError):
    """The archive's storage can't create a file only where none is, so it can't hold an archive."""


class RecoveryError(HeadwaterError):
    """A table can't be rebuilt from its changelog."""


class AsOfError(TimeRangeError):
    """The asked instant lies outside what the changelog keeps, or isn't reached yet."""


class GenerationError(MisuseError):
    """A generation's state doesn't allow what was asked."""


class RecordFailedError(HeadwaterError):
    """A record could not be processed and dead letters are off."""


class AgentStoppedError(HeadwaterError):
    """Something was asked of an agent, stream or table that only works while it processes a record."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known names, or the list of them, or nothing."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(n) for n in near) + "?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; there are: {shown}"
