"""`headwater trim`: drop from the log what is archived, and nothing else."""

from __future__ import annotations

import click

from headwater.cli.command import command
from headwater.cli.session import Session, pass_session
from headwater.core.errors import MisuseError, UnknownNameError, did_you_mean


@command("trim", example="headwater trim departures --before 2013-02-01")
@click.argument("topic")
@click.option(
    "--before", metavar="T", help="Only what lies before the first record with this time or a later one."
)
@pass_session
def trim(session: Session, topic: str, before: str | None) -> None:
    """Drop from the log what is archived.

    Records that are not archived are refused, for all partitions at once: then nothing is dropped.
    """
    log, archive = session.log, session.archive
    info = log.topic(topic)
    if info is None:
        raise UnknownNameError(f"no topic {topic!r} in the log {log.url}{did_you_mean(topic, log.topics())}")
    time = None if before is None else session.time(before)
    targets: dict[int, int] = {}
    refused: list[str] = []
    for partition in range(info.partitions):
        archived = archive.end(topic, partition) or 0
        start, end = log.start_offset(topic, partition), log.end_offset(topic, partition)
        target = archived
        if time is not None:
            found = log.offset_for_time(topic, partition, time)
            target = end if found is None else found
        elif archived <= start < end:
            refused.append(f"{topic}/{partition} offsets {start}..{end - 1}")
        if target > max(archived, start):
            refused.append(f"{topic}/{partition} offsets {max(archived, start)}..{target - 1}")
        targets[partition] = max(start, target)
    nothing = all(targets[p] == log.start_offset(topic, p) for p in targets)
    if refused and (time is not None or nothing):
        raise MisuseError(
            f"can't trim what is not archived: {'; '.join(refused)}; nothing was dropped; "
            "run `headwater archive run --until-idle` first"
        )
    for partition, target in targets.items():
        start = log.start_offset(topic, partition)
        if target > start:
            log.trim(topic, partition, target)
        session.output.result(
            {"topic": topic, "partition": partition, "start": target, "trimmed": target - start},
            f"{topic}/{partition}: dropped {target - start:,} offsets; the log starts at {target}",
        )
