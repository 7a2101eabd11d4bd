"""Begin a replay: a new generation with its bounds, fixed once for all processes; and tell how far it is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.core.batch import TopicPartition
from headwater.core.clock import SYSTEM_CLOCK
from headwater.core.errors import (
    GenerationError,
    TimeRangeError,
    TopologyError,
    UnknownNameError,
    did_you_mean,
)
from headwater.core.names import check_part
from headwater.core.times import EARLIEST, format_time
from headwater.engine.control import Control
from headwater.engine.generation import FAILED, FINISHED, RUNNING, Generation
from headwater.engine.inputs import BROADCAST
from headwater.engine.positions import Positions
from headwater.engine.probe import nodes_of
from headwater.engine.topology import source_topics_of
from headwater.source.bounds import check_gaps, offset_after_last_before, offset_at_or_after, start_of

if TYPE_CHECKING:
    from headwater.app.app import App
    from headwater.archive.archive import Archive
    from headwater.log.interface import Log


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: source offsets done of those in bounds, and the least task time reached."""

    done: int
    total: int
    event_time_ms: int | None


def default_name() -> str:
    """Return the name of a replay that was given none: `r` and the UTC date and time."""
    return datetime.fromtimestamp(SYSTEM_CLOCK.now_ms() / 1000, UTC).strftime("r%Y%m%d-%H%M%S")


def prepare_replay(
    app: App,
    log: Log,
    archive: Archive,
    *,
    time_from: int,
    time_until: int | None = None,
    name: str | None = None,
    order: str = "time",
    follow: bool = False,
    allow_gaps: bool = False,
    drain: bool = False,
) -> Generation:
    """Return the metadata of a new generation, or of an unfinished one of that name with the same T and U.

    Raises GenerationError (finished, or begun with other bounds), TimeRangeError (T after U), HandoverGapError.
    """
    if time_until is not None and time_from >= time_until:
        raise TimeRangeError(
            f"--from {format_time(time_from)} is not before --until {format_time(time_until)}; ranges are half-open"
        )
    if follow and time_until is not None:
        raise TimeRangeError("--follow goes on for ever; leave --until out, or --follow")
    control = Control(log, archive, app.id)
    name = default_name() if name is None else check_part(name, "a generation")
    found = control.generations().get(name)
    if found is not None and found.bounds:
        return _resumed(control, found, time_from, time_until, order, follow, drain)
    if found is not None:
        raise GenerationError(
            f"generation {name!r} is there already and is no replay; choose another name with --as"
        )
    topics = source_topics_of(asyncio.run(nodes_of(app, {})))
    if not topics:
        raise TopologyError(f"app {app.id!r} declares no agents; there is nothing to replay")
    bounds: dict[str, list[int | None]] = {}
    for topic in topics:
        info = log.topic(topic)
        if info is None:
            raise UnknownNameError(
                f"topic {topic!r} of app {app.id!r} is not in the log {log.url}{did_you_mean(topic, log.topics())}"
            )
        archive.bind({topic: info})
        for partition in range(info.partitions):
            start, end = _bounds(archive, log, topic, partition, time_from, time_until, follow=follow)
            if not allow_gaps:
                check_gaps(
                    archive,
                    log,
                    topic,
                    partition,
                    start,
                    log.end_offset(topic, partition) if end is None else end,
                )
            bounds[str(TopicPartition(topic, partition))] = [start, end]
    generation = Generation(
        name, app.id, state=RUNNING, parent=control.pointer(),
        time_from=None if time_from == EARLIEST else time_from, time_until=time_until,
        order=order, follow=follow, drain=drain, bounds=bounds, created_ms=SYSTEM_CLOCK.now_ms(),
    )  # fmt: skip
    control.put(generation)
    return generation


def _resumed(
    control: Control,
    found: Generation,
    time_from: int,
    time_until: int | None,
    order: str,
    follow: bool,
    drain: bool,
) -> Generation:
    """Return an unfinished generation to go on with."""
    begun = EARLIEST if found.time_from is None else found.time_from
    if found.state not in (RUNNING, FAILED):
        raise GenerationError(
            f"generation {found.name!r} is {found.state} already; choose another name with --as, or discard it first"
        )
    begun_with = (begun, found.time_until, found.order, found.follow, found.drain)
    if begun_with != (time_from, time_until, order, follow, drain):
        until = "the end" if found.time_until is None else format_time(found.time_until)
        raise GenerationError(
            f"generation {found.name!r} was begun from {format_time(begun)} until {until} in {found.order} order"
            f"{', following' if found.follow else ''}{', draining' if found.drain else ''}; go on with the same, or choose another name with --as"
        )
    if found.state == FAILED:
        found = replace(found, state=RUNNING, error=None)
        control.put(found)
    return found


def _bounds(
    archive: Archive,
    log: Log,
    topic: str,
    partition: int,
    time_from: int,
    time_until: int | None,
    *,
    follow: bool,
) -> tuple[int, int | None]:
    """Return the first offset with timestamp >= T, and one past the last with timestamp < U (the end now without U)."""
    end = log.end_offset(topic, partition)
    if time_from == EARLIEST:
        start: int | None = start_of(archive, log, topic, partition)
    else:
        start = offset_at_or_after(archive, log, topic, partition, time_from)
    start = end if start is None else start
    if follow:
        return start, None
    if time_until is not None:
        last = offset_after_last_before(archive, log, topic, partition, time_until)
        end = start if last is None else max(start, last)
    return start, end


def replay_progress(log: Log, archive: Archive, app: str, generation: Generation) -> Progress:
    """Return how far a replay has come, as its committed epochs say."""
    positions = Positions(log, app, generation.name, archive)
    info = log.topic(positions.tasks)
    states = {} if info is None else positions.load(range(info.partitions))
    seen: dict[str, int] = {}
    for state in states.values():
        for place, offset in state.seen.items():
            # What every task reads is done when all have read it.
            at = place.removeprefix(BROADCAST)
            seen[at] = min(seen.get(at, offset), offset)
    done = total = 0
    for place, (start, end) in generation.bounds.items():
        stop = log.end_offset(*TopicPartition.parse(place)) if end is None else end
        total += max(0, stop - (start or 0))
        done += max(0, min(stop, seen.get(place, start or 0)) - (start or 0))
    times = [state.time for state in states.values() if state.time is not None and not state.marks.get("end")]
    if not times:
        times = [max((s.time for s in states.values() if s.time is not None), default=0)] if states else []
    if generation.state == FINISHED:
        done = total
    return Progress(done, total, min(times, default=None))
