"""Groups in the database: GroupState loaded, asked and stored again, each within one write transaction."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING

from headwater.core.batch import TopicPartition
from headwater.log.group import GroupState, Member, check_owned, fenced
from headwater.log.interface import Assignment, Membership
from headwater.log.lease import this_process

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from headwater.log.embedded.database import Database
    from headwater.log.lease import LeaseClock


def load(raw: sqlite3.Connection, group: str) -> GroupState | None:
    """Return a group as stored, or None. Leases of another boot have run out."""
    row = raw.execute("SELECT tasks, generation FROM crew WHERE name = ?", (group,)).fetchone()
    if row is None:
        return None
    boot = this_process().place.split("/")[0]
    state = GroupState(group, *row)
    for name, place, lease_s, deadline_s in raw.execute(
        "SELECT name, place, lease_s, deadline_s FROM member WHERE crew = ? ORDER BY joined", (group,)
    ):
        same_boot = place.split("/")[0] == boot
        state.members[name] = Member(lease_s, deadline_s if same_boot else -math.inf)
    for task, member in raw.execute("SELECT task, member FROM task WHERE crew = ?", (group,)):
        state.members[member].owned.add(task)
    return state


def save(raw: sqlite3.Connection, before: GroupState | None, after: GroupState) -> None:
    """Store what differs from `before`, so that a heartbeat writes one row where nothing moves."""
    group, mine = after.name, this_process()
    if before is None or (before.tasks, before.generation) != (after.tasks, after.generation):
        raw.execute("INSERT OR REPLACE INTO crew VALUES (?, ?, ?)", (group, after.tasks, after.generation))
    old = {} if before is None else before.members
    for name in old.keys() - after.members.keys():
        raw.execute("DELETE FROM member WHERE crew = ? AND name = ?", (group, name))
    for name, member in after.members.items():
        if name not in old:
            raw.execute(
                "INSERT INTO member (crew, name, place, pid, started, lease_s, deadline_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (group, name, mine.place, mine.pid, mine.started, member.lease_s, member.deadline_s),
            )
        elif old[name].deadline_s != member.deadline_s:
            raw.execute("UPDATE member SET deadline_s = ? WHERE name = ?", (member.deadline_s, name))
    owned_before = {(task, name) for name, member in old.items() for task in member.owned}
    owned_after = {(task, name) for name, member in after.members.items() for task in member.owned}
    for task, name in owned_before - owned_after:
        raw.execute("DELETE FROM task WHERE crew = ? AND task = ? AND member = ?", (group, task, name))
    # A task that already has an owner would break the primary key: I4 is kept by the database too.
    for task, name in owned_after - owned_before:
        raw.execute("INSERT INTO task VALUES (?, ?, ?)", (group, task, name))


def check_member(raw: sqlite3.Connection, group: str, member: str, tasks: Collection[int]) -> None:
    """Raise FencedError unless a member is there and owns the tasks.

    A member's name is random and never given again, so that being there implies its generation: one that was removed
    stays removed.
    """
    if raw.execute("SELECT 1 FROM member WHERE crew = ? AND name = ?", (group, member)).fetchone() is None:
        raise fenced(group, member)
    owned = {
        row[0] for row in raw.execute("SELECT task FROM task WHERE crew = ? AND member = ?", (group, member))
    }
    check_owned(group, member, owned, tasks)


def save_positions(raw: sqlite3.Connection, group: str, positions: Mapping[TopicPartition, int]) -> None:
    """Store a group's next offsets."""
    raw.executemany(
        "INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?)",
        [(group, topic, partition, offset) for (topic, partition), offset in positions.items()],
    )


def load_positions(raw: sqlite3.Connection, group: str) -> dict[TopicPartition, int]:
    """Return a group's next offsets."""
    rows = raw.execute("SELECT topic, partition, next FROM position WHERE crew = ?", (group,))
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def join(database: Database, clock: LeaseClock, group: str, member: str, tasks: int, lease_s: float) -> None:
    """Add a member to a group, making the group where there is none."""
    with database.write() as raw:
        before = load(raw, group)
        after = deepcopy(before) or GroupState(group, tasks)
        after.join(member, tasks, lease_s, clock.monotonic_s())
        save(raw, before, after)


class EmbeddedMembership(Membership):
    """One member of a group of an EmbeddedLog."""

    def __init__(self, database: Database, clock: LeaseClock, group: str, member: str) -> None:
        """Stand for a member that has joined."""
        self.group = group
        self.member = member
        self._database = database
        self._clock = clock

    def heartbeat(self) -> Assignment:
        """Renew the lease and take free tasks."""
        with self._database.write() as raw:
            before = self._load(raw)
            after = deepcopy(before)
            assignment = after.heartbeat(self.member, self._clock.monotonic_s())
            save(raw, before, after)
        return assignment

    def release(self, tasks: Collection[int]) -> None:
        """Give up tasks."""
        with self._database.write() as raw:
            before = self._load(raw)
            after = deepcopy(before)
            after.release(self.member, tasks)
            save(raw, before, after)

    def leave(self) -> None:
        """Give up all tasks and the membership."""
        with self._database.write() as raw:
            before = self._load(raw)
            after = deepcopy(before)
            after.leave(self.member)
            save(raw, before, after)

    def _load(self, raw: sqlite3.Connection) -> GroupState:
        state = load(raw, self.group)
        if state is None:
            raise fenced(self.group, self.member)
        return state
