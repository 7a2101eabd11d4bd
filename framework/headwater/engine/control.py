"""Generations of an app and the pointer that says which one readers see: records of `<app>.control`, folded.

Protocol
1. A generation's metadata is written twice in one transaction: under `generation` in its own `epochs` topic, where it
   is archived with what it describes, and under `generation:<name>` in the control topic, where it is found fast.
2. The pointer's records are a stack written down: a promotion names what it replaced, a rollback what it undid. Which
   generation is promoted is said by the pointer alone; the state in the metadata follows it for people.
Invariant: folding the last record of each key gives the same answer in every process, from log and archive as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.core.batch import Append
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import GenerationError, RecoveryError, UnknownNameError, did_you_mean
from headwater.core.names import check_part, control_topic, group_of, internal_topic, parse_internal
from headwater.engine.generation import DISCARDED, FAILED, FINISHED, LIVE, PROMOTED, RUNNING, Generation
from headwater.engine.history import read_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.archive.archive import Archive
    from headwater.core.clock import Clock
    from headwater.log.interface import Log

METADATA_KEY = b"generation"
_POINTER = b"pointer"
_PREFIX = b"generation:"


@dataclass(frozen=True, slots=True)
class Pointing:
    """One move of the pointer: to which generation, from which, when, and by `promote` or `rollback`."""

    generation: str
    previous: str
    time_ms: int
    cause: str


class Control:
    """The generations and the pointer of one app. Cheap to ask again: only new records of the control topic are read."""

    def __init__(
        self, log: Log, archive: Archive | None, app_id: str, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Open; the control topic is made by the first write."""
        self._log = log
        self._archive = archive
        self._app_id = check_part(app_id, "an app")
        self._topic = control_topic(app_id)
        self._clock = clock
        self._topic_id = ""
        self._position = 0
        self._generations: dict[str, Generation] = {}
        self._pointings: list[Pointing] = []

    def generations(self) -> dict[str, Generation]:
        """Return all generations by name in the order they were made, discarded ones too."""
        self._catch_up()
        return dict(self._generations)

    def generation(self, name: str) -> Generation:
        """Return a generation. Raises UnknownNameError."""
        found = self.generations()
        if name not in found:
            raise UnknownNameError(
                f"app {self._app_id!r} has no generation {name!r}{did_you_mean(name, found)}"
                + ("" if found else "; none has run yet: start a worker first")
            )
        return found[name]

    def pointer(self) -> str:
        """Return the name of the generation that readers see: `live` until another is promoted."""
        self._catch_up()
        return self._pointings[-1].generation if self._pointings else LIVE

    def history(self) -> list[Pointing]:
        """Return every move of the pointer, the first one first."""
        self._catch_up()
        return list(self._pointings)

    def put(self, generation: Generation) -> None:
        """Write a generation's metadata, new or changed."""
        if generation.app != self._app_id:
            raise ValueError(
                f"generation {generation.name} belongs to app {generation.app}, not {self._app_id}"
            )
        check_part(generation.name, "a generation")
        value = generation.to_json()
        epochs = internal_topic(self._app_id, generation.name, "epochs")
        now = self._clock.now_ms()
        self._log.create_topic(self._topic, 1)
        appends = [Append(self._topic, 0, [now], [_PREFIX + generation.name.encode()], [value])]
        if generation.state != DISCARDED:
            self._log.create_topic(epochs, 1)
            appends.append(Append(epochs, 0, [now], [METADATA_KEY], [value]))
        self._log.append(appends)

    def promote(self, name: str) -> Generation:
        """Make a generation what readers see, and return the one they saw before.

        Raises GenerationError where its state doesn't allow it: it failed, was discarded, is promoted already, or
        workers are running it or it has not come to its end.
        """
        generation, current = self.generation(name), self.pointer()
        if name == current:
            raise GenerationError(f"generation {name!r} is what readers see already; nothing was changed")
        if generation.state in (DISCARDED, FAILED):
            reason = f" ({generation.error})" if generation.error else ""
            raise GenerationError(
                f"generation {name!r} can't be promoted: it {_was(generation.state)}{reason}; replay again under another name"
            )
        if generation.state == RUNNING and name != LIVE:
            self._refuse_running(name, "promoted")
            if generation.is_bounded:
                raise GenerationError(
                    f"generation {name!r} can't be promoted: its replay has not come to its end; run the same "
                    f"`headwater replay --as {name}` again, which resumes it"
                )
        self._point(name, current, "promote")
        return self._generations.get(current) or Generation(current, self._app_id)

    def rollback(self) -> str:
        """Undo the last promotion that stands, and return the name that readers see again. Raises GenerationError."""
        standing = self._standing()
        if not standing:
            raise GenerationError(
                f"there is no promotion to undo: readers of app {self._app_id!r} see generation {self.pointer()!r}, the first"
            )
        undone = standing[-1]
        previous = self._generations.get(undone.previous)
        if previous is not None and previous.state == DISCARDED:
            raise GenerationError(
                f"can't go back to generation {undone.previous!r}: it was discarded; promote another one "
                "(`headwater generations` lists them)"
            )
        self._point(undone.previous, undone.generation, "rollback")
        return undone.previous

    def discard(self, name: str) -> list[str]:
        """Delete a generation's topics and positions from the log, and return the topics' names.

        What is archived of them stays. Raises GenerationError while readers see it or workers run it.
        """
        generation = self.generation(name)
        if name == self.pointer():
            raise GenerationError(
                f"generation {name!r} can't be discarded: it is what readers see; promote another one or roll back first"
            )
        if generation.state == DISCARDED:
            raise GenerationError(f"generation {name!r} is discarded already; nothing was changed")
        self._refuse_running(name, "discarded")
        # The state goes first: a crash in between leaves topics that a second call finds, never a generation without them.
        self.put(replace(generation, state=DISCARDED))
        topics = generation_topics(self._log.topics(), self._app_id, name)
        for topic in topics:
            self._log.delete_topic(topic)
        self._log.forget_group(group_of(self._app_id, name))
        self._log.forget_group(redrive_group(self._app_id, name))
        return topics

    def _refuse_running(self, name: str, what: str) -> None:
        members = self._log.members(group_of(self._app_id, name))
        if members:
            raise GenerationError(
                f"generation {name!r} can't be {what} while {members} worker{'s run' if members > 1 else ' runs'} it; "
                "stop them, or wait for the end of the replay"
            )

    def _standing(self) -> list[Pointing]:
        """Return the promotions that no rollback has undone."""
        self._catch_up()
        standing: list[Pointing] = []
        for pointing in self._pointings:
            if pointing.cause == "rollback":
                del standing[-1:]
            else:
                standing.append(pointing)
        return standing

    def _point(self, name: str, previous: str, cause: str) -> None:
        now = self._clock.now_ms()
        value = {"generation": name, "previous": previous, "time": now, "cause": cause}
        keys, values = [_POINTER], [msgspec.json.encode(value)]
        appends = []
        for changed, state in ((name, PROMOTED), (previous, None)):
            generation = self._generations.get(changed)
            if generation is None or generation.state == DISCARDED:
                continue
            if state is None:
                state = FINISHED if generation.finished_ms is not None else RUNNING
            data = replace(generation, state=state).to_json()
            keys.append(_PREFIX + changed.encode())
            values.append(data)
            epochs = internal_topic(self._app_id, changed, "epochs")
            if self._log.topic(epochs) is not None:
                appends.append(Append(epochs, 0, [now], [METADATA_KEY], [data]))
        self._log.create_topic(self._topic, 1)
        self._log.append([Append(self._topic, 0, [now] * len(keys), keys, values), *appends])

    def _catch_up(self) -> None:
        info = self._log.topic(self._topic)
        if info is None:
            self._topic_id, self._position = "", 0
            self._generations, self._pointings = {}, []
            return
        if info.topic_id != self._topic_id:
            self._topic_id, self._position = info.topic_id, 0
            self._generations, self._pointings = {}, []
        if self._log.end_offset(self._topic, 0) <= self._position:
            return
        for batch in read_topic(self._log, self._archive, self._topic, 0, self._position):
            for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
                self._take(offset, key, value)
            self._position = batch.next

    def _take(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None:
            return
        try:
            if key == _POINTER:
                found = msgspec.json.decode(value)
                self._pointings.append(
                    Pointing(found["generation"], found["previous"], found["time"], found["cause"])
                )
            elif key.startswith(_PREFIX):
                generation = Generation.from_json(value)
                self._generations[generation.name] = generation
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise RecoveryError(
                f"{self._topic}/0@{offset} is no record of the control topic ({error}); was it written by a newer version, "
                "or sent by hand?"
            ) from error


def generation_topics(topics: Mapping[str, Any], app_id: str, generation: str) -> list[str]:
    """Return the internal topics of one generation among `topics`, by name."""
    found = ((name, parse_internal(name, app_id)) for name in sorted(topics))
    return [name for name, parts in found if parts is not None and parts.generation == generation]


def redrive_group(app_id: str, generation: str) -> str:
    """Return the group whose positions say which dead letters were sent again."""
    return f"{group_of(app_id, generation)}.redrive"


def _was(state: str) -> str:
    return "was discarded" if state == DISCARDED else "failed"
