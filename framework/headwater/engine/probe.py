"""Learn what an app declares, and what agents declare in their bodies: each body that could is run once, up to its first iteration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headwater.app.stream import Stream, StreamRecorded
from headwater.app.touched import tables_touched
from headwater.core.errors import TopologyError
from headwater.engine.topology import AgentSpec, used

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.app.agent import Agent
    from headwater.app.app import App
    from headwater.engine.topology import Node
    from headwater.stream.plan import StreamPlan

PROBE_TIMEOUT_S = 10.0
_DECLARING = frozenset({"group_by", "filter", "add_processor", "map", "flat_map"})


async def record_plan(app: App, agent: Agent) -> StreamPlan:
    """Return an agent's plan with what its body adds. Raises TopologyError where the body doesn't get to its loop."""
    code = getattr(agent.fun, "__code__", None)
    if code is not None and not _DECLARING & set(code.co_names):
        return agent.plan
    stream = Stream.recording(app, agent.plan)
    try:
        if agent.is_generator:
            body = agent.fun(stream)
            await asyncio.wait_for(anext(aiter(body)), PROBE_TIMEOUT_S)  # type: ignore[arg-type]
        else:
            await asyncio.wait_for(agent.fun(stream), PROBE_TIMEOUT_S)  # type: ignore[arg-type]
    except StreamRecorded as recorded:
        return recorded.plan
    except (StopAsyncIteration, TimeoutError):
        pass
    raise TopologyError(
        f"agent {agent.name!r} calls group_by or filter in its body, but a run of it at start did not get to `async for`; "
        "declare the operators instead: @app.agent(topic.group_by(…))"
    )


async def nodes_of(app: App, learned: Mapping[str, frozenset[str]]) -> list[Node]:
    """Return agents and operators as the topology needs them, in order of declaration.

    `learned` are tables that agents touched unseen by their code. Operators whose results go nowhere are left out.
    """
    tables = list(app.declared.tables.values())
    nodes: list[Node] = []
    for name in app.declared.in_order():
        operator = app.declared.operators.get(name)
        if operator is not None:
            nodes.append(operator)
            continue
        agent = app.declared.agents[name]
        touched = set(tables_touched(agent.fun, tables)) if agent.tables is None else set(agent.tables)
        names = {table.name for table in touched} | learned.get(agent.name, frozenset())
        ordered = tuple(table.name for table in tables if table.name in names)
        nodes.append(AgentSpec(agent.name, await record_plan(app, agent), ordered))
    return used(nodes)
