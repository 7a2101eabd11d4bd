"""Which sub-topologies keep watermarks: those where something asks for them, and all that send to these.

The others are spared the columns; a plain agent over a topic pays nothing for event time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.app.touched import names_in

if TYPE_CHECKING:
    from headwater.engine.topology import SubTopology, Topology

ATTRIBUTE = "watermark"
"""An agent whose code has this name reads `stream.watermark`."""


def watermarked(app: Any, topology: Topology) -> frozenset[int]:
    """Return the numbers of the sub-topologies that keep watermarks."""
    wanted = {sub.number for sub in topology.subs if _asks(app, sub)}
    while True:
        above = {
            sender for sub in topology.subs if sub.number in wanted for sender in sub.senders.values()
        } - wanted
        if not above:
            return frozenset(wanted)
        wanted |= above


def _asks(app: Any, sub: SubTopology) -> bool:
    return (
        bool(sub.timers)
        or any(reader.is_operator for reader in sub.readers)
        or any(
            ATTRIBUTE in names_in(app.declared.agents[reader.agent].fun)
            for reader in sub.readers
            if reader.sends_to is None and reader.agent in app.declared.agents
        )
    )
