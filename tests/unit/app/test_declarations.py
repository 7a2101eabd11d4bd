"""What may be declared, and what each wrong declaration says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import faust
import pytest

import headwater as hw
from headwater.app.agent import Agent
from headwater.app.topic import Topic
from headwater.core.errors import AgentStoppedError, NameRefusedError
from headwater.stream.plan import StreamPlan


class Click(hw.Record):
    user: str
    amount: float


@pytest.fixture
def app() -> hw.App:
    return hw.App("clicks")


async def nothing(stream: Any) -> None:
    async for _ in stream:
        pass


async def echo(stream: Any) -> Any:
    async for value in stream:
        yield value


def test_the_classes_are_fausts_in_name_and_in_fact(app: hw.App) -> None:
    topic = app.topic("a")
    assert isinstance(app, faust.App)
    assert isinstance(topic, faust.Topic)
    assert isinstance(topic.stream(), faust.Stream)
    assert isinstance(app.Table("t"), faust.Table)
    assert isinstance(app.SetTable("s"), faust.SetTable)
    assert isinstance(app.agent(topic)(nothing), faust.Agent)
    assert issubclass(hw.Event, faust.Event)


def test_declaring_builds_nothing_of_fausts_engine_and_makes_no_folder(
    app: hw.App, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "_new_transport",
        "_new_producer_transport",
        "_new_conductor",
        "_new_consumer",
        "_new_producer",
    ):
        monkeypatch.setattr(faust.App, name, lambda *_, **__: pytest.fail("faust's engine was built"))
    app.agent(app.topic("a"))(nothing)
    app.Table("t", default=int)
    app.finalize()
    app._create_directories()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["topics", "consumer", "producer", "transport", "producer_transport", "assignor", "_fetcher", "router"],
)
def test_fausts_engine_can_not_be_had(app: hw.App, name: str) -> None:
    with pytest.raises(hw.HeadwaterError, match=rf"App\.{name} is faust's .* instead: "):
        getattr(app, name)


def test_an_app_boots_sensors_and_the_engine_alone(app: hw.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hw.App, "engine_class", staticmethod(lambda app: f"engine of {app.id}"))
    assert [str(service) for service in app.boot_strategy.server()] == ["engine of clicks"]


def test_the_web_is_off_and_its_address_this_machine(app: hw.App) -> None:
    assert app.conf.web_enabled is False
    assert app.conf.web_bind == "127.0.0.1"


def test_agents_topics_and_tables_are_listed_in_order(app: hw.App) -> None:
    b, a = app.topic("b", value_type=Click), app.topic("a")
    t2, t1 = app.Table("t2"), app.Table("t1")
    second = app.agent(b, name="second")(nothing)
    first = app.agent(a, name="first")(nothing)
    assert list(app.declared.topics.items()) == [("b", b), ("a", a)]
    assert list(app.tables.items()) == [("t2", t2), ("t1", t1)]
    assert [table.number for table in app.tables.values()] == [0, 1]
    assert dict(app.agents) == app.declared.agents == {"second": second, "first": first}


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(hw.MisuseError, match=r"App has no option 'guarante'; did you mean 'guarantee'"):
        hw.App("x", guarante="exactly_once")


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("broker", "log="),
        ("store", "state="),
        ("processing_guarantee", "guarantee="),
        ("version", "generations"),
        ("reply_to", "don't reply"),
        ("datadir", "state="),
        ("env_prefix", "HEADWATER_"),
        ("Table", "subclass of headwater.App"),
    ],
)
def test_a_refused_setting_names_its_replacement(option: str, instead: str) -> None:
    with pytest.raises(hw.MisuseError, match=rf"App\({option}=…\) is faust's and is not there .*{instead}"):
        hw.App("x", **{option: "kafka://x"})


@pytest.mark.parametrize(
    "options",
    [
        {"guarantee": "maybe"},
        {"retries": -1},
        {"retries": True},
        {"partitions": 0},
        {"epoch_s": 0},
        {"timeout_s": float("nan")},
        {"log": ""},
        {"dead_letters": 1},
        {"partitions": 2, "topic_partitions": 3},
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(hw.MisuseError, match=rf"App\({next(iter(options))}=…\)"):
        hw.App("x", **options)


def test_options_reach_the_engine_under_our_names() -> None:
    app = hw.App("x", log="memory://x", guarantee="at_least_once", topic_partitions=7, debug=True)
    assert (app.options.log, app.options.guarantee, app.options.partitions) == (
        "memory://x",
        "at_least_once",
        7,
    )
    assert app.conf.debug is True


def test_settings_may_come_from_an_object_and_are_checked_alike() -> None:
    app = hw.App("x")
    app.config_from_object({"retries": 5, "debug": True})
    assert (app.options.retries, app.conf.debug) == (5, True)
    other = hw.App("y", config_source={"brokr": 1})
    with pytest.raises(hw.MisuseError, match="no option 'brokr'"):
        _ = other.options


def test_fausts_bare_environment_names_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "kafka://elsewhere")
    monkeypatch.setenv("WEB_PORT", "1234")
    monkeypatch.setenv("HEADWATER_BROKER_URL", "kafka://elsewhere")
    monkeypatch.setenv("HEADWATER_NODE_PORT", "1235")
    monkeypatch.setenv("HEADWATER_WEB_PORT", "1236")
    conf = hw.App("x").conf
    assert "elsewhere" not in str(conf.broker)
    assert conf.web_port != 1234


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä"])
def test_names_with_other_letters_are_refused(name: str, app: hw.App) -> None:
    with pytest.raises(NameRefusedError):
        hw.App(name)
    with pytest.raises(NameRefusedError):
        app.Table(name)
    if name:
        with pytest.raises(NameRefusedError):
            app.agent("t", name=name)(nothing)


@pytest.mark.parametrize("name", ["clicks.control", "clicks.live.dead", "clicks.v2.changelog.t", "a/b", ""])
def test_a_topic_that_would_pass_for_an_internal_one_is_refused(name: str, app: hw.App) -> None:
    with pytest.raises(NameRefusedError):
        app.topic(name)


def test_two_agents_alike_need_names(app: hw.App) -> None:
    app.agent("a")(nothing)
    with pytest.raises(
        hw.TopologyError, match=r"two agents are named 'nothing' \(.*\); give one of them name="
    ):
        app.agent("b")(nothing)
    assert app.agent("b", name="other")(nothing).name == "other"


def test_two_tables_alike_are_refused(app: hw.App) -> None:
    app.Table("t")
    with pytest.raises(hw.TopologyError, match="two tables are named 't'"):
        app.SetTable("t")


def test_one_topic_declared_twice_must_be_declared_alike(app: hw.App) -> None:
    topic = app.topic("a", value_type=Click)
    assert app.topic("a", value_type=Click) is topic
    with pytest.raises(
        hw.TopologyError, match=r"topic 'a' is declared twice, with value_type .*Click.* and None"
    ):
        app.topic("a")


def test_an_agent_may_be_given_a_name_a_topic_a_stream_or_nothing(app: hw.App) -> None:
    topic = app.topic("a", value_type=Click)
    grouped = topic.group_by("user", name="users", partitions=2)

    def plan(channel: Any, name: str) -> StreamPlan:
        return app.agent(channel, name=name)(nothing).plan

    assert plan("a", "one") == plan(topic, "two") == StreamPlan(("a",))
    assert plan(grouped, "three") == grouped.plan
    assert plan(app.stream(topic).filter(bool), "four").before[0].function is bool
    assert plan(None, "five") == StreamPlan(("clicks-five",))
    assert app.declared.agents["three"].channel is topic


def test_several_topics_are_read_as_one(app: hw.App) -> None:
    both = app.topic("a", "b", value_type=Click)
    agent = app.agent(both)(nothing)
    assert agent.plan == StreamPlan(("a", "b"))
    assert [app.declared.topics[name].value_type for name in "ab"] == [Click, Click]
    with pytest.raises(hw.MisuseError, match="stands for several topics"):
        _ = both.name


@pytest.mark.parametrize("wrong", [5, object(), ["a"], iter(())])
def test_an_agent_reads_nothing_else(wrong: Any, app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match="reads a topic, a topic's name or a stream"):
        app.agent(wrong)(nothing)


def test_an_agent_is_an_async_function(app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match="needs brackets"):
        app.agent(nothing)
    with pytest.raises(hw.MisuseError, match="async def"):
        app.agent("a")(lambda stream: None)


def test_concurrency_is_refused_with_what_to_do(app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match=r"concurrency=4 .* more partitions .*--processes"):
        app.agent("a", concurrency=4)(nothing)


def test_how_an_agent_fails_is_declared(app: hw.App) -> None:
    table = app.Table("t")
    agent = app.agent("a", retries=0, timeout_s=1.5, split=True, dead_letters=False, tables=[table])(nothing)
    assert (agent.retries, agent.timeout_s, agent.split, agent.dead_letters) == (0, 1.5, True, False)
    assert agent.tables == (table,)
    plain = app.agent("a", name="plain")(nothing)
    assert (plain.retries, plain.timeout_s, plain.split, plain.dead_letters, plain.tables) == (
        None,
        None,
        False,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": 1}, "agent has no option 'retry'; did you mean 'retries'"),
        ({"retries": -1}, "retries"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"supervisor_strategy": object}, "retries=, timeout_s= and dead_letters="),
        ({"tables": ["t"]}, "takes tables of the app"),
    ],
)
def test_a_wrong_option_of_an_agent_is_named(options: dict[str, Any], message: str, app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match=message):
        app.agent("a", **options)(nothing)


def test_sinks_are_topics_agents_and_functions(app: hw.App) -> None:
    out = app.topic("out")
    reader = app.agent(out)(nothing)
    noted = hw.sink(print, replay="emit")
    agent = app.agent("a", sink=[out, reader, print, noted, "other"])(echo)
    assert agent.sinks[:4] == [out, reader, print, noted]
    assert isinstance(agent.sinks[4], Topic)
    assert agent.is_generator
    with pytest.raises(hw.MisuseError, match="a sink is a topic"):
        agent.add_sink(5)
    with pytest.raises(hw.TopologyError, match="no `yield`"):
        app.agent("a", sink=[out], name="silent")(nothing)
    with pytest.raises(hw.MisuseError, match="'suppress' or 'emit'"):
        hw.sink(print, replay="never")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ask", "map", "kvmap", "join", "kvjoin", "ask_nowait"])
def test_asking_an_agent_names_cast(name: str, app: hw.App) -> None:
    agent: Agent = app.agent("a")(nothing)
    with pytest.raises(hw.HeadwaterError, match=r"instead: agent\.cast"):
        getattr(agent, name)(1)


def test_a_declared_stream_can_not_be_iterated(app: hw.App) -> None:
    stream = app.topic("a").stream()
    for use in (
        aiter,
        lambda s: s.take(3),
        lambda s: s.events(),
        lambda s: s.items(),
        lambda s: s.enumerate(),
    ):
        with pytest.raises(AgentStoppedError, match="hand it to an agent"):
            use(stream)
    with pytest.raises(AgentStoppedError):
        stream.now()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 5}, "table.tumbling"),
        ({"store": "memory://"}, "state="),
        ({"defualt": int}, "did you mean 'default'"),
        ({"default": 5}, "a function or type"),
        ({"history": "some"}, "'exact', a timedelta or None"),
        ({"history": timedelta(0)}, "longer than nothing"),
        ({"partitions": 0}, "from 1"),
        ({"changelog": "records"}, "not there yet"),
    ],
)
def test_a_wrong_option_of_a_table_is_named(options: dict[str, Any], message: str, app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match=message):
        app.Table("t", **options)
    assert "t" not in app.tables


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "a.*"}, "the topics' names"),
        ({"value_typ": int}, "did you mean 'value_type'"),
        ({"partitions": 0}, "from 1"),
        ({"value_serializer": "pickle"}, "no serializer 'pickle'"),
        ({"key_serializer": "avro"}, "key_type"),
        ({"value_type": object()}, "value type"),
    ],
)
def test_a_wrong_option_of_a_topic_is_named(options: dict[str, Any], message: str, app: hw.App) -> None:
    with pytest.raises(hw.MisuseError, match=message):
        app.topic("a", **options)
    assert "a" not in app.declared.topics
