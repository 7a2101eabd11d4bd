"""Generations and the pointer: what is allowed in which state, and that every process folds the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from headwater.core.batch import Append
from headwater.core.clock import ManualClock
from headwater.core.errors import GenerationError, RecoveryError, UnknownNameError
from headwater.engine.control import Control, redrive_group
from headwater.engine.generation import DISCARDED, FAILED, FINISHED, PROMOTED, RUNNING, Generation
from headwater.log import open_log
from headwater.log.interface import Log

_NUMBERS = itertools.count()


@pytest.fixture
def log() -> Iterator[Log]:
    log = open_log(f"memory://control-{next(_NUMBERS)}")
    yield log
    log.close()


@pytest.fixture
def control(log: Log) -> Control:
    return Control(log, None, "app", clock=ManualClock(1000))


def finished(name: str, **more: object) -> Generation:
    fields = {"state": FINISHED, "parent": "live", "follow": False, "created_ms": 5, "finished_ms": 9} | more
    return Generation(name, "app", **fields)  # type: ignore[arg-type]


def test_a_new_app_has_no_generations_and_points_to_live(control: Control, log: Log) -> None:
    assert control.generations() == {}
    assert control.pointer() == "live"
    assert control.history() == []
    assert log.topics() == {}, "asking makes no topic"


def test_metadata_survives_the_log_with_fields_of_a_newer_version(control: Control, log: Log) -> None:
    generation = replace(
        finished("v2"),
        time_from=-(1 << 63),
        bounds={"t/0": [3, None]},
        names=["a", "t"],
        topology={"subs": []},
        extra={"colour": "blue"},
    )
    control.put(generation)
    again = Control(log, None, "app")
    assert again.generations() == {"v2": generation}
    assert again.generation("v2").extra == {"colour": "blue"}
    assert log.read("app.v2.epochs", 0, 0).keys == [b"generation"]


def test_an_unknown_generation_is_refused_with_near_names(control: Control) -> None:
    control.put(finished("nightly"))
    with pytest.raises(UnknownNameError, match="no generation 'nightl'; did you mean 'nightly'"):
        control.generation("nightl")


def test_promote_moves_the_pointer_for_every_process_and_rollback_moves_it_back(
    control: Control, log: Log
) -> None:
    other = Control(log, None, "app")
    control.put(Generation("live", "app"))
    control.put(finished("v2"))
    assert other.pointer() == "live"
    assert control.promote("v2").name == "live"
    assert other.pointer() == "v2"
    assert other.generation("v2").state == PROMOTED
    assert control.rollback() == "live"
    assert other.pointer() == "live"
    assert other.generation("v2").state == FINISHED
    assert other.generation("live").state == PROMOTED
    assert [(p.generation, p.previous, p.cause) for p in other.history()] == [
        ("v2", "live", "promote"),
        ("live", "v2", "rollback"),
    ]


def test_rollbacks_undo_promotions_one_by_one_and_then_there_is_none_left(control: Control) -> None:
    for name in ("v2", "v3"):
        control.put(finished(name))
        control.promote(name)
    assert control.rollback() == "v2"
    assert control.rollback() == "live"
    with pytest.raises(GenerationError, match="no promotion to undo"):
        control.rollback()


def test_a_rollback_to_a_discarded_generation_is_refused(control: Control) -> None:
    for name in ("v2", "v3"):
        control.put(finished(name))
        control.promote(name)
    control.discard("v2")
    with pytest.raises(GenerationError, match="can't go back to generation 'v2': it was discarded"):
        control.rollback()
    assert control.pointer() == "v3"


@pytest.mark.parametrize(
    "generation, reason",
    [
        (finished("v2", state=FAILED, error="disk full"), "it failed .disk full."),
        (finished("v2", state=DISCARDED), "it was discarded"),
        (finished("v2", state=RUNNING, finished_ms=None), "has not come to its end"),
    ],
)
def test_a_generation_that_is_not_whole_is_not_promoted(
    control: Control, generation: Generation, reason: str
) -> None:
    control.put(generation)
    with pytest.raises(GenerationError, match=reason):
        control.promote("v2")
    assert control.pointer() == "live"
    assert control.history() == []


def test_a_generation_whose_workers_run_is_neither_promoted_nor_discarded(control: Control, log: Log) -> None:
    control.put(Generation("v2", "app", follow=True))
    member = log.join("app.v2", 1)
    with pytest.raises(GenerationError, match="can't be promoted while 1 worker runs it"):
        control.promote("v2")
    with pytest.raises(GenerationError, match="can't be discarded while 1 worker runs it"):
        control.discard("v2")
    member.leave()
    control.promote("v2")
    assert control.pointer() == "v2"


def test_promoting_what_readers_see_already_is_refused(control: Control) -> None:
    control.put(Generation("live", "app"))
    with pytest.raises(GenerationError, match="what readers see already"):
        control.promote("live")


def test_discard_deletes_the_generations_topics_and_positions_and_nothing_else(
    control: Control, log: Log
) -> None:
    control.put(finished("v2"))
    for topic in ("app.v2.dead", "app.v2.changelog.t", "app.v22.dead", "other.v2.dead", "mine"):
        log.create_topic(topic, 1)
    assert control.discard("v2") == ["app.v2.changelog.t", "app.v2.dead", "app.v2.epochs"]
    assert sorted(log.topics()) == ["app.control", "app.v22.dead", "mine", "other.v2.dead"]
    assert control.generation("v2").state == DISCARDED
    with pytest.raises(GenerationError, match="discarded already"):
        control.discard("v2")


def test_what_readers_see_is_not_discarded(control: Control, log: Log) -> None:
    control.put(Generation("live", "app"))
    with pytest.raises(GenerationError, match="is what readers see"):
        control.discard("live")
    assert "app.live.epochs" in log.topics()


def test_a_record_of_the_control_topic_that_is_none_is_named(control: Control, log: Log) -> None:
    log.create_topic("app.control", 1)
    log.append([Append("app.control", 0, [0], [b"pointer"], [b"{}"])])
    with pytest.raises(RecoveryError, match=r"app\.control/0@0"):
        control.pointer()


def test_a_control_topic_made_anew_is_read_anew(control: Control, log: Log) -> None:
    control.put(finished("v2"))
    control.promote("v2")
    log.delete_topic("app.control")
    assert control.pointer() == "live"
    control.put(finished("v3"))
    assert list(control.generations()) == ["v3"]


def test_the_redrive_group_belongs_to_the_generation() -> None:
    assert redrive_group("app", "live") == "app.live.redrive"
