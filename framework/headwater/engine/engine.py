"""The engine: the service that an app starts in place of faust's transport, conductor, consumer, producer and tables.

It opens log and archive, decides which generation to run, and runs a session of it; when the pointer moves it begins
another. Outside agents it answers for the app: sends, committed tables, tables as of a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mode import Service

from headwater.archive import open_archive
from headwater.core.batch import Append
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import GenerationError, LogInterruptedError, TopologyError
from headwater.core.names import group_of, internal_topic
from headwater.core.partitioner import partition_of
from headwater.core.settings import Settings
from headwater.core.times import duration_ms, parse_time
from headwater.engine.assemble import Assembly
from headwater.engine.committed import CommittedRows, as_of_rows
from headwater.engine.control import Control
from headwater.engine.drain import Drain
from headwater.engine.generation import DISCARDED, LIVE, RUNNING, Generation
from headwater.engine.loops import topics_written
from headwater.engine.options import RunOptions
from headwater.engine.pace import Pace
from headwater.engine.plan import RunPlan
from headwater.engine.positions import Positions
from headwater.engine.probe import nodes_of
from headwater.engine.runner import Relearn
from headwater.engine.session import BACK_OFF_MAX_S, BACK_OFF_MIN_S, Session
from headwater.engine.slot import Slot
from headwater.engine.timer import place_timers
from headwater.engine.topology import AgentSpec, Topology, build_topology, check_same
from headwater.engine.watermarked import watermarked
from headwater.log import open_log
from headwater.stream.operator import OUT, OperatorSpec
from headwater.table.part import TablePart

if TYPE_CHECKING:
    from headwater.app.app import App
    from headwater.archive.archive import Archive
    from headwater.core.batch import Headers
    from headwater.engine.topology import Node
    from headwater.log.interface import Log

log_ = logging.getLogger(__name__)

EPOCH_LIVE_S = 0.1
EPOCH_REPLAY_S = 1.0


class RecordMetadata:
    """Where a record sent outside agents was written."""

    __slots__ = ("offset", "partition", "timestamp", "topic")

    def __init__(self, topic: str, partition: int, offset: int, timestamp: int) -> None:
        """Name the place; the timestamp is ms since 1970 UTC."""
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp = timestamp

    def __repr__(self) -> str:
        return f"RecordMetadata({self.topic}/{self.partition}@{self.offset})"


class Engine(Service):
    """Runs an app's agents. `finished` is set when it has come to its end; `error` says why, where it failed."""

    def __init__(self, app: App) -> None:
        """Open nothing yet."""
        super().__init__()
        self.app = app
        self.finished = asyncio.Event()
        self.error: BaseException | None = None
        self.session: Session | None = None
        self._ready = asyncio.Event()
        self._log: Log | None = None
        self._archive: Archive | None = None
        self._learned: dict[str, frozenset[str]] = {}
        self._stopping = False
        self._told_to_stop = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    # What the app asks

    @property
    def settings(self) -> Settings:
        """Where log, archive and state lie, for this app."""
        run = self.app.run
        if run is not None and run.settings is not None:
            return run.settings  # type: ignore[no-any-return]
        options = self.app.options
        return Settings.resolve(
            None,
            {"log": options.log, "archive": options.archive, "state": options.state},
            archive_options=options.archive_options,
            kafka=options.kafka,
        )

    @property
    def log_client(self) -> Log:
        """The log, opened at first use."""
        if self._log is None:
            settings = self.settings
            self._log = open_log(settings.log, settings.kafka)
        return self._log

    @property
    def archive(self) -> Archive:
        """The archive of this very log, opened at first use."""
        if self._archive is None:
            self._archive = open_archive(
                self.settings.archive, self.log_client.log_id, self.settings.archive_options
            )
        return self._archive

    def control(self) -> Control:
        """The app's generations."""
        return Control(self.log_client, self.archive, self.app.id)

    async def send_outside(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: int | None,
        headers: Headers,
    ) -> RecordMetadata:
        """Append one record outside epochs, at least once, and return where it is."""
        stamp = SYSTEM_CLOCK.now_ms() if timestamp is None else timestamp

        def append() -> RecordMetadata:
            count = self.ensure_topic(topic)
            number = partition
            if number is None:
                number = 0 if key is None else partition_of(key, count)
            bases = self.log_client.append(
                [Append(topic, number, [stamp], [key], [value], [headers])], atomic=False
            )
            return RecordMetadata(topic, number, next(iter(bases.values())), stamp)

        return await asyncio.to_thread(append)

    def committed(self, table: Any) -> CommittedRows:
        """Return the committed rows of a table's parts that this worker holds."""
        tasks = [] if self.session is None else list(self.session.tasks.values())
        parts = [part for task in tasks if isinstance(part := task.parts.get(table.name), TablePart)]
        return CommittedRows(table, parts)

    def as_of(self, table: Any, time: Any) -> dict[Any, Any]:
        """Return a table's rows as they stood at an instant: {decoded key: decoded value}."""
        time_ms = time if isinstance(time, int) else parse_time(str(time), now_ms=SYSTEM_CLOCK.now_ms())
        control = self.control()
        name = self.session.plan.generation if self.session is not None else control.pointer()
        return as_of_rows(
            self.log_client, self.archive, self.app.id, control.generation(name), table, time_ms
        )

    def is_leader(self) -> bool:
        """Tell whether this worker holds the first task: what only one worker may run, runs there."""
        return self.session is not None and 0 in self.session.tasks

    def ensure_topic(self, topic: str, declared: str | None = None) -> int:
        """Return a topic's partition count; make it where it is missing, as declared, else with the app's number."""
        log = self.log_client
        info = log.topic(topic)
        known = self.app.declared.topics.get(declared or topic)
        config = {} if known is None else known.kafka
        if info is not None:
            if config and declared in (None, topic):
                log.create_topic(topic, info.partitions, config)  # it is there: only looked at
            return info.partitions
        count = None
        if declared is not None and declared != topic:
            base = log.topic(declared)
            count = base.partitions if base is not None else None
        if count is None and known is not None:
            count = known.partitions
        return log.create_topic(topic, count or self.app.options.partitions, config).partitions

    # Life

    async def on_start(self) -> None:
        """Begin to run."""
        self._main = asyncio.create_task(self._run())

    async def wait_ready(self) -> None:
        """Return when the first tasks are recovered, or the engine has ended."""
        ended = asyncio.create_task(self.finished.wait())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        for waiter in (ended, ready):
            waiter.cancel()

    def stop_soon(self) -> None:
        """Finish the open epoch and leave the group; whatever is waited for, isn't any longer."""
        self._stopping = True
        self._told_to_stop.set()
        if self.session is not None:
            self.session.stop()

    async def on_stop(self) -> None:
        """Finish the open epoch, leave the group, close everything."""
        self.stop_soon()
        if self._main is not None:
            await asyncio.wait([self._main], timeout=9)
            self._main.cancel()
            await asyncio.wait([self._main], timeout=1)
        if self._archive is not None:
            self._archive.close()
        if self._log is not None:
            self._log.close()

    async def _run(self) -> None:
        wait_s = BACK_OFF_MIN_S
        try:
            while not self._stopping:
                try:
                    if not await self._run_session():
                        return
                    wait_s = BACK_OFF_MIN_S
                except LogInterruptedError as error:
                    options = self.app.run or RunOptions()
                    if options.until_idle and self._log is None:
                        raise  # whoever waits for the end is told at once that there is no log
                    log_.warning("%s; trying again in %.1f s", error, wait_s)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._told_to_stop.wait(), wait_s)
                    wait_s = min(BACK_OFF_MAX_S, 2 * wait_s)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = error
        finally:
            self.finished.set()

    async def _run_session(self) -> bool:
        """Run one session; tell whether another is to follow (the pointer moved, or the topology was learnt anew)."""
        options = self.app.run or RunOptions()
        control = await asyncio.to_thread(self.control)
        pointer = await asyncio.to_thread(control.pointer)
        name = options.generation or pointer
        specs = await nodes_of(self.app, self._learned)
        if not specs:
            raise TopologyError(f"app {self.app.id!r} declares no agents; nothing would run")
        slot = await asyncio.to_thread(Slot, self.settings.state, self.app.id, name)
        try:
            session = await asyncio.to_thread(
                self._prepare, control, name, name == pointer, specs, slot, options
            )
            self.session = session
            follower = asyncio.create_task(self._follow_pointer(control, session, options))
            try:
                if self._stopping:
                    return False
                await session.run()
            except Relearn:
                return True
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                raise session.as_error(error) from error
            finally:
                follower.cancel()
                await asyncio.wait([follower])
            if session.plan.bounded and not self._stopping:
                await asyncio.to_thread(self._finish, control, session)
            return session.switch
        finally:
            slot.close()

    def _prepare(
        self,
        control: Control,
        name: str,
        promoted: bool,
        specs: list[Node],
        slot: Slot,
        options: RunOptions,
    ) -> Session:
        app, log = self.app, self.log_client
        if options.drain and not promoted:
            raise GenerationError(
                f"generation {name!r} is not promoted, and --drain would end the inputs of all generations; drain the promoted "
                "one, or use `headwater replay --drain`, which leaves the inputs as they are"
            )
        windowed = [table.name for table in app.declared.tables.values() if table.windowed]
        topology = build_topology(app.id, name, specs, self.ensure_topic, windowed)
        place_timers(app, topology, self._learned)
        written = frozenset(topics_written(app.declared, (spec.name for spec in specs)))

        def ensure(topic: str, declared: str) -> int:
            late = topology.late_topics.get(topic)
            return (
                self.ensure_topic(topic, declared)
                if late is None
                else log.create_topic(topic, late).partitions
            )

        generation = self._generation(control, name, topology, written)
        # Readers see it, so what comes after its end is its to process: from there it is a live run.
        goes_on = promoted and generation.is_bounded and generation.state != RUNNING
        bounds = {
            place: (start or 0, None if goes_on else end) for place, (start, end) in generation.bounds.items()
        }
        in_history = bool(bounds) and not goes_on
        plan = RunPlan(
            app=app.id,
            generation=name,
            promoted=promoted,
            topology=topology,
            names=generation.names,
            external=frozenset(
                t.name for t in app.declared.topics.values() if len(t.topics) == 1 and t.external
            ),
            total_order=generation.order == "time" and not generation.follow and not goes_on,
            dead_letters=app.options.dead_letters,
            bounds=bounds,
            time_from=generation.time_from if in_history else None,
            time_until=generation.time_until if in_history else None,
            ensure=ensure,
            align_s=app.options.align_s,
            watermarked=watermarked(app, topology),
            drain=in_history and generation.drain,
            holds={
                topology.virtual[OUT + spec.name]: spec.hold_ms
                for spec in specs
                if isinstance(spec, OperatorSpec) and OUT + spec.name in topology.virtual
            },
        )
        positions = Positions(log, app.id, name, self.archive)
        positions.create(topology.tasks)
        for topic, count in topology.repartition_topics.items():
            log.create_topic(topic, count)
        log.create_topic(plan.dead_topic, 1)
        for sub in topology.subs:
            for table in (*sub.tables, *sub.states):
                log.create_topic(plan.changelog_topic(table), sub.partitions)
        for topic in written:
            plan.partitions_of(plan.output_topic(topic), topic)
        assembly = Assembly(
            app, log, self.archive, plan,
            {spec.name: spec.plan for spec in specs if isinstance(spec, AgentSpec)}, slot.url,
            allow_gaps=options.allow_gaps, written=written, touch=self._touch,
        )  # fmt: skip
        ahead = app.options.ahead
        pace = Pace(
            plan,
            ahead_ms=None if ahead is None else duration_ms(ahead, "App(ahead=…)"),
            bytes_max=app.options.buffer_bytes // 4,
        )
        # One that follows is live for all but its beginning, and more so once it is promoted.
        epoch_s = options.epoch_s or app.options.epoch_s or (EPOCH_REPLAY_S if plan.bounded else EPOCH_LIVE_S)
        session = Session(
            log, plan, positions, assembly, epoch_s=epoch_s, lease_s=app.options.lease_s,
            until_idle=options.until_idle, ready=self._ready, at_least_once=app.options.guarantee == "at_least_once",
            drain=Drain(app, topology) if options.drain else None, pace=pace if pace.is_needed else None,
            name=slot.id, process=slot.number,
        )  # fmt: skip
        if generation.order == "live" and in_history:
            session.repeat_cuts_of(self.archive, generation.parent or LIVE)
        return session

    def _generation(
        self, control: Control, name: str, topology: Topology, written: frozenset[str]
    ) -> Generation:
        """Return the generation's metadata, written at its first start; refuse one that doesn't fit."""
        found = control.generations().get(name)
        if found is not None and found.state == DISCARDED and name != LIVE:
            raise GenerationError(f"generation {name!r} was discarded; replay again under another name")
        if found is not None and found.topology:
            if found.topology != topology.describe() and not self._has_committed(name):
                # Nothing was made under the other topology yet: it gives way.
                found = replace(found, topology={})
            else:
                check_same(topology, found.topology, name)
                return found
        names = [name for sub in topology.subs for name in (*(r.name for r in sub.readers), *sub.timers)]
        topics = sorted(
            {*topology.source_topics, *topology.repartition_topics, *topology.late_topics, *written}
        )
        shadows = [internal_topic(self.app.id, name, "out", topic) for topic in sorted(written)]
        described = {
            "topology": topology.describe(),
            "names": [*names, *topics, *shadows],
            "fingerprint": f"{topology.fingerprint()}-{self._code_fingerprint()}",
        }
        if found is None:
            found = Generation(
                name, self.app.id, state=RUNNING, order="live", follow=True, created_ms=SYSTEM_CLOCK.now_ms()
            )
        generation = replace(found, **described)  # type: ignore[arg-type]
        control.put(generation)
        return generation

    def _has_committed(self, generation: str) -> bool:
        return bool(self.log_client.positions(group_of(self.app.id, generation)))

    def _code_fingerprint(self) -> str:
        """Return a digest of the agents' source text, for people to see that logic differs."""
        parts = []
        for agent in self.app.declared.agents.values():
            try:
                parts.append(inspect.getsource(agent.fun))
            except (OSError, TypeError):
                parts.append(agent.name)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _touch(self, agent: str, table: Any) -> TablePart:
        """An agent reached a table that its code didn't show: learn it, and do the epoch anew with the right topology."""
        self._learned[agent] = self._learned.get(agent, frozenset()) | {table.name}
        log_.info(
            "agent touches a table unseen by its code; the topology is made anew", extra={"table": table.name}
        )
        raise Relearn(f"agent {agent!r} touches table {table.name!r}")

    def _finish(self, control: Control, session: Session) -> None:
        """Note that a bounded generation has come to its end."""
        name = session.plan.generation
        found = control.generation(name)
        if found.state == RUNNING:
            ends = {place: end for place, (_, end) in session.plan.bounds.items()}
            control.put(replace(found, state="finished", finished_ms=SYSTEM_CLOCK.now_ms(), ends=ends))

    async def _follow_pointer(self, control: Control, session: Session, options: RunOptions) -> None:
        """Have the session end when the pointer moves to another generation, unless told which one to run."""
        if options.generation is not None:
            return
        seen: int | None = None
        while True:
            await asyncio.sleep(0.5)
            version = self.log_client.version()
            if version == seen:
                continue
            seen = version
            try:
                pointer = await asyncio.to_thread(control.pointer)
            except LogInterruptedError:
                seen = None  # asked again, once the log answers; the session says what is wrong
                continue
            if pointer != session.plan.generation:
                log_.info("another generation is promoted; switching", extra={"generation": pointer})
                session.switch = True
                session.stop()
                return
