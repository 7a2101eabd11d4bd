"""App: faust's App with the engine in place of transport, conductor, consumer, producer and table manager.

Declarations and services (agents, topics, tables, timers, tasks, pages, commands, signals, sensors) are faust's. Nothing
happens at declaration: no folder is made, no log is opened.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from faust.app.base import SCAN_AGENT
from faust.app.base import App as FaustApp
from faust.utils import venusian

from headwater.app import agent as agents
from headwater.app import derive
from headwater.app.agent import Agent
from headwater.app.boot import BootStrategy
from headwater.app.declared import Declared, Tables
from headwater.app.derived import BEGIN as DERIVED
from headwater.app.derived import DerivedTopic
from headwater.app.global_table import GlobalTable as DeclaredGlobalTable
from headwater.app.joins import TableGroup, join_tables
from headwater.app.options import DEFAULTS, OWN, AppOptions, faust_environment, read_options
from headwater.app.refused import RefusedSignal, refuse_members
from headwater.app.set_table import SetTable as DeclaredSetTable
from headwater.app.stream import Stream
from headwater.app.table import Table as DeclaredTable
from headwater.app.table import check_table_options
from headwater.app.timer import event_timer
from headwater.app.topic import Topic
from headwater.app.windowed import WindowedTable, WindowSet
from headwater.core.errors import HeadwaterError, MisuseError, did_you_mean
from headwater.core.names import check_part
from headwater.core.place import users_line
from headwater.core.times import duration_ms
from headwater.stream.window import FixedWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from headwater.app.derived_table import DerivedTable
    from headwater.app.facts import Facts
    from headwater.app.owner import TableReader
    from headwater.stream.plan import StreamPlan


class App(FaustApp):
    """An app: what people declare, and what a worker runs.

    Options are those of AppOptions and those of faust's settings that still mean something (`app/options.py`); any other
    is an error that names the nearest.
    """

    BootStrategy = BootStrategy

    engine_class: ClassVar[Callable[[Any], Any] | None] = None
    """Makes the engine; handed over by the package root, so that this package knows no engine."""

    command_line: ClassVar[Callable[[Any], Any] | None] = None
    """Runs the command line for an app; handed over by the package root too."""

    def __init__(self, id: str, **options: Any) -> None:
        """Check the name and the options. Raises NameRefusedError and MisuseError."""
        self.id = check_part(id, "an app")
        service = {
            name: options.pop(name)
            for name in ("monitor", "config_source", "loop", "beacon")
            if name in options
        }
        self._given = options
        self._options, settings = read_options(options)
        self._engine: Any = None
        self._held: set[asyncio.Task[Any]] = set()
        self.run: Any = None
        super().__init__(id, **service, **settings)
        self.on_produce_message = RefusedSignal("App", "on_produce_message", "headers= of topic.send")  # type: ignore[assignment]
        self.declared = Declared(cast("dict[str, Agent]", self.agents.data))
        self._tables = Tables(self.declared)

    # -- settings

    @property
    def options(self) -> AppOptions:
        """The options for the engine."""
        self.conf  # noqa: B018  (a settings object may hold options of ours)
        return self._options

    def _load_settings(self, *, silent: bool = False) -> Any:
        given = dict(self._given)
        if self._config_source:
            source = self._load_settings_from_source(self._config_source, silent=silent)
            # A mapping is all settings; a module or class also holds names of its own.
            strict = isinstance(self._config_source, dict)
            read_options(source, strict=strict)
            known = {name for name in source if name in OWN or name in self.Settings.SETTINGS}
            given.update({name: source[name] for name in source if name in known})
        self._options, settings = read_options(given)
        return self.Settings(
            self.id, **{**DEFAULTS, **settings}, env=faust_environment(), env_prefix="HEADWATER"
        )

    # -- declarations

    def topic(self, *topics: str, **options: Any) -> Topic:
        """Declare a topic; several names are read as one stream of one type.

        Options: key_type, value_type, key_serializer, value_serializer ("json", "raw", "text"), partitions, external;
        event_time, lateness, max_jump, idle_after, keyed_by, hot (docs/guide/event-time.md); kafka (docs/operate.md).
        """
        _check_topic_options(topics, options)
        topic = Topic(self, topics=topics, **options)
        if len(topics) == 1:
            return self.declared.add_topic(topic)
        topic.members = tuple(
            self.declared.add_topic(Topic(self, topics=[name], **options)) for name in topics
        )
        return topic

    def topic_declared(self, name: str) -> Topic:
        """Return the declared topic of a name; one not declared yet is declared, for any JSON."""
        if name.startswith(DERIVED):
            return DerivedTopic(self, name)
        return self.declared.topics.get(name) or self.topic(name)

    def topic_named(self, name: str) -> Topic:
        """Return the declared topic of a name, else one for sending any JSON that stays undeclared."""
        if name.startswith(DERIVED):
            return DerivedTopic(self, name)
        return self.declared.topics.get(name) or Topic(self, topics=[name])

    def topic_named_or_none(self, name: str) -> Topic | None:
        """Return the declared topic of a name, or None."""
        return self.declared.topics.get(name)

    def agent(
        self,
        channel: Any = None,
        *,
        name: str | None = None,
        concurrency: int = 1,
        sink: Iterable[Any] | None = None,
        **options: Any,
    ) -> Callable[[Callable[[Any], Any]], Agent]:
        """Declare an agent over a topic, a topic's name, an unbound stream, or nothing (a topic `<app>-<agent>`).

        Options: retries, timeout_s, split, dead_letters, tables; and those of the topic where only its name is given.
        """
        if callable(channel) and not isinstance(channel, (Topic, Stream)):
            raise MisuseError("@app.agent needs brackets: @app.agent() or @app.agent(topic)")
        own, topic_options = agents.options_of(options)

        def declare(fun: Callable[[Any], Any]) -> Agent:
            agent = agents.declare(
                self,
                fun,
                channel,
                name=name,
                concurrency=concurrency,
                sink=sink,
                options=own,
                topic_options=topic_options,
            )
            self.declared.agents[agent.name] = agent
            venusian.attach(agent, category=SCAN_AGENT)
            return agent

        return declare

    actor = agent

    def stream(self, channel: Any, **kwargs: Any) -> Stream:  # type: ignore[override]
        """Return an unbound stream of a topic, or of a topic's name, to be given to an agent."""
        if kwargs:
            raise MisuseError(
                f"app.stream(…) takes a topic and no options; found {', '.join(sorted(kwargs))}"
            )
        if isinstance(channel, Stream):
            return channel
        if isinstance(channel, str):
            channel = self.topic_declared(channel)
        if not isinstance(channel, Topic):
            raise MisuseError(
                f"app.stream(…) takes a topic: what is read must be in the log; found {channel!r}"
            )
        return channel.stream()

    def Table(self, name: str, **options: Any) -> DeclaredTable:
        """Declare a table. Options: default, key_type, value_type, partitions, history, local, changelog, help."""
        check_table_options(name, options)
        table = DeclaredTable(self, name=name, number=len(self.declared.tables), **_kept(options))
        self.declared.add_table(table)
        return table

    def SetTable(self, name: str, **options: Any) -> DeclaredSetTable:
        """Declare a table of sets. Options: value_type (of the elements), key_type, partitions, history, local, help."""
        check_table_options(name, options)
        table = DeclaredSetTable(self, name=name, number=len(self.declared.tables), **_kept(options))
        self.declared.add_table(table)
        return table

    def GlobalTable(  # type: ignore[override]
        self, name: str, *, source: Any = None, **options: Any
    ) -> DeclaredGlobalTable:
        """Declare a table that every task has whole, made of a topic (or a stream of one): it is joined by any key."""
        if isinstance(source, (str, Topic)):
            source = self.stream(source)
        if not isinstance(source, Stream):
            raise MisuseError(
                f"GlobalTable({name!r}) at {users_line()} is made of a topic: source=app.topic(…); found {source!r}"
            )
        found: DeclaredGlobalTable = derive.table(source, name, options, DeclaredGlobalTable)
        return found

    def add_derived_table(
        self, cls: type[DerivedTable], name: str, options: dict[str, Any], **fixed: Any
    ) -> DerivedTable:
        """Add a table that an operator fills."""
        table = cls(self, name=name, number=len(self.declared.tables), **{**_kept(options), **fixed})
        self.declared.add_table(table)
        return table

    def stream_of(self, plan: StreamPlan, facts: Facts) -> Stream:
        """Return an unbound stream of a plan."""
        return Stream(self, plan, facts)

    def table_group(self, table: DeclaredTable, key: Any, key_type: Any = None) -> TableGroup:
        """Return a table's rows grouped by a key."""
        return TableGroup(table, key, key_type)

    def windowed_table(self, table: DeclaredTable, window: Any, expires: Any, grace: Any) -> WindowedTable:
        """Put a table of windows in a declared table's place."""
        where = f"table {table.name!r} at {users_line()}"
        if not isinstance(window, FixedWindow):
            raise MisuseError(
                f"{where}: takes Tumbling, Hopping or Calendar of headwater.windows; found {window!r}"
            )
        if type(table) is not DeclaredTable:
            raise MisuseError(
                f"{where}: {type(table).__name__} can't be made a table of windows; take app.Table(…)"
            )
        found = WindowedTable(
            self,
            window=window,
            grace_ms=duration_ms(grace, f"{where}: grace"),
            expires_ms=None if expires is None else duration_ms(expires, f"{where}: expires"),
            number=table.number,
            **{name: getattr(table, name) for name in ("name", *_TABLE_OPTIONS)},
        )
        self.declared.tables[table.name] = found
        derive.keep(found)
        return found

    def windows_of(self, table: DeclaredTable, key: Any) -> WindowSet:
        """Return the windows of a key."""
        return WindowSet(table, key)

    def join_tables(self, left: DeclaredTable, right: Any, options: dict[str, Any]) -> DerivedTable:
        """Return the table of two tables joined."""
        return join_tables(left, right, options)

    @property
    def tables(self) -> Tables:  # type: ignore[override]
        """The declared tables by name."""
        return self._tables

    def timer(  # type: ignore[override]
        self,
        interval: Any,
        *args: Any,
        name: str | None = None,
        event_time: bool = False,
        tables: Iterable[Any] | None = None,
        **options: Any,
    ) -> Callable[[Any], Any]:
        """Declare a function that is run every `interval` (seconds or a timedelta).

        By the wall clock, in each worker, outside epochs, as in faust; or with `event_time` in each task, for each multiple
        that its watermark passes, with that time in ms: it may write tables and send, as part of the epoch.
        """
        if not event_time:
            if tables is not None:
                raise MisuseError(
                    "app.timer(tables=…) is for event_time=True: elsewhere tables are read-only"
                )
            return super().timer(interval, *args, name=name, **options)  # type: ignore[no-any-return]
        given = dict(zip(("on_leader", "traced", "name", "max_drift_correction"), args, strict=False))

        def declare(fun: Any) -> Any:
            self.declared.add_timer(event_timer(fun, interval, name, tables, {**given, **options}))
            return fun

        return declare

    # -- the engine

    @property
    def engine(self) -> Any:
        """The engine, made at first use."""
        if self._engine is None:
            make = type(self).engine_class
            if make is None:
                raise HeadwaterError(
                    "App has no engine; import it from `headwater`, not from `headwater.app`"
                )
            self._engine = make(self)
        return self._engine

    def table_reader(self, table: DeclaredTable) -> TableReader:
        """Return a table's committed rows."""
        return self.engine.committed(table)  # type: ignore[no-any-return]

    def is_leader(self) -> bool:
        """Tell whether this worker runs what only one worker may run (`on_leader=True`): it holds the first task."""
        return bool(self.engine.is_leader())

    async def send(  # type: ignore[override]
        self,
        channel: Any,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        **options: Any,
    ) -> Any:
        """Send a record to a topic or to the topic of a name, as `topic.send` does."""
        topic = self.topic_named(channel) if isinstance(channel, str) else channel
        return await topic.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers, **options
        )

    def hold(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as an asyncio task that is awaited before the app stops."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._held.add(task)
        task.add_done_callback(self._held.discard)
        return task

    # -- services

    async def on_start(self) -> None:
        """Settle the settings; faust would set up its conductor and consumer here."""
        self.finalize()

    async def on_stop(self) -> None:
        """Finish sends under way, then do as faust."""
        if self._held:
            # Each send's error is its caller's, who holds the task; here they are only waited for.
            await asyncio.gather(*self._held, return_exceptions=True)
        await super().on_stop()

    async def _wait_for_table_recovery_completed(self) -> bool:
        # Tasks, timers and pages begin when tables are there. True: the app was stopped meanwhile.
        return bool(await self.wait_for_stopped(self.engine.wait_ready()))

    def _create_directories(self) -> None:
        """Make no folder: faust makes ./<app>-data; what Headwater keeps is in `state`."""

    def worker_init_post_autodiscover(self) -> None:
        """Set up the web server only if it is to run."""
        if self.conf.web_enabled and self._web_server_service is None:
            self.web.init_server()
        self.on_worker_init.send()

    def main(self) -> NoReturn:
        """Run the command line for this app: `app.main()` at the end of a module."""
        run = type(self).command_line
        if run is None:
            raise HeadwaterError(
                "App has no command line; import it from `headwater`, not from `headwater.app`"
            )
        self.finalize()
        self.worker_init()
        if getattr(self.conf, "autodiscover", False):
            self.discover()
        self.worker_init_post_autodiscover()
        run(self)
        raise SystemExit(0)

    def __repr__(self) -> str:
        return f"<App: {self.id} agents({', '.join(self.declared.agents)})>"

    @property
    def label(self) -> str:
        """The app's name, for people."""
        return f"App: {self.id}"


_TABLE_OPTIONS = ("default", "key_type", "value_type", "partitions", "history", "local", "changelog", "help")


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    """Return options without faust's that were given as nothing."""
    return {name: value for name, value in options.items() if name in _TABLE_OPTIONS}


_TOPIC_OPTIONS = (
    "key_type",
    "value_type",
    "key_serializer",
    "value_serializer",
    "partitions",
    "external",
    "event_time",
    "hot",
    "lateness",
    "max_jump",
    "idle_after",
    "keyed_by",
    "kafka",
)

_KEPT = "kafka={'retention.ms': …, 'cleanup.policy': …} on Kafka; else the log keeps what is not archived"

REFUSED_TOPIC_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "retention": ((None,), _KEPT),
    "compacting": ((None, False), _KEPT),
    "deleting": ((None, False), _KEPT),
    "replicas": ((None,), _KEPT),
    "config": ((None,), _KEPT),
    "pattern": ((None,), "the topics' names: what a task reads must be known before it starts"),
    "schema": ((None,), "key_type= and value_type="),
    "acks": ((None, True), "nothing: every record is acknowledged by the log"),
    "internal": ((None, False), "nothing: internal topics are the engine's"),
    "maxsize": ((None,), "buffer_bytes= of the app"),
    "allow_empty": ((None, False, True), "nothing: empty and null values are told apart"),
    "has_prefix": ((None, False), "nothing: names are taken as they are"),
    "loop": ((None,), "nothing: a topic runs nothing"),
}


def _check_topic_options(topics: tuple[Any, ...], options: dict[str, Any]) -> None:
    shown = repr(topics[0]) if topics else ""
    for name in list(options):
        if name in REFUSED_TOPIC_OPTIONS:
            neutral, instead = REFUSED_TOPIC_OPTIONS[name]
            if options.pop(name) not in neutral:
                raise MisuseError(f"topic {shown}: {name}=… is not there in Headwater; instead: {instead}")
        elif name not in _TOPIC_OPTIONS:
            raise MisuseError(f"topic {shown} has no option {name!r}{did_you_mean(name, _TOPIC_OPTIONS)}")
    for name in topics:
        if not isinstance(name, str):
            raise MisuseError(f"app.topic(…) takes names; found {name!r}")


_ENGINE = "the engine, which reads and writes the log itself (App(log=…))"
_SEND = "topic.send(…), which works inside agents, outside, and without a running app"
_GLOBAL = "app.Table(name, partitions=1), or reading a table outside agents"
_ROUTE = "a page of your own: a table outside agents has the rows of this worker's tasks"
_CLIENT = "nothing: topic.send works without a running app"

refuse_members(
    App,
    methods={
        "SetGlobalTable": _GLOBAL,
        "channel": "app.topic(name): what agents read must be in the log, or it could not be replayed",
        "table_route": _ROUTE,
        "topic_route": _ROUTE,
        "start_client": _CLIENT,
        "maybe_start_client": _CLIENT,
        "maybe_start_producer": _SEND,
        "commit": "nothing: positions, outputs and tables are committed together with the epoch",
        "create_event": "stream.events()",
        "LiveCheck": "`headwater verify`: it replays the archive and compares",
        "FlowControlQueue": "nothing: the engine bounds its buffers in bytes (buffer_bytes=)",
        "on_rebalance_start": _ENGINE,
        "on_rebalance_end": _ENGINE,
        "on_rebalance_return": _ENGINE,
    },
    properties={
        "topics": _ENGINE,
        "consumer": _ENGINE,
        "producer": _SEND,
        "transport": _ENGINE,
        "producer_transport": _ENGINE,
        "assignor": _ENGINE,
        "router": _ROUTE,
        "flow_control": "nothing: the engine bounds its buffers in bytes (buffer_bytes=)",
        "serializers": "value_type= and value_serializer= on app.topic(…)",
        "_fetcher": _ENGINE,
        "_leader_assignor": _ENGINE,
        "_reply_consumer": _ENGINE,
    },
)
