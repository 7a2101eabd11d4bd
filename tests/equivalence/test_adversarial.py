"""Records that break stream processors: the table and the dead letters hold what they must, live and replayed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.equivalence.place import ROOT, Place
from tests.truth.adversarial import cases, envelopes, judge

CHOICES: list[str] = [
    # No broker refuses these times here, so the records are there: docs/reference/values.md, "Times".
    "table row is unexpected: b'ts_int64max'",
    "table row is unexpected: b'ts_micros'",
    "table row is unexpected: b'ts_year9999'",
]
"""Where our outcome is one of several that can be right; each is told in docs/reference/values.md."""


@pytest.mark.timeout(180)
def test_the_adversarial_set_gives_the_table_and_dead_letters_it_must(tmp_path: Path) -> None:
    """Holds promise 5: nothing is skipped in silence. Null keys have no row, and are no dead letters."""
    place = Place(tmp_path, "tests.equivalence.adversarial_app")
    file = tmp_path / "records.jsonl"
    file.write_text("".join(f"{line}\n" for line in envelopes()), encoding="utf-8")
    place.send("hostile", file, 1)
    place.work()
    table = place.dump("latest", "--raw")
    letters = place.run("dead", "show", "--raw", "--json")

    rows = [json.loads(line) for line in table.splitlines()]
    dead = [json.loads(line) for line in letters.splitlines()]
    verdict = judge(
        {_bytes(row["key_b64"]): _bytes(row["value_b64"]) for row in rows},
        [(_bytes(letter["key_b64"]), _bytes(letter["value_b64"])) for letter in dead],
    )
    assert verdict.wrong == []
    assert sorted(verdict.choices) == CHOICES
    # A dead letter says where it came from, and has the record's own headers.
    given = list(cases())
    assert [given[letter["dead"]["offset"]].value for letter in dead] == [
        _bytes(letter["value_b64"]) for letter in dead
    ]
    assert {(letter["dead"]["agent"], letter["dead"]["topic"]) for letter in dead} == {("decode", "hostile")}

    place.archive()
    place.trim("hostile")
    for order in ("time", "live"):
        name = f"{order}_order"
        place.replay(name, "--from", "earliest", "--order", order)
        assert place.dump("latest", "--raw", "--generation", name) == table
        found = place.run("dead", "show", "--raw", "--json", "--generation", name)
        assert found == letters


def test_every_choice_is_told_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "values.md").read_text(encoding="utf-8")
    for case in cases():
        if case.is_choice and case.key is not None:
            name = "ff fe 00 80" if case.key == b"\xff\xfe\x00\x80" else case.key.decode()
            assert f"`{name}`" in page, name


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
