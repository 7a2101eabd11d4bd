"""State slots that are never shared, and a table's committed rows as code outside agents sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

import headwater as hw
from headwater.core.partitioner import partition_of
from headwater.engine.slot import Slot
from tests.unit.engine.runs import Place, at_work, until


def test_each_worker_has_a_slot_of_its_own_and_a_free_one_is_taken_again(tmp_path: Path) -> None:
    first, second = (Slot(str(tmp_path), "app", "live") for _ in range(2))
    assert [Path(slot.url).name for slot in (first, second)] == ["w0", "w1"]
    first.close()
    first.close()
    third = Slot(f"file://{tmp_path}", "app", "live")
    assert Path(third.url) == tmp_path / "app" / "live" / "w0"
    other = Slot(str(tmp_path), "app", "v2")
    assert Path(other.url) == tmp_path / "app" / "v2" / "w0"
    for slot in (second, third, other):
        slot.close()


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(hw.HeadwaterError, match="--state") as refused:
        Slot(str(tmp_path / "file"), "app", "live")
    assert str(tmp_path / "file") in str(refused.value)


def test_state_in_memory_has_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slot = Slot("memory://x", "app", "live")
    assert slot.url == "memory://x"
    slot.close()
    assert list(tmp_path.iterdir()) == []


async def test_outside_agents_a_table_shows_what_is_committed_and_not_the_open_epoch(tmp_path: Path) -> None:
    """I2: rows appear with their epoch, over all parts that the worker holds."""
    place = Place(tmp_path)
    keys = [f"u{n}".encode() for n in range(6)]
    for key in keys:
        place.append("orders", [1], keys=key, partition=partition_of(key, 2), partitions=2)
    done: list[int] = []

    def declare(app: hw.App) -> None:
        spend = app.Table("spend", default=int)

        @app.agent(app.topic("orders", key_type=str, value_type=int))
        async def add(stream: hw.Stream) -> None:
            async for key, amount in stream.items():
                spend[key] += amount
                done.append(amount)

    app = place.app(declare, partitions=2, epoch_s=3_600)
    spend = app.tables["spend"]
    async with at_work(place, app) as engine:
        await until(lambda: len(done) == 6)
        assert dict(spend.items()) == {}
        assert spend.get("u0") is None
        assert spend["u0"] == 0
        engine.session.epoch_s = 0.01
        engine.session.poke()
        await until(lambda: len(spend) == 6)
        assert dict(spend.items()) == {f"u{n}": 1 for n in range(6)}
        assert list(spend.keys()) == sorted(f"u{n}" for n in range(6))
        assert (spend["u3"], spend.get("nobody", "-"), "u5" in spend, "u9" in spend) == (1, "-", True, False)
        with pytest.raises(hw.ReadOnlyTableError, match="test_slot_and_committed"):
            spend.pop("u3")
        with pytest.raises(hw.ReadOnlyTableError, match="test_slot_and_committed"):
            del spend["u3"]
