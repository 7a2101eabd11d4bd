"""Row groups read ahead: in order, no further than is allowed, errors at their place, and by so many readers only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headwater.archive import ahead, open_archive
from headwater.archive.ahead import ONE, READERS_AHEAD_MAX, read_ahead
from headwater.archive.writer import Archiver
from headwater.core.batch import Batch
from headwater.log import open_log
from tests.unit.archive.rows import append_numbered, log_rows, rows_of


class Counting(Executor):
    """Runs calls at once, and knows how many were begun."""

    def __init__(self) -> None:
        self.begun = 0

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.begun += 1
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _steps(count: int) -> Iterator[Batch]:
    for number in range(count):
        yield Batch.empty("t", 0, number, number + 1)


def test_one_is_decoded_beside_the_one_in_hand() -> None:
    pool = Counting()
    batches = read_ahead(_steps(5), pool, bytes_max=ONE)
    assert next(batches).base == 0
    assert pool.begun == 2
    assert [batch.base for batch in batches] == [1, 2, 3, 4]
    assert pool.begun == 5


def test_several_are_while_their_bytes_are_allowed() -> None:
    pool = Counting()
    batches = read_ahead(_steps(50), pool, bytes_max=10)  # a batch that needs no reading counts one
    assert next(batches).base == 0
    assert pool.begun == 11
    assert [batch.base for batch in batches] == list(range(1, 50))


def test_an_error_comes_behind_what_is_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps() -> Iterator[Batch]:
        yield from _steps(2)
        raise ValueError("no more")

    batches = read_ahead(steps(), Counting(), bytes_max=100)
    assert [next(batches).base, next(batches).base] == [0, 1]
    with pytest.raises(ValueError, match="no more"):
        next(batches)

    def fails_at_three(step: Batch) -> Batch:
        if step.base == 3:
            raise OSError("damaged")
        return step

    monkeypatch.setattr(ahead, "_decode_alone", fails_at_three)
    batches = read_ahead(_steps(5), Counting(), bytes_max=100)
    assert [next(batches).base for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="damaged"):
        next(batches)


def test_many_readers_of_one_archive_read_the_same_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log("memory://many-readers")
    log.create_topic("orders", 1)
    append_numbered(log, 300)
    archive = open_archive(f"file://{tmp_path}", log.log_id)
    Archiver(log, archive, ["orders"], roll_rows=50).until_idle()
    submitted = []
    submit = ThreadPoolExecutor.submit

    def noted(pool: Any, call: Any, *args: Any, **kwargs: Any) -> Any:
        submitted.append(call)
        return submit(pool, call, *args, **kwargs)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", noted)
    readers = [archive.read("orders", 0, 0) for _ in range(READERS_AHEAD_MAX + 3)]
    firsts = [next(reader) for reader in readers]
    assert len(submitted) == 2 * READERS_AHEAD_MAX
    expected = log_rows(log)
    for first, reader in zip(firsts, readers, strict=True):
        assert rows_of([first, *reader]) == expected
    # They are done: the next one reads ahead again, also where one was left half read.
    readers = [archive.read("orders", 0, 0) for _ in range(READERS_AHEAD_MAX)]
    for reader in readers:
        next(reader)
    del reader, readers
    submitted.clear()
    assert rows_of(archive.read("orders", 0, 0)) == expected
    assert submitted
    archive.close()
    log.close()
