"""The adversarial set is the one that others judge by, and its judge can tell right from wrong."""

from __future__ import annotations

import hashlib
from collections import Counter

from tests.truth.adversarial import Outcome, cases, envelopes, expected_dead, expected_table, judge

RECORDS_SHA256 = "6e56dedab5aad0056bacbf83803a5fbbc920c8aad87fb90fadd88727e85fa44e"


def test_the_records_are_the_published_ones_byte_for_byte() -> None:
    digest = hashlib.sha256()
    for line in envelopes():
        digest.update(line.encode() + b"\n")
    assert digest.hexdigest() == RECORDS_SHA256


def test_every_outcome_occurs() -> None:
    found = Counter(case.outcome for case in cases())
    assert found == {
        Outcome.UPSERT: 59,
        Outcome.DELETE: 4,
        Outcome.DEAD: 13,
        Outcome.NO_KEY: 2,
        Outcome.REFUSED: 3,
    }


def test_the_judge_finds_nothing_in_the_expected_answer() -> None:
    verdict = judge(dict(expected_table()), expected_dead())
    assert verdict.wrong == []
    assert verdict.choices == []


def test_the_judge_finds_each_planted_fault() -> None:
    table: dict[bytes, bytes | None] = dict(expected_table())
    del table[b"k0"]
    table[b"bigint"] = b'{"id":"bigint","v":18446744073709551616}'
    table[b"None"] = b"null key stored as text"
    table[b"bom"] = b"a choice"
    dead = [*expected_dead(), (b"k3", b"healthy"), (b"k3", b"healthy")]
    dead.remove((b"bad_text", b"hello"))
    verdict = judge(table, dead)
    assert sorted(verdict.wrong) == [
        "1 dead letters stand there twice",
        "dead letter is missing: b'bad_text'",
        "dead letter is unexpected: b'k3'",
        "table row has another value: b'None'",
        "table row has another value: b'bigint'",
        "table row is missing: b'k0'",
    ]
    assert verdict.choices == ["table row has another value: b'bom'"]
