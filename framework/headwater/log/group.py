"""GroupState: who is in a group and owns which tasks; the rules of it, apart from where it is kept.

Protocol
1. The fair share of the i-th member by order of joining is tasks // members, and one more for the first
   tasks % members.
2. A heartbeat takes free tasks, lowest first, up to the share; what is owned above the share, highest first, is named
   to be released.
3. The generation rises whenever a member comes, goes or is removed.
Invariant: a task has at most one owner; it moves only when its owner released it, left, or let its lease run out (I4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.core.errors import FencedError, MisuseError, PartitionCountError
from headwater.log.interface import Assignment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from headwater.core.batch import TopicPartition


def chosen(
    positions: Mapping[TopicPartition, int], of: Collection[TopicPartition] | None
) -> dict[TopicPartition, int]:
    """Return a group's positions: all, or those `of` these partitions."""
    return dict(positions) if of is None else {tp: positions[tp] for tp in of if tp in positions}


@dataclass(slots=True)
class Member:
    """A member's lease and tasks."""

    lease_s: float
    deadline_s: float
    owned: set[int] = field(default_factory=set)


@dataclass(slots=True)
class GroupState:
    """A group; `members` are in the order of joining."""

    name: str
    tasks: int
    generation: int = 0
    members: dict[str, Member] = field(default_factory=dict)

    def expire(self, now_s: float, keep: str | None = None) -> None:
        """Remove members whose lease has run out, but not `keep`, who is asking."""
        for member in [m for m, state in self.members.items() if state.deadline_s <= now_s and m != keep]:
            self._remove(member)

    def join(self, member: str, tasks: int, lease_s: float, now_s: float) -> None:
        """Add a member. Raises PartitionCountError where running members have another number of tasks."""
        if tasks < 1 or lease_s <= 0:
            raise MisuseError(
                f"can't join group {self.name!r} with {tasks} tasks and a lease of {lease_s} s; give both above 0"
            )
        self.expire(now_s)
        if tasks != self.tasks:
            if self.members:
                raise PartitionCountError(
                    f"group {self.name!r} runs with {self.tasks} tasks, joined with {tasks}; stop its workers before "
                    "changing the number of partitions"
                )
            self.tasks = tasks
        self.members[member] = Member(lease_s, now_s + lease_s)
        self.generation += 1

    def heartbeat(self, member: str, now_s: float) -> Assignment:
        """Renew the lease, take free tasks up to the share, and say what is above it."""
        state = self._member(member)
        self.expire(now_s, keep=member)
        state.deadline_s = now_s + state.lease_s
        share = self._share(member)
        missing = share - len(state.owned)
        if missing > 0:
            taken = set().union(*(other.owned for other in self.members.values()))
            state.owned.update([task for task in range(self.tasks) if task not in taken][:missing])
        revoking = frozenset(sorted(state.owned)[share:])
        return Assignment(frozenset(state.owned), revoking, self.generation, len(self.members))

    def release(self, member: str, tasks: Collection[int]) -> None:
        """Set tasks free; those that the member doesn't own stay as they are."""
        self._member(member).owned.difference_update(tasks)

    def leave(self, member: str) -> None:
        """Remove a member; nothing happens where it is gone already."""
        if member in self.members:
            self._remove(member)

    def check(self, member: str, tasks: Collection[int]) -> None:
        """Raise FencedError unless the member is there and owns all the tasks."""
        check_owned(self.name, member, self._member(member).owned, tasks)

    def running(self, now_s: float) -> int:
        """Return the number of members with a running lease."""
        return sum(state.deadline_s > now_s for state in self.members.values())

    def _share(self, member: str) -> int:
        share, more = divmod(self.tasks, len(self.members))
        return share + (list(self.members).index(member) < more)

    def _member(self, member: str) -> Member:
        state = self.members.get(member)
        if state is None:
            raise fenced(self.name, member)
        return state

    def _remove(self, member: str) -> None:
        del self.members[member]
        self.generation += 1


def fenced(group: str, member: str) -> FencedError:
    """Return the error for a member that is no longer there."""
    return FencedError(
        f"group {group!r} went on without member {member}: its lease ran out or it left; nothing of this call was kept, "
        "join anew"
    )


def check_owned(group: str, member: str, owned: Collection[int], tasks: Collection[int]) -> None:
    """Raise FencedError where some of `tasks` are not owned."""
    missing = sorted(set(tasks).difference(owned))
    if missing:
        raise FencedError(
            f"member {member} of group {group!r} doesn't own tasks {missing}, it owns {sorted(owned)}; nothing of this call "
            "was kept, fetch the positions of the tasks it owns and start from them"
        )
