"""The adversarial set: records that break stream processors, and what a table and a dead-letter topic must hold after.

One topic, one partition, in this order. A good value is `{"id": text, "v": int}`. The app under test decodes each
value as JSON and keeps the record's original value bytes under the record's key bytes; a null value deletes.
Where `is_choice` is set, more than one outcome can be right, and the docs say which one is ours.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

START = 1372593600000
"""2013-06-30T12:00:00Z, in ms."""
MINUTE = 60_000
DAY = 86_400_000


class Outcome(Enum):
    """What becomes of a record."""

    UPSERT = "upsert"
    DELETE = "delete"
    DEAD = "dead"
    NO_KEY = "nokey"
    REFUSED = "refused"  # a broker may refuse its timestamp; where it doesn't, it is an upsert


@dataclass(frozen=True, slots=True)
class Case:
    """One record, and what must become of it."""

    name: str
    key: bytes | None
    value: bytes | None
    timestamp: int | None  # None: none is given, so it is the time of sending
    outcome: Outcome
    is_choice: bool = False


@dataclass(slots=True)
class Verdict:
    """How an answer differs from what is expected: wrongly, or by a choice that the docs must name."""

    wrong: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)


def good(identity: str, v: int = 1) -> bytes:
    """Return a good value."""
    return json.dumps({"id": identity, "v": v}, separators=(",", ":"), ensure_ascii=False).encode()


def padded(size: int) -> bytes:
    """Return a good value of exactly `size` bytes."""
    head, tail = b'{"id":"big","v":1,"pad":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


# fmt: off
NOT_JSON = {
    "truncated": b'{"id":"x","v":',
    "trailing_comma": b'{"id":"x","v":1,}',
    "single_quotes": b"{'id':'x'}",
    "nan": b'{"id":"x","v":NaN}',
    "infinity": b'{"id":"x","v":-Infinity}',
    "two_docs": b'{"id":"x","v":1}{"id":"y","v":2}',
    "bad_utf8": b'{"id":"\xff\xfe","v":1}',
    "text": b"hello",
    "control_char": b'{"id":"a\x01b","v":1}',
    "overflow": b'{"id":"x","v":1e400}',  # a parser of floats makes it infinity
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "lone_surrogate": b'{"id":"\\ud800","v":1}',  # some parsers take it, and no encoder gives it back
}
ODD_KEYS: dict[str, str | bytes] = {
    "composed": "caf\u00e9", "decomposed": "cafe\u0301", "emoji": "\U0001f6eb\U0001f1fa\U0001f1f8",
    "rtl": "\u05d0\u05d1\u200f", "nul": "a\0b", "nul_prefix": "a", "nul_end": "a\0", "newline": "a\nb\r\n",
    "path": "../../etc/passwd", "quote": "x'; drop table t;--\"", "space": " ", "long": "L" * 10_000,
    "zero": "0", "zerozero": "00", "bytes": b"\xff\xfe\x00\x80", "none_text": "None", "null_text": "null",
    "percent": "%s{0}{key}",
}
TIMES = {
    "zero": (0, Outcome.UPSERT, True),
    "one": (1, Outcome.UPSERT, False),
    "minus1": (-1, Outcome.UPSERT, True),
    "minus5": (-5, Outcome.UPSERT, True),
    "seconds": (START // 1000, Outcome.UPSERT, False),  # seconds given as milliseconds: 1970
    "micros": (START * 1000, Outcome.REFUSED, True),  # microseconds given as milliseconds: year 45465
    "year9999": (253402300799000, Outcome.REFUSED, True),
    "int64max": (2**63 - 1, Outcome.REFUSED, True),
    "plus2h": (None, Outcome.UPSERT, False),
}
DRIFTED = [
    b'{"id":"drift","v":"7"}', b'{"id":"drift"}', b'{"id":"drift","v":null}',
    b'{"id":"drift","v":1,"new":{"a":[1]}}', b"[1,2]", b"42",
]
ODD_JSON = {
    "bom": b'\xef\xbb\xbf{"id":"bom","v":1}',
    "dupfield": b'{"id":"dupfield","v":1,"v":2}',
    "bigint": b'{"id":"bigint","v":18446744073709551617}',
    "int53": b'{"id":"int53","v":9007199254740993}',
    "negzero": b'{"id":"negzero","v":-0.0}',
}
# fmt: on


def cases() -> Iterator[Case]:
    """Yield all records in the order of their offsets. Some are large: they are made anew each time."""
    up, dead, delete, no_key = Outcome.UPSERT, Outcome.DEAD, Outcome.DELETE, Outcome.NO_KEY

    for i in range(5):
        yield Case("baseline", b"k%d" % i, good(f"k{i}", i), START + i * MINUTE, up)
    # A table keeps the last by offset (v=4), as log compaction does.
    for minutes, v in ((50, 1), (10, 2), (40, 3), (20, 4)):
        yield Case("out_of_order", b"ooo", good("ooo", v), START + minutes * MINUTE, up)
    for _ in range(3):
        yield Case("duplicate", b"dup", good("dup", 7), START + 5 * MINUTE, up)
    yield Case("late", b"late3d", good("late3d"), START - 3 * DAY, up)
    yield Case("late", b"late400d", good("late400d"), START - 400 * DAY, up)

    time = START + 6 * MINUTE
    yield Case("null_key", None, good("nokey"), time, no_key)
    yield Case("null_key", None, None, time, no_key)
    yield Case("empty_key", b"", good("emptykey"), time, up)
    yield Case("empty_value", b"ev", b"", time, dead)  # no bytes are not a tombstone, and not JSON
    yield Case("json_null", b"jn", good("jn"), time, up)
    yield Case("json_null", b"jn", b"null", time + MINUTE, up, is_choice=True)

    time = START + 8 * MINUTE
    yield Case("tombstone", b"k1", None, time, delete)
    yield Case("tombstone", b"never", None, time, delete)
    yield Case("tombstone", b"k1", None, time + MINUTE, delete)
    yield Case("tombstone", b"k2", None, time + MINUTE, delete)
    yield Case("tombstone", b"k2", good("k2", 22), time + 2 * MINUTE, up)

    for name, value in NOT_JSON.items():
        is_choice = name in ("lone_surrogate", "overflow")
        yield Case("invalid_json", f"bad_{name}".encode(), value, START + 11 * MINUTE, dead, is_choice)
    for name, value in ODD_JSON.items():
        yield Case("odd_json", name.encode(), value, START + 12 * MINUTE, up, is_choice=name == "bom")
    for value in DRIFTED:
        yield Case("schema_drift", b"drift", value, START + 13 * MINUTE, up, is_choice=True)
    # Kafka's default limit is 1,048,588 bytes a batch.
    for key, size in ((b"big1m", 1_000_000), (b"big1048576", 1_048_576), (b"big3m", 3_000_000)):
        yield Case("big", key, padded(size), START + 14 * MINUTE, up)
    for name, odd in ODD_KEYS.items():
        raw = odd if isinstance(odd, bytes) else odd.encode()
        yield Case("odd_key", raw, good(name), START + 15 * MINUTE, up, is_choice=name == "bytes")
    for name, (at, outcome, is_choice) in TIMES.items():
        yield Case("timestamp", f"ts_{name}".encode(), good(f"ts_{name}"), at, outcome, is_choice)
    for i in range(3):
        yield Case("after", b"k0", good("k0", 100 + i), START + (16 + i) * MINUTE, up)


def envelopes() -> Iterator[str]:
    """Yield the records as lines for `headwater send TOPIC --file`."""
    for number, case in enumerate(cases()):
        envelope: dict[str, object] = {"offset": number}
        envelope |= {"key": None} if case.key is None else {"key_b64": to_base64(case.key)}
        envelope |= {"value": None} if case.value is None else {"value_b64": to_base64(case.value)}
        if case.timestamp is not None:
            envelope["ts"] = case.timestamp
        envelope["headers"] = {"case": case.name, "n": str(number)}
        yield json.dumps(envelope)


def expected_table() -> dict[bytes, bytes]:
    """Return the table by record key after all records, where no broker took a refused timestamp."""
    table: dict[bytes, bytes] = {}
    for case in cases():
        if case.key is None:
            continue
        if case.outcome is Outcome.DELETE:
            table.pop(case.key, None)
        elif case.outcome is Outcome.UPSERT and case.value is not None:
            table[case.key] = case.value
    return table


def expected_dead() -> set[tuple[bytes, bytes]]:
    """Return the keys and values that the dead-letter topic must hold."""
    return {
        (case.key, case.value)
        for case in cases()
        if case.outcome is Outcome.DEAD and case.key is not None and case.value is not None
    }


def judge(table: dict[bytes, bytes | None], dead: Iterable[tuple[bytes | None, bytes | None]]) -> Verdict:
    """Compare a system's table and dead letters, all as raw bytes, with what is expected."""
    verdict = Verdict()
    open_keys = {case.key for case in cases() if case.is_choice}

    def differs(key: bytes | None, what: str) -> None:
        (verdict.choices if key in open_keys else verdict.wrong).append(f"{what} {(key or b'')[:30]!r}")

    wanted_table = expected_table()
    for key in sorted(wanted_table.keys() | table.keys()):
        if key not in table:
            differs(key, "table row is missing:")
        elif key not in wanted_table:
            differs(key, "table row is unexpected:")
        elif table[key] != wanted_table[key]:
            differs(key, "table row has another value:")
    found = list(dead)
    wanted: set[tuple[bytes | None, bytes | None]] = {*expected_dead()}
    for dead_key, _ in wanted - set(found):
        differs(dead_key, "dead letter is missing:")
    for dead_key, _ in set(found) - wanted:
        differs(dead_key, "dead letter is unexpected:")
    if len(found) != len(set(found)):
        verdict.wrong.append(f"{len(found) - len(set(found))} dead letters stand there twice")
    return verdict


def to_base64(data: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode()
