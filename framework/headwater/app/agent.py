"""Agent: the declaration of an agent: its function, what it reads, where its yields go, how it fails. Runs nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faust.agents.agent import Agent as FaustAgent
from mode import Service

from headwater.app.refused import refuse_members
from headwater.app.sink import Sink
from headwater.app.stream import Stream
from headwater.app.table import Table
from headwater.app.topic import Topic
from headwater.core.errors import MisuseError, TopologyError, did_you_mean
from headwater.core.names import check_part
from headwater.stream.plan import StreamPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater.app.owner import AppLike


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent fails and what it touches; None: as the app says."""

    retries: int | None = None
    timeout_s: float | None = None
    split: bool = False
    dead_letters: bool | None = None
    tables: tuple[Table, ...] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.retries is not None and (
            isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0
        ):
            raise MisuseError(f"agent(retries=…) is a whole number from 0; found {self.retries!r}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise MisuseError(f"agent(timeout_s=…) is a number of seconds above 0; found {self.timeout_s!r}")


class Agent(FaustAgent):
    """A declared agent. The engine makes one instance of its function for each task."""

    def __init__(
        self,
        fun: Callable[[Any], Any],
        *,
        app: AppLike,
        name: str,
        plan: StreamPlan,
        topic: Topic,
        sinks: Iterable[Any] = (),
        options: AgentOptions | None = None,
        help: str = "",
    ) -> None:
        """Take a checked declaration; see `declare`."""
        # Faust's own __init__ would keep actors and supervisors; an agent here is a declaration.
        Service.__init__(self)
        self.app = app  # type: ignore[assignment]
        self.fun = fun
        self.name = name
        self.help = help
        self.concurrency = 1
        self.plan = plan
        self.topic = topic
        self.options = options or AgentOptions()
        self.is_generator = inspect.isasyncgenfunction(fun)
        self.sinks: list[Any] = []
        for sink in sinks:
            self.add_sink(sink)

    @property
    def retries(self) -> int | None:
        """How often a failing record is handed out again; None: as the app says."""
        return self.options.retries

    @property
    def timeout_s(self) -> float | None:
        """How long a record may take; None: as the app says."""
        return self.options.timeout_s

    @property
    def split(self) -> bool:
        """Whether a list that failed is redone record by record."""
        return self.options.split

    @property
    def dead_letters(self) -> bool | None:
        """Whether a failing record goes to dead letters; None: as the app says."""
        return self.options.dead_letters

    @property
    def tables(self) -> tuple[Table, ...] | None:
        """The tables declared as touched; None: they are read from the code."""
        return self.options.tables

    @property  # type: ignore[misc]
    def channel(self) -> Topic:  # type: ignore[override]
        """The topic that `cast` sends to: the first the agent reads."""
        return self.topic

    @property  # type: ignore[misc]
    def channel_iterator(self) -> Topic:  # type: ignore[override]
        """The same as `channel`."""
        return self.topic

    def info(self) -> dict[str, Any]:
        """Return the declaration, by name."""
        return {
            "app": self.app,
            "fun": self.fun,
            "name": self.name,
            "channel": self.topic,
            "concurrency": 1,
            "help": self.help,
            "sinks": list(self.sinks),
        }

    async def on_start(self) -> None:
        """Start nothing: the engine runs an instance for each task."""

    async def on_stop(self) -> None:
        """Stop nothing: the engine runs an instance for each task."""

    def get_topic_names(self) -> Iterable[str]:
        """Return the names of the topics the agent reads."""
        return list(self.plan.topics)

    def add_sink(self, sink: Any) -> None:
        """Send what the agent yields there too: a topic, an agent, a function, or `hw.sink(…)`."""
        if not self.is_generator:
            raise TopologyError(f"agent {self.name!r} has a sink but no `yield`: nothing would ever go there")
        if isinstance(sink, str):
            sink = self._app.topic_named(sink)
        if not isinstance(sink, (Topic, Agent, Sink)) and not callable(sink):
            raise MisuseError(
                f"agent {self.name!r}: a sink is a topic, an agent, a function of one value or hw.sink(…); found {sink!r}"
            )
        if isinstance(sink, Topic) and len(sink.topics) != 1:
            raise MisuseError(f"agent {self.name!r}: {sink} stands for several topics; name one as the sink")
        self.sinks.append(sink)

    async def cast(
        self,
        value: Any = None,
        *,
        key: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
    ) -> None:
        """Send a value to the agent's topic and expect no answer."""
        await self.topic.send(key=key, value=value, partition=partition, timestamp=timestamp, headers=headers)

    async def send(
        self,
        *,
        key: Any = None,
        value: Any = None,
        partition: int | None = None,
        timestamp: float | None = None,
        headers: Any = None,
        **refused: Any,
    ) -> Any:
        """Send a record to the agent's topic."""
        for option in ("reply_to", "correlation_id"):
            if refused.pop(option, None) is not None:
                raise MisuseError(
                    f"agent.send({option}=…) is not there: agents don't reply; read a sink topic instead"
                )
        return await self.topic.send(
            key=key, value=value, partition=partition, timestamp=timestamp, headers=headers, **refused
        )

    @property
    def _app(self) -> Any:
        return self.app

    def __repr__(self) -> str:
        return f"<Agent: {self.name} reads {', '.join(self.plan.topics)}>"

    @property
    def label(self) -> str:
        """The agent's name, for people."""
        return f"Agent: {self.name}"

    @property
    def shortlabel(self) -> str:
        """The agent's name, for people."""
        return self.label


def declare(
    app: Any,
    fun: Callable[[Any], Any],
    channel: Any,
    *,
    name: str | None,
    concurrency: int,
    sink: Iterable[Any] | None,
    options: AgentOptions,
    topic_options: dict[str, Any],
) -> Agent:
    """Check a declaration and return the agent. Raises MisuseError or TopologyError."""
    if not (inspect.iscoroutinefunction(fun) or inspect.isasyncgenfunction(fun)):
        raise MisuseError(
            f"@app.agent goes over an `async def` function that takes the stream; found {getattr(fun, '__name__', fun)!r}"
        )
    found = check_part(name or fun.__name__, "an agent")
    if found in app.declared.agents:
        other = app.declared.agents[found]
        raise TopologyError(
            f"two agents are named {found!r} ({_place(other.fun)} and {_place(fun)}); give one of them name=…"
        )
    app.declared.check_free(found)
    if concurrency != 1:
        raise MisuseError(
            f"agent {found!r}: concurrency={concurrency} would reorder records of one key; "
            "give the topic more partitions and run `worker --processes N`: one instance runs for each partition"
        )
    topic, plan = _input_of(app, found, channel, topic_options)
    return Agent(
        fun,
        app=app,
        name=found,
        plan=plan,
        topic=topic,
        sinks=sink or (),
        options=options,
        help=inspect.getdoc(fun) or "",
    )


def _input_of(app: Any, name: str, channel: Any, topic_options: dict[str, Any]) -> tuple[Topic, StreamPlan]:
    if channel is None:
        channel = f"{app.id}-{name}"
    elif not isinstance(channel, str) and topic_options:
        raise MisuseError(
            f"agent {name!r}: {', '.join(sorted(topic_options))} belong to app.topic(…) where the agent is given a topic"
        )
    if isinstance(channel, str):
        topic = app.topic(channel, **topic_options) if topic_options else app.topic_declared(channel)
        return topic, StreamPlan(tuple(topic.topics))
    if isinstance(channel, Topic):
        return channel, StreamPlan(tuple(channel.topics))
    if isinstance(channel, Stream):
        return app.topic_declared(channel.plan.topics[0]), channel.plan
    raise MisuseError(f"agent {name!r} reads a topic, a topic's name or a stream; found {channel!r}")


def options_of(given: dict[str, Any]) -> tuple[AgentOptions, dict[str, Any]]:
    """Split what @app.agent was given into the agent's options and those of its topic. Raises MisuseError."""
    own: dict[str, Any] = {}
    topic: dict[str, Any] = {}
    for name, value in given.items():
        if name in _OWN:
            own[name] = value
        elif name in _TOPIC:
            topic[name] = value
        elif name in REFUSED_AGENT_OPTIONS:
            neutral, instead = REFUSED_AGENT_OPTIONS[name]
            if value not in neutral:
                raise MisuseError(
                    f"agent({name}=…) is faust's and is not there in Headwater; instead: {instead}"
                )
        else:
            raise MisuseError(
                f"agent has no option {name!r}{did_you_mean(name, (*_OWN, *_TOPIC, 'name', 'sink'))}"
            )
    tables = own.get("tables")
    if tables is not None:
        tables = tuple(tables)
        for table in tables:
            if not isinstance(table, Table):
                raise MisuseError(f"agent(tables=…) takes tables of the app; found {table!r}")
        own["tables"] = tables
    return AgentOptions(**own), topic


_OWN = ("retries", "timeout_s", "split", "dead_letters", "tables")
_TOPIC = (
    "key_type",
    "value_type",
    "key_serializer",
    "value_serializer",
    "partitions",
    "event_time",
    "hot",
    "lateness",
    "max_jump",
    "idle_after",
    "keyed_by",
)

REFUSED_AGENT_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "supervisor_strategy": ((None,), "retries=, timeout_s= and dead_letters="),
    "isolated_partitions": ((False,), "nothing: an instance runs for each partition anyway"),
    "use_reply_headers": ((None, True), "a sink topic: agents don't reply"),
    "schema": ((None,), "key_type= and value_type="),
    "on_error": ((None,), "try in the agent's body; what is raised is retried, then goes to dead letters"),
}


def _place(fun: Any) -> str:
    return f"{getattr(fun, '__module__', '?')}.{getattr(fun, '__qualname__', fun)}"


_REPLY = "agent.cast(value) and a sink topic that carries the answers: agents don't reply"
_ENGINE = "nothing: the engine runs an instance for each task and restarts it"
_TEST = "an app on memory:// (log=, state=), as the tests of the examples do"

refuse_members(
    Agent,
    methods={
        "ask": _REPLY,
        "ask_nowait": _REPLY,
        "map": _REPLY,
        "kvmap": _REPLY,
        "join": _REPLY,
        "kvjoin": _REPLY,
        "__call__": _TEST,
        "test_context": _TEST,
        "clone": "@app.agent(…, name=…) again over the same function",
        "stream": "topic.stream()",
        "actor_from_stream": _ENGINE,
        "actor_tracebacks": _ENGINE,
        "cancel": _ENGINE,
        "on_partitions_revoked": _ENGINE,
        "on_partitions_assigned": _ENGINE,
        "on_isolated_partitions_revoked": _ENGINE,
        "on_isolated_partitions_assigned": _ENGINE,
        "on_shared_partitions_revoked": _ENGINE,
        "on_shared_partitions_assigned": _ENGINE,
    },
    properties={
        "isolated_partitions": "nothing: each task has an instance of its own",
        "supervisor": "retries=, timeout_s= and dead_letters=",
        "supervisor_strategy": "retries=, timeout_s= and dead_letters=",
        "use_reply_headers": _REPLY,
    },
)
