"""A session: this worker's part in one generation, from joining its group to leaving it.

Protocol
1. Prepare: learn the topology, make internal topics, check that the generation was started with the same topology.
2. Join the group; on each heartbeat give up and take tasks, always between epochs.
3. Each task's pump takes groups while no epoch is closing; the coordinator closes an epoch when it is due: it waits
   until every pump rests, collects everything, lets the pumps go on into the next epoch, and meanwhile commits in one log
   transaction; then the stores may have it. Before tasks are given up, pumps rest until all is committed.
4. A member that is fenced, or whose log is interrupted, has one path: drop all tasks with their overlays and stagings, join anew, and begin each from
   what the log holds. Any other failure drops them too, and ends the worker: the next one begins from the same place.
Invariant: nothing of a task is visible that the log has not taken while this member owned the task (I1, I2, I4).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from headwater.core.batch import Append, TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.crash import point
from headwater.core.errors import FencedError, HeadwaterError, LogInterruptedError, RecordFailedError
from headwater.engine import outbox
from headwater.engine.cuts import recorded_cuts
from headwater.engine.drain import end_marks
from headwater.engine.ends import Ends
from headwater.engine.inputs import BROADCAST
from headwater.engine.news import listen
from headwater.engine.pace import LOOK_S, WAIT_S
from headwater.engine.positions import TaskState
from headwater.engine.tally import Tally
from headwater.log.interface import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from headwater.archive.archive import Archive
    from headwater.engine.assemble import Assembly
    from headwater.engine.drain import Drain
    from headwater.engine.pace import Pace
    from headwater.engine.plan import RunPlan
    from headwater.engine.positions import Positions
    from headwater.engine.task import Task
    from headwater.log.interface import Assignment, Log, Membership, Placed

log_ = logging.getLogger(__name__)

STAGED_BYTES_MAX = 16 << 20
CHANGES_MAX = 100_000
OVERDUE_S = 1.0
"""How long an epoch may last beyond its end before its tasks rest."""
HANG_S = 5.0
"""How long a closing epoch waits for agents at a stop or a revocation, then it is aborted."""

LOOK_AGAIN_S = 0.05
"""When a task that holds records back, and is at work or behind, is looked at again."""

BACK_OFF_MIN_S = 0.25
BACK_OFF_MAX_S = 5.0


class Session:
    """Runs tasks of one generation until it is told to stop or all is done."""

    def __init__(
        self,
        log: Log,
        plan: RunPlan,
        positions: Positions,
        assembly: Assembly,
        *,
        epoch_s: float,
        lease_s: float,
        until_idle: bool,
        ready: asyncio.Event,
        at_least_once: bool = False,
        drain: Drain | None = None,
        name: str | None = None,
        process: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Take what was prepared; `drain`: once all is idle, end the inputs in its order; `name` is the worker's own at each
        start on the same state; `pace` is that of a replay's sources.
        """
        self.log = log
        self.plan = plan
        self.positions = positions
        self.assembly = assembly
        self.epoch_s = epoch_s
        self.lease_s = lease_s
        self.until_idle = until_idle
        self.at_least_once = at_least_once
        self.drain = drain
        self.name = name
        self.process = process
        self.tasks: dict[int, Task] = {}
        self._ends = Ends(log, plan, positions, assembly, self.tasks)
        self.pace = pace
        self._paced_s = 0.0
        if pace is not None:
            pace.watch(self.tasks)
        self.ready = ready
        self.records = 0
        self.epochs = 0
        self.tally = Tally(plan.app)
        self.switch = False
        self._member: Membership | None = None
        self._pumps: dict[int, asyncio.Task[None]] = {}
        self._flushes: dict[int, asyncio.Task[None]] = {}
        # By task how many are at work in it: its pump, and whoever has it hand out what it holds back.
        self._busy: dict[int, int] = {}
        self._closing = False
        self._stopping = False
        self._stopped = asyncio.Event()
        self._resume = asyncio.Event()
        self._resume.set()
        self._rested = asyncio.Event()
        self._news = asyncio.Event()
        self._due = asyncio.Event()
        # When the open epoch was opened (None: none is), and when the last commit began.
        self._opened_s: float | None = None
        self._committing_s = SYSTEM_CLOCK.monotonic_s()
        self._failure: BaseException | None = None
        self._flush_s: float | None = None
        self._cuts: tuple[Archive, str] | None = None
        # The log has something to say about tasks: to the coordinator, and to one that waits for an epoch's end.
        self._beat = self._told = False
        self._back_off_s = BACK_OFF_MIN_S
        self._epochs_seen = 0

    @property
    def _is_finite(self) -> bool:
        """Whether the run ends by itself: somebody waits for that."""
        return self.until_idle or self.plan.bounded

    # Life

    async def run(self) -> None:
        """Run until stopped, idle (`until_idle`), or finished (a bounded generation)."""
        watcher = asyncio.create_task(self._watch())
        try:
            while not self._stopping:
                try:
                    await self._membership()
                    return
                except FencedError as error:
                    log_.warning("fenced; joining again: %s", error)
                    await self._abandon()
                except LogInterruptedError as error:
                    log_.warning("%s; what was not committed is done again", error)
                    await self._abandon()
                    await self._back_off()
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
            await self._abandon()
            self.tally.tell()

    async def _back_off(self) -> None:
        """Wait before joining again, longer each time; a stop ends the wait."""
        if self.epochs > self._epochs_seen:
            self._back_off_s = BACK_OFF_MIN_S
        self._epochs_seen = self.epochs
        wait_s, self._back_off_s = self._back_off_s, min(BACK_OFF_MAX_S, 2 * self._back_off_s)
        if self._stopping:
            return
        try:
            await asyncio.wait_for(self._stopped.wait(), wait_s)
        except TimeoutError:
            return

    def stop(self) -> None:
        """Finish the open epoch, leave the group, and end `run`."""
        self._stopping = True
        # Nothing more is taken, also where an epoch is just being committed.
        self._closing = True
        self._resume.clear()
        self._stopped.set()
        self._due.set()
        self._rested.set()

    def poke(self) -> None:
        """Look again now, whatever the timers say."""
        self._due.set()

    def _beat_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear from a thread of the log's."""
        with suppress(RuntimeError):  # the loop is closed: there is nobody to tell
            loop.call_soon_threadsafe(self._beat_now)

    def _beat_now(self) -> None:
        """Don't wait for the next heartbeat's time."""
        self._beat = self._told = True
        self._due.set()
        self._rested.set()

    async def _membership(self) -> None:
        point("session.before_join")
        member = self._member = await asyncio.to_thread(
            self.log.join,
            self.positions.group,
            self.plan.topology.tasks,
            lease_s=self.lease_s,
            name=self.name,
            process=self.process,
        )
        member.listen(partial(self._beat_from, asyncio.get_running_loop()))
        point("session.joined")
        await self._coordinate(member)
        point("session.leaving")
        await self._stop_pumps(list(self._pumps))
        self._close_tasks(list(self.tasks))
        await asyncio.to_thread(member.leave)
        self._member = None
        point("session.left")

    async def _coordinate(self, member: Membership) -> None:
        heartbeat_s = self.lease_s / 3
        clock = SYSTEM_CLOCK
        next_beat_s = 0.0
        while True:
            # Cleared before looking, so that what happens meanwhile is looked at in the next round and not slept over.
            self._due.clear()
            now_s = clock.monotonic_s()
            if self._failure is not None:
                raise self._failure
            if (now_s >= next_beat_s or self._beat) and not self._stopping:
                self._beat = False
                assignment = await asyncio.to_thread(member.heartbeat)
                moving = await self._reassign(member, assignment)
                next_beat_s = clock.monotonic_s() + (min(0.1, heartbeat_s) if moving else heartbeat_s)
                for task in self.tasks.values():
                    task.flush_stores()
                if not self.ready.is_set() and (self.tasks or assignment.members > 0):
                    self.ready.set()
            if self._stopping:
                await self._close_epoch(HANG_S)
                return
            if self._is_due(now_s):
                await self._close_epoch(None)
                if self._stopping or self._failure is not None:
                    continue
            if self.pace is not None:
                await self._look_at_others(self.pace, now_s)
            if self._is_finite and self._is_at_work():
                self._flush_s = None
            else:
                self._flush_idle()
            if not self._is_at_work() and await self._all_done() and not self._is_at_work():
                return
            await self._sleep(next_beat_s)

    async def _sleep(self, next_beat_s: float) -> None:
        """Wait for the next deadline, or until something asks for attention."""
        now_s = SYSTEM_CLOCK.monotonic_s()
        until_s = next_beat_s
        if self._opened_s is not None:
            until_s = min(until_s, self._due_s(self._opened_s))
        if self._flush_s is not None:
            until_s = min(until_s, self._flush_s)
        if self._is_finite:
            until_s = min(until_s, now_s + 0.05)
        try:
            await asyncio.wait_for(self._due.wait(), max(0.001, until_s - now_s))
        except TimeoutError:
            return

    async def _look_at_others(self, pace: Pace, now_s: float) -> None:
        """Learn how far other workers' sources are."""
        if now_s - self._paced_s < LOOK_S:
            return
        self._paced_s = now_s
        others = pace.others()
        if others:
            pace.learn(await asyncio.to_thread(self.positions.load, others))

    async def _watch(self) -> None:
        """Tell pumps when the log has something new."""
        try:
            await listen(self.log, self._tell)
        except HeadwaterError as error:
            self._fail(error)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def repeat_cuts_of(self, archive: Archive, parent: str) -> None:
        """Have each task take the very groups that a task of `parent` took: a replay in live order."""
        self._cuts = (archive, parent)

    # Assignment

    async def _reassign(self, member: Membership, assignment: Assignment) -> bool:
        """Give up and take tasks; tell whether tasks are still moving."""
        lost = set(self.tasks) - assignment.owned
        if lost:
            raise FencedError(
                f"tasks {sorted(lost)} were taken over by another worker of {self.positions.group}"
            )
        if assignment.revoking:
            await self._close_epoch(HANG_S)
            await self._stop_pumps(assignment.revoking)
            self._close_tasks(assignment.revoking)
            point("session.revoking")
            await asyncio.to_thread(member.release, assignment.revoking)
            point("session.released")
        new = sorted(assignment.owned - assignment.revoking - set(self.tasks))
        if new:
            point("session.before_recovery")
            states = await asyncio.to_thread(self.positions.load, new)
            for number in new:
                task = await self._make(member, number, states.get(number))
                point("session.recovered")
                if self._cuts is not None:
                    archive, parent = self._cuts
                    plan = self.plan
                    task.repeat(recorded_cuts(self.log, archive, plan.app, parent, plan.generation, number))
                task.pace = self.pace
                self.tasks[number] = task
                self._pumps[number] = asyncio.create_task(self._pump(task))
            log_.info("tasks taken", extra={"tasks": new})
        fair = -(-self.plan.topology.tasks // max(1, assignment.members))
        return bool(assignment.revoking) or len(assignment.owned) > fair

    async def _make(self, member: Membership, number: int, state: TaskState | None) -> Task:
        """Put a task together, and keep the lease while its tables are recovered."""
        making = asyncio.ensure_future(asyncio.to_thread(self.assembly.make, number, state))
        while True:
            done, _ = await asyncio.wait({making}, timeout=self.lease_s / 3)
            if done:
                return making.result()
            try:
                await asyncio.to_thread(member.heartbeat)
            except FencedError:
                self.assembly.close(await making)
                raise

    def _close_tasks(self, numbers: Collection[int]) -> None:
        for number in list(numbers):
            task = self.tasks.pop(number, None)
            if task is not None:
                self.assembly.close(task)

    async def _abandon(self) -> None:
        """Drop all tasks with everything that was not committed."""
        await self._stop_pumps(list(self._pumps))
        self._close_tasks(list(self.tasks))
        self._busy.clear()
        self._opened_s = None
        self._failure = None
        self._closing = False
        self._resume.set()
        if self._member is not None:
            member, self._member = self._member, None
            await asyncio.to_thread(member.leave)

    async def _stop_pumps(self, numbers: Collection[int]) -> None:
        # All are told before one is waited for: another would take a group meanwhile, only for it to be dropped (I26).
        for number in numbers:
            self._cancel(number)
        for number in list(numbers):
            await self._stop_pump(number)

    def _cancel(self, number: int) -> list[asyncio.Task[None]]:
        """Tell what is at work in a task to end: its pump, and what hands out what its agents hold back."""
        running = [by[number] for by in (self._pumps, self._flushes) if number in by]
        for each in running:
            each.cancel()
        return running

    async def _stop_pump(self, number: int) -> None:
        running = self._cancel(number)
        if running:
            await asyncio.wait(running)
        self._pumps.pop(number, None)
        self._flushes.pop(number, None)
        task = self.tasks.get(number)
        if task is not None:
            for runner in task.runners:
                await runner.stop()
        self._busy.pop(number, None)

    # Records

    def _begin_work(self, number: int) -> None:
        self._busy[number] = self._busy.get(number, 0) + 1

    def _end_work(self, number: int) -> None:
        left = self._busy.pop(number, 0) - 1
        if left > 0:
            self._busy[number] = left

    async def _pump(self, task: Task) -> None:
        try:
            while True:
                if self._closing:
                    await self._resume.wait()
                    continue
                if self._is_overdue():
                    self._due.set()
                    await asyncio.sleep(WAIT_S)
                    continue
                cold = task.cold()
                if cold:
                    done, _ = await asyncio.wait([asyncio.wrap_future(each) for each in cold])
                    for each in done:
                        each.exception()  # raised by the fetch; here it is only seen, so that none counts as unseen
                    continue
                news = self._news
                group = task.next_group()
                if group is None and task.flush_due:
                    self._begin_work(task.number)
                    await self._flush(task)
                    if self._failure is not None:
                        return
                    continue
                if group is None:
                    if task.has_progress() and self._opened_s is None:
                        self._open_epoch()
                    if self._is_finite:
                        self._due.set()
                    await self._wait_for(news, task)
                    continue
                self._begin_work(task.number)
                if self._opened_s is None:
                    self._open_epoch()
                point("session.dispatch")
                async with task.lock:
                    await task.step(group)
                self.records += len(group)
                if self.at_least_once:
                    await self._send_now(task)
                self._end_work(task.number)
                if self._closing:
                    self._rested.set()
                elif task.changes() >= CHANGES_MAX or task.staged_bytes() >= STAGED_BYTES_MAX:
                    self._opened_s = float("-inf")
                    self._due.set()
                    await asyncio.sleep(0)
                else:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)

    async def _flush(self, task: Task) -> None:
        """Have a task's agents hand out what they hold back, while its pump waits. The work was begun, and ends here."""
        try:
            async with task.lock:
                flushed = await task.flush_idle()
            if self.at_least_once:
                await self._send_now(task)
            if flushed and self._opened_s is None:
                self._open_epoch()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Before the work ends: who finds nobody at work any more must find why.
            self._fail(error)
        finally:
            self._end_work(task.number)
            self._rested.set()

    async def _wait_for(self, news: asyncio.Event, task: Task) -> None:
        """Wait for new records, and no longer than a task waits for inputs that lag, or lets a silent one hold its watermark."""
        align_s = self.plan.align_s if task.merge.waiting() else 0.0
        idle_s = task.time.idle_in_s()
        waits = [s for s in (align_s / 4, idle_s, WAIT_S if task.is_held else None) if s]
        if not waits:
            await news.wait()
            return
        try:
            await asyncio.wait_for(news.wait(), min(waits))
        except TimeoutError:
            return

    def _open_epoch(self) -> None:
        self._opened_s = SYSTEM_CLOCK.monotonic_s()
        self._due.set()

    def _due_s(self, opened_s: float) -> float:
        """Return when an epoch is due: counted from commit to commit, so that what waited for the last one isn't made to wait
        a whole one more, and what comes after a silence is committed at once.
        """
        return opened_s if opened_s < 0 else max(opened_s, self._committing_s + self.epoch_s)

    def _is_overdue(self) -> bool:
        """Tell whether an epoch should have ended, but the coordinator waits for something else, such as a log that is held.

        What tasks would take meanwhile makes the commit longer, others wait longer for theirs, and in the end it outlasts the lease.
        At least once, outputs don't wait for the epoch's end.
        """
        if self._opened_s is None or self.at_least_once:
            return False
        return SYSTEM_CLOCK.monotonic_s() > self._due_s(self._opened_s) + OVERDUE_S

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._rested.set()
        self._due.set()

    async def _send_now(self, task: Task) -> None:
        """At least once: outputs don't wait for the epoch."""
        appends = task.take_sends()
        if appends and self.log.send_waits:
            await asyncio.to_thread(self.log.send, appends)
        elif appends:
            self.log.send(appends)

    def _flush_idle(self) -> None:
        """When nothing has come for a while, have agents hand out what `take(within=…)` holds back."""
        waits = {
            task: wait_ms for task in self.tasks.values() if (wait_ms := task.holds_for_ms()) is not None
        }
        if not waits:
            self._flush_s = None
            return
        now_s = SYSTEM_CLOCK.monotonic_s()
        if self._flush_s is None:
            self._flush_s = now_s + min(waits.values()) / 1000
        if not self._is_finite and now_s < self._flush_s:
            return
        if self._cuts is not None or not self._ends.have_caught_up():
            self._flush_s = now_s + LOOK_AGAIN_S
            return
        self._flush_s = None
        for task in waits:
            if task.number in self._busy:
                self._flush_s = now_s + LOOK_AGAIN_S
                continue
            # Beside the coordinator: to wait for agents, however long they take, would be to leave the lease to itself.
            self._begin_work(task.number)
            self._flushes[task.number] = asyncio.create_task(self._flush(task))

    # Epochs

    def _is_due(self, now_s: float) -> bool:
        if self._opened_s is None:
            return False
        if now_s >= self._due_s(self._opened_s):
            return True
        # With nothing left to read there is nothing to gain by waiting where somebody waits for the end.
        return self._is_finite and not self._busy and self._ends.are_quiet()

    def _is_at_work(self) -> bool:
        """Tell whether a group is in hand, an epoch open, or a failure still to be raised."""
        return bool(self._busy) or self._failure is not None or self._has_progress()

    def _has_progress(self) -> bool:
        return any(task.has_progress() for task in self.tasks.values())

    async def _close_epoch(self, patience_s: float | None) -> None:
        """Commit what the tasks have done. With patience, agents that don't come to rest in time lose their epoch."""
        self._closing = True
        self._resume.clear()
        self._committing_s = SYSTEM_CLOCK.monotonic_s()
        try:
            await self._rest(patience_s)
            if self._failure is not None:
                raise self._failure
            await self._commit(goes_on=patience_s is None and not self._stopping)
        finally:
            if self._closing:
                self._go_on()

    def _go_on(self) -> None:
        """Let the pumps take what belongs to the next epoch."""
        self._opened_s = None
        self._closing = False
        self._resume.set()

    async def _rest(self, patience_s: float | None) -> None:
        """Wait until every pump rests, and keep the lease meanwhile: a record may take longer than that."""
        clock = SYSTEM_CLOCK
        deadline_s = None if patience_s is None else clock.monotonic_s() + patience_s
        next_beat_s = clock.monotonic_s() + self.lease_s / 3
        while self._busy and self._failure is None:
            now_s = clock.monotonic_s()
            if deadline_s is None and self._stopping:
                deadline_s = now_s + HANG_S
            if deadline_s is not None and now_s >= deadline_s:
                await self._abort(set(self._busy))
                return
            if (now_s >= next_beat_s or self._told) and self._member is not None:
                self._told = False
                assignment = await asyncio.to_thread(self._member.heartbeat)
                next_beat_s = clock.monotonic_s() + self.lease_s / 3
                if deadline_s is None and assignment.revoking:
                    # Another worker waits for these tasks; what hangs is aborted and done anew there.
                    deadline_s = now_s + HANG_S
                continue
            self._rested.clear()
            until_s = next_beat_s if deadline_s is None else min(next_beat_s, deadline_s)
            try:
                await asyncio.wait_for(self._rested.wait(), max(0.001, until_s - now_s))
            except TimeoutError:
                continue

    async def _abort(self, hanging: set[int]) -> None:
        """Drop tasks whose agents hang: nothing of their open epoch is kept; the log has their last one."""
        for number in hanging:
            names = ", ".join(r.agent.name for r in self.tasks[number].runners if not r.feed.parked)
            log_.warning(
                "task %d does not come to rest (agents: %s); its open epoch is aborted",
                number,
                names or "none",
            )
            await self._stop_pump(number)
            self._close_tasks([number])

    async def _commit(self, *, goes_on: bool) -> None:
        """Commit what the tasks have done; `goes_on`: they do what comes next while the log takes it."""
        tasks = [task for task in self.tasks.values() if task.has_progress()]
        if not tasks:
            return
        member = self._member
        assert member is not None
        point("epoch.collect")
        appends: list[Append] = []
        states: list[TaskState] = []
        changelogs: list[Callable[[], list[Append]]] = []
        for task in tasks:
            more, changelog, state = task.collect()
            appends += more
            changelogs.append(changelog)
            states.append(state)
        hint = self.positions.hint()
        now = max((s.time for s in states if s.time is not None), default=0)
        appends.append(self.positions.append(states, max(0, now)))
        places = {TopicPartition(self.positions.tasks, task.number): hint for task in tasks}
        for state in states:
            for name, offset in state.read.items():
                # What every task reads has no one position; each task's own is in its state.
                if not name.startswith(BROADCAST):
                    places[TopicPartition.parse(name)] = offset

        def commit() -> Placed:
            for changelog in changelogs:
                appends.extend(changelog())
            return self.log.commit(
                Transaction(appends, places, member, [task.number for task in tasks], self._divert)
            )

        if self.at_least_once:
            # Outputs first: an epoch that stands says that they are there. Those of the next one are sent once these are settled.
            appends += await asyncio.to_thread(self.log.settle, self._divert)
        # Not within `commit`: a stop sent from a thread lets that thread run on for a moment, into the log's transaction.
        point("epoch.before_log")
        if goes_on:
            self._go_on()
        placed = await asyncio.to_thread(commit)
        self.positions.committed(placed)
        point("epoch.between_log_and_store")
        for task in tasks:
            task.committed(placed)
            point("epoch.store_moved")
        self.epochs += 1
        self.tally.add(appends)
        point("epoch.committed")

    def _divert(self, append: Append, index: int, reason: str) -> Append | None:
        """Make a dead letter of an output that the log refuses for itself."""
        return outbox.diverted(append, index, reason, self.plan) if self.plan.dead_letters else None

    # Ends

    async def _all_done(self) -> bool:
        """Tell whether the whole group has come to its end: a bounded generation's, or that of what is there."""
        if self.plan.bounded:
            if await self._ends.end_shadows():
                self._tell()
                self.poke()
            return await self._ends.are_committed()
        if not self.until_idle or not self._ends.are_quiet():
            return False
        if not await asyncio.to_thread(self._ends.group_is_idle):
            return False
        return self.drain is None or await self._drained(self.drain)

    async def _drained(self, drain: Drain) -> bool:
        """Tell whether all inputs have ended; else the worker that has the first task ends those that come next."""
        states = await asyncio.to_thread(self.positions.load, range(self.plan.topology.tasks))
        ahead = drain.ahead(states)
        if not ahead:
            return True
        if 0 in self.tasks and not self._stopping:
            point("drain.before")
            await asyncio.to_thread(self.log.append, end_marks(ahead, states))
            log_.info("idle: %d partitions are given END-OF-TIME", len(ahead))
            point("drain.marked")
            self._tell()
        return False

    def as_error(self, error: BaseException) -> HeadwaterError:
        """Return a failure as an error people can act on."""
        if isinstance(error, HeadwaterError):
            return error
        return RecordFailedError(f"the worker failed: {type(error).__name__}: {error}")
