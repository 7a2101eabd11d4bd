"""How a worker is to run: what the command line asks of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.core.settings import Settings


@dataclass(frozen=True, slots=True)
class RunOptions:
    """One worker process's orders.

    `generation`: None follows the pointer; else that one and no other. `until_idle`: end when the whole group has
    processed and committed all that is there; `drain`: then end all inputs, close what is open, and end. `allow_gaps`: read on across what neither archive nor log has. `settings`:
    None takes those of environment and app.
    """

    generation: str | None = None
    until_idle: bool = False
    drain: bool = False
    epoch_s: float | None = None
    processes: int = 1
    allow_gaps: bool = False
    settings: Settings | None = None
