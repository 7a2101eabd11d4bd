"""The records of the benchmarks: the same million clicks in every run and every process, and what their sums must be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from random import Random
from typing import TYPE_CHECKING

from headwater.core.partitioner import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = 1_000_000
USERS = 1_000
PARTITIONS = 4
BATCH_RECORDS = 5_000
TIME_MS = 1_700_000_000_000
SEED = 20_240_229


@dataclass(frozen=True, slots=True)
class Clicks:
    """Consecutive records of one partition, as columns."""

    partition: int
    base: int
    timestamps: list[int]
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)


def user_name(number: int) -> str:
    """Return the name of a user."""
    return f"user-{number:06d}"


@cache
def partitions(records: int = RECORDS, users: int = USERS) -> tuple[Clicks, ...]:
    """Return all records by partition, in event-time order; about 100 bytes of JSON each.

    Where there are as many users as records, each user has one record (for recovery).
    """
    random = Random(SEED)
    names = [user_name(number) for number in range(users)]
    homes = [partition_of(name.encode(), PARTITIONS) for name in names]
    found = tuple(Clicks(partition, 0, [], [], []) for partition in range(PARTITIONS))
    for at in range(records):
        number = at if users == records else random.randrange(users)
        amount = random.randrange(1, 100_000) / 100
        name = names[number]
        value = (
            f'{{"user":"{name}","amount":{amount},"page":"/shop/{random.randrange(10_000)}",'
            f'"session":"{random.getrandbits(64):016x}","item":{random.randrange(100_000)}}}'
        )
        clicks = found[homes[number]]
        clicks.timestamps.append(TIME_MS + at)
        clicks.keys.append(name.encode())
        clicks.values.append(value.encode())
    return found


def batches(records: int = RECORDS, users: int = USERS) -> Iterator[Clicks]:
    """Yield the records in batches of 5,000, the partitions by turns."""

    def cut(clicks: Clicks) -> Iterator[Clicks]:
        for low in range(0, len(clicks), BATCH_RECORDS):
            part = slice(low, low + BATCH_RECORDS)
            yield Clicks(
                clicks.partition, low, clicks.timestamps[part], clicks.keys[part], clicks.values[part]
            )

    for turn in zip_longest(*map(cut, partitions(records, users))):
        yield from (clicks for clicks in turn if clicks is not None)


@cache
def sums(records: int = RECORDS, users: int = USERS) -> dict[str, float]:
    """Return the sum of each user, added in the order of the user's partition."""
    import msgspec

    decode = msgspec.json.decode
    found: dict[str, float] = {}
    for clicks in partitions(records, users):
        for value in clicks.values:
            click = decode(value)
            found[click["user"]] = found.get(click["user"], 0.0) + click["amount"]
    return found


def check(found: dict[str, float], records: int = RECORDS, users: int = USERS) -> None:
    """Raise where a table does not hold exactly the sums: a rate of wrong answers is none."""
    wanted = sums(records, users)
    if found != wanted:
        wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        first = wrong[0]
        raise SystemExit(
            f"{len(wrong)} of {len(wanted)} sums are wrong, first {first}: found {found.get(first)}, "
            f"expected {wanted.get(first)}"
        )
