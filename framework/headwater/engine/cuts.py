"""Cuts that a generation recorded: the groups of each task, in order, to be taken again by a replay in live order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwater.core.names import internal_topic
from headwater.engine.history import read_topic
from headwater.engine.positions import TaskState
from headwater.engine.task_time import IN, OUT, REACHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.archive.archive import Archive
    from headwater.log.interface import Log

_DECODER = msgspec.json.Decoder(TaskState)


def recorded_cuts(
    log: Log, archive: Archive, app: str, parent: str, generation: str, task: int
) -> Iterator[dict[str, int]]:
    """Yield the cuts of one task of `parent`, with channels named as `generation` names them.

    Tasks are numbered alike in both, because the topology is the same.
    """
    epochs = internal_topic(app, parent, "epochs")
    key = str(task).encode()
    old, new = f"{app}.{parent}.", f"{app}.{generation}."
    for batch in read_topic(log, archive, epochs, 0):
        for found, value in zip(batch.keys, batch.values, strict=True):
            if found != key or value is None:
                continue
            for cut in _DECODER.decode(value).groups:
                yield {_renamed(name, old, new): at for name, at in cut.items()}


def _renamed(name: str, old: str, new: str) -> str:
    for begin in ("", REACHED, OUT, IN):
        if name.startswith(begin + old):
            return begin + new + name.removeprefix(begin + old)
    return name
