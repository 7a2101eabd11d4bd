"""A task: one partition number of a sub-topology; its inputs, merge, table parts and agents, and what an epoch of it commits.

Protocol of an epoch
1. `step` takes a group (`intake`: rows, causes, decoded values), and hands each record to the agents that read it
   (`dispatch`).
2. `collect` gives the epoch's appends and state, and begins the next; nothing has left the task before.
3. After the log has committed, `committed` says so to the tables' stores. There is one epoch at a time between the two.
Invariants
- What `collect` gives reflects exactly the records before the state's positions (I2).
- A task whose epoch was not committed is of no more use: what it has done since stands on it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.engine import outbox
from headwater.engine.dispatch import Dispatch
from headwater.engine.held import Held
from headwater.engine.intake import Intake
from headwater.engine.operator import OperatorRunner
from headwater.engine.pace import NEXT
from headwater.engine.plan import DECODE
from headwater.engine.positions import TaskState
from headwater.engine.runner import DeadLetter, Runner
from headwater.engine.task_time import TaskTime, moves_watermarks
from headwater.engine.timer import TimerRunner
from headwater.merge.channel import END_OF_TIME, NEVER, Channel
from headwater.merge.merge import Group, Merge
from headwater.stream.frame import Rows
from headwater.table.captured import CapturedPart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from headwater.core.batch import Append
    from headwater.engine.inputs import Input
    from headwater.engine.outbox import Changed
    from headwater.engine.pace import Pace
    from headwater.engine.plan import RunPlan
    from headwater.engine.topology import SubTopology
    from headwater.engine.watcher import Watcher
    from headwater.log.interface import Placed
    from headwater.table.part import TablePart
    from headwater.table.state import StatePart

IDLE = "idle:"
"""Begins the names in a cut that takes no records: agents handed out what `take` held back."""

GROUP_RECORDS_FIRST = 16
"""How long a task's first group is: nothing is known yet of how much its agents make of a record."""

GROUP_S_MAX = 0.05
"""About how long one group may take: heartbeats, timers and a stop wait for it where agents never await."""

GROUP_BYTES_MAX = 4 << 20
GROUP_CHANGES_MAX = 25_000
"""About how much one group may stage. An epoch can only end between groups, so long ones could not be bounded."""

WEIGHED_MAX = 256
"""How many values are looked at to tell how much a group has staged."""

CHANGES_HERE_MAX = 1000
BYTES_HERE_MAX = 256 << 10
"""Up to how many changes and staged bytes the loop itself makes a changelog: it takes about a millisecond."""


class Task:
    """One task of this worker."""

    def __init__(
        self, number: int, sub: SubTopology, partition: int, plan: RunPlan, fetch_bytes_max: int
    ) -> None:
        """Make an idle task; the assignment adds inputs, parts and runners."""
        self.number = number
        self.sub = sub
        self.partition = partition
        self.plan = plan
        self.fetch_bytes_max = fetch_bytes_max
        self.inputs: list[Input] = []
        self.parts: dict[str, TablePart | StatePart] = {}
        self.history: dict[str, Any] = {}
        self.changes_of: dict[str, tuple[str, Callable[[bytes], Any]]] = {}
        """By table whose changes are read: the topic they go to, and how its keys are shown."""
        self.dispatch = Dispatch(plan)
        self.intake = Intake(plan, partition)
        self.watchers: list[Watcher] = []
        self.pace: Pace | None = None
        self.is_held = False
        """Whether the task waits for others that are behind, in a replay."""
        self.merge = Merge([])
        self.time = TaskTime([], is_kept=False)
        self.epoch = 0
        self.groups: list[dict[str, int]] = []
        self.dead: list[tuple[DeadLetter, dict[str, Any]]] = []
        self.emitted: dict[str, int] = {}
        self.cuts: Iterator[dict[str, int]] | None = None
        self._repeats = False
        self._next_cut: dict[str, int] | None = None
        self.end_recorded = False
        self.ends_sent: frozenset[str] = frozenset()
        """Internal topics that were told that nothing more comes from here."""
        self.flushed: list[str] = []
        self.flush_due = False
        self.lock = asyncio.Lock()
        self.seen: dict[str, int] = {}
        self._recorded: dict[str, int] | None = None
        self._staged_bytes = 0
        self._group_records_max = self.merge.records_max

    # Set-up

    def begin(self, state: TaskState | None) -> None:
        """Take up where the last committed epoch ended, once inputs, parts and runners are there."""
        self.merge = Merge([channel for an_input in self.inputs for channel in an_input.channels])
        self._group_records_max = self.merge.records_max
        self.merge.records_max = min(self._group_records_max, GROUP_RECORDS_FIRST)
        channels = self.merge.channels
        self.time = TaskTime(
            self.inputs,
            is_kept=self.sub.number in self.plan.watermarked,
            idles=not (self.plan.bounded or self.plan.total_order),
            looped=self.sub.looped,
        )
        self.intake.begin(self.inputs, channels, state)
        self.dispatch.begin(len(self.inputs), channels, {} if state is None else state.positions)
        if state is not None:
            self._restore(state)
        for runner in self.runners:
            if isinstance(runner, OperatorRunner):
                runner.begin(self.time.watermark)

    def _restore(self, state: TaskState) -> None:
        self.time.begin(state)
        for timer in self.dispatch.timers:
            timer.last = state.timers.get(timer.timer.name)
        self.epoch = state.epoch
        self.emitted = dict(state.emitted)
        self.seen = dict(state.seen)
        self.end_recorded = bool(state.marks.get("end"))
        # A run that goes on where a replay ended has sent no end: one more of it would stop whoever reads what comes now.
        self.ends_sent = frozenset(state.marks.get("ends", ()) if self.plan.bounded else ())
        # What was held back comes in the order it came in first: a replay in live order knows no other.
        self.cuts = iter(state.marks.get("held", ()))

    @property
    def watermark(self) -> int:
        """The task's watermark, ms, after all rows so far; NEVER where nothing asks for it."""
        return self.time.watermark

    def repeat(self, cuts: Iterator[dict[str, int]]) -> None:
        """Take the very groups of these cuts, and hand out what is held back where they say so, and never else."""
        self.cuts, self._repeats = cuts, True

    @property
    def rows(self) -> Rows:
        """The rows of the open epoch."""
        return self.intake.rows

    @property
    def task_time(self) -> int:
        """The greatest effective time of all rows so far, ms; NEVER before the first."""
        return self.intake.task_time

    @property
    def source_time(self) -> int:
        """The effective time of the next record of its source partitions, as far as it is known; END_OF_TIME where none is left."""
        channels = [i.channels[0] for i in self.inputs if i.senders is None and not i.is_shadow]
        return min((c.clock_at_position() for c in channels if c.size or not c.done), default=END_OF_TIME)

    @property
    def runners(self) -> list[Runner | OperatorRunner | TimerRunner]:
        """All runners, in order of declaration within each set; timers last."""
        return self.dispatch.runners

    # Groups

    def fill(self, *, further: bool = False) -> bool:
        """Read into inputs that have an empty channel (`further`: into all that may have more); tell whether any came."""
        came = False
        for an_input in self.inputs:
            if (further or any(not c.size and not c.done for c in an_input.channels)) and (
                an_input.fill(self.fetch_bytes_max)
            ):
                came = True
        return came

    def cold(self) -> list[Future[Any]]:
        """Have inputs that read a distant archive go on reading; return what to wait for before any can be filled."""
        waits = []
        for an_input in self.inputs:
            begun = an_input.ahead(self.fetch_bytes_max)
            if begun is not None and any(not c.size and not c.done for c in an_input.channels):
                waits.append(begun)
        return waits

    def finish_shadows(self) -> None:
        """End the inputs by which a replay reads its own records; at the end of time, where the topic itself has come to it."""
        ended = {
            (self.plan.shadow_of(i.tp.topic), i.tp.partition)
            for i in self.inputs
            if any(channel.tail == END_OF_TIME for channel in i.channels)
        }
        for an_input in self.inputs:
            if an_input.is_shadow:
                an_input.drain = an_input.drain or an_input.tp in ended
                an_input.finish()

    def next_group(self) -> Group | None:
        """Return the next group, or None while nothing can be taken."""
        self.is_held = self.pace is not None and self.pace.holds(self)
        if self.is_held:
            return None
        while True:
            came = self.fill()
            group = self._cut()
            if group is None and not self.flush_due and not came and self.merge.waiting():
                # All channels have records, but none that may go before the others': what follows them must be seen.
                came = self.fill(further=True)
                group = self._cut()
            # What is held back is handed out before anything else is taken, as it was when the cuts were written.
            if group is not None or self.flush_due:
                return group
            if not came:
                return self._marks_only()

    def _marks_only(self) -> Group | None:
        """Return a group without records where marks or silence move the watermark, so that what is due is done."""
        return self.merge.nothing() if self.has_news() else None

    def has_news(self) -> bool:
        """Tell whether marks alone, or silence, move the watermark: what that makes due is still to be done."""
        return self.cuts is None and self.time.has_news(sends=bool(self.sub.sends))

    def _cut(self) -> Group | None:
        if self.cuts is not None:
            while True:
                if self._next_cut is None:
                    self._next_cut = next(self.cuts, None)
                    if self._next_cut is None:
                        self.cuts = None
                        break
                if any(name.startswith(IDLE) for name in self._next_cut):
                    self.flush_due, self._next_cut = True, None
                    return None
                group = self.merge.cut_at(self._next_cut)
                if group is not None:
                    self._recorded, self._next_cut = self._next_cut, None
                    return group
                if not self._covers(self._next_cut):
                    return None
                if moves_watermarks(self._next_cut) and self.time.is_kept:
                    self._recorded, self._next_cut = self._next_cut, None
                    return self.merge.nothing()
                self._next_cut = None
        return self.merge.cut(self._is_awaited)

    def _covers(self, cut: dict[str, int]) -> bool:
        return all(
            channel.done or channel.covered >= cut.get(channel.name, 0) for channel in self.merge.channels
        )

    def _is_awaited(self, channel: Channel) -> bool:
        """Tell whether a channel must be seen before others' records go.

        Live, one that has caught up with its log is not, once it has lagged for `align_s`: which records arrived first is
        then decided by the wall clock, and written into the cuts.
        """
        an_input = self.inputs[channel.input]
        if not an_input.caught_up:
            return True
        if self.plan.total_order:
            # What is in hand itself makes what comes next in a shadow, or in a channel from this very task: to wait for it
            # would be to wait for ever.
            return not an_input.is_shadow and an_input.tp.topic not in self.sub.looped
        align_s = self.plan.align_s
        return align_s > 0 and SYSTEM_CLOCK.monotonic_s() - an_input.caught_up_s < align_s

    # Dispatch

    async def step(self, group: Group) -> None:
        """Process one group to its end."""
        marks, began_s = self._weight_marks(), SYSTEM_CLOCK.monotonic_s()
        await self._step(group)
        took_s = SYSTEM_CLOCK.monotonic_s() - began_s
        changes, nbytes = self._weigh(marks)
        for part in self.parts.values():
            part.settle()
        self._staged_bytes += nbytes
        if not len(group):
            return
        if self.pace is not None:
            self.pace.took(self, self.task_time, nbytes)
        share = max(changes / GROUP_CHANGES_MAX, nbytes / GROUP_BYTES_MAX, took_s / GROUP_S_MAX)
        room = len(group) / max(share, 1e-6)
        self.merge.records_max = max(1, min(int(room), 4 * self.merge.records_max, self._group_records_max))

    def _weight_marks(self) -> list[int]:
        return [
            *(part.count for part in self.parts.values()),
            *(len(runner.frame.sends) for runner in self.runners),
        ]

    def _weigh(self, marks: list[int]) -> tuple[int, int]:
        """Return about how many changes and bytes were staged since the marks."""
        at = iter(marks)
        changes = nbytes = 0
        for part in self.parts.values():
            mark = next(at)
            # An operator takes back what the epoch has made where a window closes.
            count = max(0, part.count - mark)
            changes += count
            sample = part.sample(mark, WEIGHED_MAX) if count else []
            nbytes += _weight([value if isinstance(value, bytes) else None for value in sample], count)
        for runner in self.runners:
            mark = next(at)
            count = len(runner.frame.sends) - mark
            sends = runner.frame.sends[mark :: max(1, count // WEIGHED_MAX)]
            nbytes += _weight([send.value for send in sends], count)
        return changes, nbytes

    async def _step(self, group: Group) -> None:
        before = self.time.watermark
        self.time.settle(group, self._recorded)
        self._recorded = None
        if len(group):
            every, work, bad = self.intake.take(group, self.time, self.dispatch.resume.get(DECODE, {}))
        else:
            every, work, bad = self.intake.take_mark(self.time)
        for letter in bad:
            self.dead_letter(letter)
        await self.dispatch.hand_out(every, work)
        if self.time.watermark > before:
            await self._advance(len(self.rows) - 1, self.time.watermark)
        self.groups.append(group.cut)

    async def _advance(self, row: int, watermark: int) -> None:
        """Have done what a watermark makes due; it came with a row."""
        for watcher in self.watchers:
            if watcher.due <= watermark:
                await watcher.advance(row, watermark)

    async def flush_idle(self) -> bool:
        """Have agents hand out what `take` holds back where they set `within`; tell whether any did.

        Live, the wall clock decides when; the moment is written among the cuts, and so is the same in live order.
        """
        flushed, self.flush_due = False, False
        for runner, _ in self._holding():
            await runner.run(None)
            self.flushed.append(runner.agent.name)
            flushed = True
        if flushed:
            self.groups.append({IDLE + name: 1 for name in self.flushed})
        return flushed

    def dead_letter(self, letter: DeadLetter) -> None:
        """Stage a dead letter; it is told by its original record, not by a repartition topic's."""
        if letter.agent == DECODE and not self.plan.dead_letters:
            letter.refuse()
        info = letter.info()
        row = letter.row
        topic, info["partition"], info["offset"], _ = self.rows.cause(row)
        info["topic"] = self.plan.name_of(topic)
        through = letter.work.topics[letter.work.input_at(0)][0]
        if through in self.plan.topology.derived:
            # No record of a topic but what was made of one: it can't be sent again from there.
            info["derived"] = through
        self.dead.append((letter, info))

    # Commit

    def has_progress(self) -> bool:
        """Whether the open epoch holds anything to commit."""
        return bool(
            self.groups
            or self.flushed
            or (self._finished() and not self.end_recorded)
            or self._ending() != self.ends_sent
            or self._seen() != self.seen
        )

    def staged_bytes(self) -> int:
        """Return about how much the open epoch would write."""
        return self._staged_bytes

    def changes(self) -> int:
        """Return how many changes of tables the open epoch holds."""
        return sum(part.count for part in self.parts.values())

    def finished(self) -> bool:
        """Whether a bounded run of this task has committed its end."""
        return self.end_recorded

    def _finished(self) -> bool:
        return (
            bool(self.inputs)
            and all(i.ended for i in self.inputs)
            and not self.time.has_news(sends=bool(self.sub.sends))
            # Other workers take the end for the end of all.
            and (self._repeats or not self._holding())
        )

    def _holding(self) -> list[tuple[Runner, int]]:
        """Return the agents that are still to be handed what `take` holds back, and each one's `within` in ms."""
        return [
            (runner, within_ms)
            for runner in self.runners
            if isinstance(runner, Runner)
            and runner.feed.held
            and (within_ms := runner.feed.within_ms) is not None
        ]

    def holds_for_ms(self) -> int | None:
        """Return the shortest `within` of what `take` holds back, ms; None where nothing is held back for a while."""
        return min((within_ms for _, within_ms in self._holding()), default=None)

    def _ending(self) -> frozenset[str]:
        """Return the internal topics that nothing more goes to: all that they hang on has come to its end."""
        # While the watermark may move, windows may close yet, and whoever reads the end reads no mark that comes after it.
        if not self.plan.bounded or not self.sub.sends or not self.time.is_over():
            return self.ends_sent
        ended: dict[str, bool] = {}
        for an_input in self.inputs:
            ended[an_input.tp.topic] = an_input.ended and ended.get(an_input.tp.topic, True)
        # A shadow's topic ends with it; what every task reads counts for all.
        broadcast = all(i.ended for i in self.inputs if i.broadcast)
        return frozenset(
            topic
            for topic, upstream in self.sub.sends.items()
            if broadcast
            and all(ended.get(t, True) and ended.get(self.plan.shadow_of(t), True) for t in upstream)
        )

    def collect(self) -> tuple[list[Append], Callable[[], list[Append]], TaskState]:
        """Return what the open epoch appends, what makes its changelog's appends, and the state it reaches. Begin the next.

        The changelog is the dearest part; the thread that commits makes it. One of few changes is made here: beside a loop
        that is at work a thread waits for the interpreter each time that Arrow has let go of it, a dozen times a changelog.
        """
        appends: list[Append] = []
        emitted = dict(self.emitted)
        appends += self._sends(emitted, with_changes=True)
        appends += outbox.dead_letters(self.dead, self.plan.dead_topic)
        ending = self._finished()
        ends = self._ending()
        if self.sub.sends and (self.groups or ends != self.ends_sent):
            appends += outbox.marks(
                self.sub.sends, self.plan, self.partition, self._passed(), ending=ends,
                watermark=self.time.watermark if self.time.is_kept else None, idle=self.time.is_idle,
            )  # fmt: skip
        held = Held(self.inputs, self.merge.channels, {r.agent.name: r.feed.held for r in self.runners})
        state = TaskState(
            self.number, self.sub.number, self.partition, self.epoch + 1,
            held.positions(self.dispatch.reads, self.dispatch.resume), held.reads(), self.groups,
            None if self.task_time == NEVER else self.task_time, held.clocks(), {}, emitted,
            {**held.marks(self.rows, is_kept=self.time.is_kept), **self._marks(ending, ends)},
            self._seen(), None if self.time.watermark == NEVER else self.time.watermark,
            self.time.states(held.watermark_clocks(), held.reads()),
            {t.timer.name: t.last for t in self.dispatch.timers if t.last is not None},
        )  # fmt: skip
        changed = {name: part.cut() for name, part in self.parts.items()}
        changelogs: Callable[[], list[Append]] = partial(self._changelogs, changed, self.rows)
        count = sum(len(changes[0]) for changes in changed.values())
        if count <= CHANGES_HERE_MAX and self._staged_bytes <= BYTES_HERE_MAX:
            appends += changelogs()
            changelogs = list
        self._begin_epoch(state)
        return appends, changelogs, state

    def _passed(self) -> int:
        """Return the effective time below which this task sends nothing more: those it sends to need not wait up to there.

        That is its own time; where a replay waits for the least of all channels, also what its inputs have passed without a
        record for it, as long as nothing is due by the watermark: what that brings about would bear the task's own time.
        """
        waits = any(runner.feed.held for runner in self.runners) or any(
            watcher.due < END_OF_TIME for watcher in self.watchers
        )
        if waits or not self.plan.total_order:
            return self.task_time
        channels = [c for c in self.merge.channels if c.size or not c.done]
        passed = min((c.clock_at_position() if c.size else c.progress for c in channels), default=NEVER)
        return max(self.task_time, passed)

    def _changelogs(self, changed: dict[str, Changed], rows: Rows) -> list[Append]:
        appends = []
        for name, changes in changed.items():
            topic = self.plan.changelog_topic(name)
            appends += outbox.changelog(changes, rows, topic, self.partition, self.history[name])
        return appends

    def committed(self, placed: Placed) -> None:
        """Have the stores take the collected epoch, after the log has; `placed` says where."""
        for name, part in self.parts.items():
            reached = placed.ends.get(TopicPartition(self.plan.changelog_topic(name), self.partition))
            if reached is not None:
                part.store.commit(reached)

    def flush_stores(self) -> None:
        """Have the stores write what has waited for long."""
        for part in self.parts.values():
            part.store.flush_if_old()

    def _begin_epoch(self, state: TaskState) -> None:
        self.epoch = state.epoch
        self.emitted = state.emitted
        self.seen = state.seen
        self.end_recorded = bool(state.marks.get("end"))
        self.ends_sent = frozenset(state.marks.get("ends", ()))
        self.groups, self.dead, self.flushed = [], [], []
        self._staged_bytes = 0
        held = [(runner, runner.feed.held) for runner in self.runners if runner.feed.held]
        old = self.intake.begin_epoch()
        for runner in self.runners:
            runner.frame.sends.clear()
            runner.frame.rows = self.rows
            runner.frame.row = -1
            # Rows are numbered anew: what was drawn for the last epoch's row of a number isn't for this one's.
            runner.frame.begin_again()
        for runner, works in held:
            runner.feed.held = [self.intake.renumber(work, old) for work in works]

    def take_sends(self) -> list[Append]:
        """Return staged sends and forget them: at least once, outputs don't wait for the epoch. Repartition sends do."""
        kept = []
        for runner in self.runners:
            sends = runner.frame.sends
            internal = [send for send in sends if self.plan.is_internal(send.topic)]
            if internal:
                sends[:] = [send for send in sends if not self.plan.is_internal(send.topic)]
                kept.append((runner, internal))
        appends = self._sends(dict(self.emitted))
        for runner in self.runners:
            runner.frame.sends.clear()
        for runner, internal in kept:
            runner.frame.sends.extend(internal)
        return appends

    def _sends(self, emitted: dict[str, int], *, with_changes: bool = False) -> list[Append]:
        staged = [(r.agent.name, r.frame.sends) for r in self.runners if r.frame.sends]
        for name, (topic, shown) in self.changes_of.items() if with_changes else ():
            part = self.parts[name]
            assert isinstance(part, CapturedPart)
            staged.append((topic, outbox.table_changes(part, topic, shown)))
        return outbox.sends(staged, self.rows, self.plan, self.partition, emitted)

    def _seen(self) -> dict[str, int]:
        """Return how far each input has been dispatched, whatever agents hold back."""
        return {i.name: i.read_position() for i in self.inputs}

    def _marks(self, ending: bool, ends: frozenset[str]) -> dict[str, Any]:
        """Return what the epoch says of the task itself."""
        marks: dict[str, Any] = {}
        if self.flushed:
            marks["idle"] = list(self.flushed)
        if ending:
            marks["end"] = True
        if ends:
            marks["ends"] = sorted(ends)
        if self.pace is not None:
            marks[NEXT] = self.source_time
        return marks


def _weight(sample: Sequence[bytes | None], count: int) -> int:
    """Return about how many bytes `count` values have with what comes with each, given some of them."""
    if not sample:
        return 0
    return count * (64 + sum(map(len, filter(None, sample))) // len(sample))
