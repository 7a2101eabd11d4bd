"""Four rival archivers, killed at every step, stalled, with lost and doubled replies: one chain, bit for bit (G1, I13, I14)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.archive import writer
from headwater.archive.local import LocalStore
from tests import object_stores
from tests.archive_schedules import Backend, local_backend, run_schedule, s3_backend

LOCAL, MOTO = 60, 20


@pytest.fixture(scope="module")
def s3() -> Iterator[Backend]:
    with object_stores.moto() as place:
        yield s3_backend(place)


def _run(backend: Backend, count: int) -> Counter[str]:
    return sum((run_schedule(seed, backend) for seed in range(count)), Counter())


@pytest.mark.timeout(300)
def test_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = _run(local_backend(tmp_path), LOCAL)
    with capsys.disabled():
        print(f"\n{dict(total)}")
    steps = (
        "list",
        "read",
        "encoded",
        "half_written",
        "written",
        "synced",
        "linked",
        "unlinked",
        "folder_synced",
        "put",
    )
    assert all(total[f"killed at archive.{step}"] for step in steps), total
    assert min(total["overtaken"], total["own reply lost"], total["stalls"], total["fault doubled"]) > 0, (
        total
    )


@pytest.mark.timeout(300)
def test_on_moto(s3: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    total = _run(s3, MOTO)
    with capsys.disabled():
        print(f"\n{dict(total)}")
    steps = (
        "create",
        "created",
        "list",
        "read",
        "sleep",
        "archive.list",
        "archive.read",
        "archive.encoded",
        "archive.put",
    )
    assert all(total[f"killed at {step}"] for step in steps), total
    faults = ("throttled", "partial", "lost", "doubled", "cut", "flipped", "stale")
    assert all(total[f"fault {kind}"] for kind in faults), total
    assert min(total["overtaken"], total["own reply lost"], total["stalls"]) > 0, total


def test_the_schedules_find_a_store_that_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: without the condition, and unprobed, a few schedules are enough."""

    def overwrite(self: LocalStore, name: str, data: bytes | memoryview) -> bool:
        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return True

    monkeypatch.setattr(LocalStore, "put_if_absent", overwrite)
    monkeypatch.setattr(writer, "probe", lambda store: None)
    with pytest.raises(AssertionError):
        _run(local_backend(tmp_path), 30)
