"""One line a claim: what Headwater did, what the reference beside it did, their ratio, the goal, and whether it is met."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True)
class Rates:
    """Thousands of records a second in several rounds, by the wall clock and by processor time."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, records: int, seconds: float, processor_s: float) -> None:
        """Note a round."""
        self.wall.append(records / seconds / 1000)
        self.processor.append(records / processor_s / 1000)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Both sides in alternating rounds; `design` is the reference's rate where the design's figures were taken."""

    name: str
    headwater: Rates
    reference: Rates
    goal: float | None
    design: float | None = None

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what slows the machine slows both halves of a round."""
        return _ratio(self.headwater.wall, self.reference.wall)

    def show(self) -> bool:
        """Print the line; return whether the goal is met. Processor time tells how much of a miss is other work."""
        met = self.goal is None or self.ratio >= self.goal
        goal = "no goal" if self.goal is None else f"goal {self.goal:.2f} {'pass' if met else 'FAIL'}"
        beside = "" if self.design is None else f" (design: {self.design:.0f})"
        mine, theirs = median(self.headwater.wall), median(self.reference.wall)
        processor = _ratio(self.headwater.processor, self.reference.processor)
        sys.stdout.write(
            f"{self.name:46} headwater {mine:5.0f} k/s  reference {theirs:5.0f} k/s{beside}  ratio {self.ratio:.2f}  "
            f"{goal}  (of processor time {processor:.2f})\n"
        )
        sys.stdout.flush()
        return met


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that must not exceed a limit."""

    name: str
    found: float
    limit: float
    unit: str
    note: str = ""

    def show(self) -> bool:
        """Print the line; return whether the limit holds."""
        met = self.found <= self.limit
        note = f"  ({self.note})" if self.note else ""
        unit = f" {self.unit}" if self.unit else ""
        sys.stdout.write(
            f"{self.name:46} {self.found:.3f}{unit}  limit {self.limit:.3f}{unit}  {'pass' if met else 'FAIL'}{note}\n"
        )
        sys.stdout.flush()
        return met


@dataclass(frozen=True, slots=True)
class Floor:
    """A rate that must be reached."""

    name: str
    rates: Rates
    floor: float
    """Thousands of records a second."""
    trouble: str = ""

    def show(self) -> bool:
        """Print the line; return whether it is reached."""
        found = median(self.rates.wall) if self.rates.wall and not self.trouble else 0.0
        met = found >= self.floor
        said = f"  ({self.trouble})" if self.trouble else ""
        sys.stdout.write(
            f"{self.name:46} headwater {found:5.0f} k/s  goal {self.floor:.0f} k/s {'pass' if met else 'FAIL'}{said}\n"
        )
        sys.stdout.flush()
        return met


def _ratio(mine: list[float], theirs: list[float]) -> float:
    return median(one / other for one, other in zip(mine, theirs, strict=True))
