"""How long `headwater --help` takes, from the start of the process to its end."""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

from benchmarks.figure import Limit

LIMIT_S = 0.3


def main() -> int:
    """Print the median; exit code 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    def seconds(*arguments: str) -> float:
        begin = perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60)
        return perf_counter() - begin

    seconds("-m", "headwater", "--help")  # the first one reads the disk and writes bytecode
    found = [seconds("-m", "headwater", "--help") for _ in range(options.rounds)]
    bare = [seconds("-c", "pass") for _ in range(options.rounds)]
    note = (
        f"an empty Python takes {median(bare):.3f} s, importing click included {_with_click(seconds):.3f} s"
    )
    return 0 if Limit("headwater --help", median(found), LIMIT_S, "s", note).show() else 1


def _with_click(seconds: object) -> float:
    assert callable(seconds)
    return float(median(seconds("-c", "import click") for _ in range(5)))


if __name__ == "__main__":
    sys.exit(main())
