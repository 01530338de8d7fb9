"""The figures of a run and what they say: medians with their spread, and ratios within one round.

A ratio is taken round by round, ours against the peer's of the same round, so
that the machine's drift cancels; above 1 we are better, whatever the unit.
"""

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

MIB = 1 << 20
T = TypeVar("T")


class Unit(enum.Enum):
    """What a figure counts, and whether more of it is better."""

    INSTANCES_PER_S = "instances/s"
    MEGABYTES_PER_S = "MB/s"
    JOBS_PER_S = "jobs/s"
    MILLISECONDS = "ms"
    SECONDS = "s"
    BYTES = "MiB"
    PERCENT = "% of a core"

    @property
    def more_is_better(self) -> bool:
        """Tell which way is better."""
        return self in (Unit.INSTANCES_PER_S, Unit.MEGABYTES_PER_S, Unit.JOBS_PER_S)

    def text(self, figure: float) -> str:
        """Write a figure with the digits that mean something."""
        shown = figure / MIB if self is Unit.BYTES else figure
        return f"{shown:.0f}" if shown >= 100 else f"{shown:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of several figures, and the extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Summarize figures, one at least."""
        return cls(median=statistics.median(figures), least=min(figures), most=max(figures))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a row is called and counts in."""

    key: str
    title: str
    unit: Unit


@dataclass(slots=True)
class Results:
    """All figures: row → peer → round → figure."""

    lines: dict[str, Line] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    round: int = 0
    """The round figures are noted for; round 0 warms up."""
    _figures: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)

    def declare(self, key: str, title: str, unit: Unit) -> None:
        """Add a row to the table."""
        self.lines[key] = Line(key=key, title=title, unit=unit)

    def begin(self, number: int) -> None:
        """Begin a round."""
        self.round = number

    def add(self, key: str, peer: str, figure: float) -> None:
        """Note a figure of this round; those of the warm-up are discarded."""
        if self.round:
            self._figures.setdefault((key, peer), {})[self.round] = figure

    def peak(self, key: str, peer: str, figure: float) -> None:
        """Note a figure of this round if it is the largest so far."""
        before = self._figures.get((key, peer), {}).get(self.round, 0.0)
        self.add(key, peer, max(before, figure))

    def failed(self, key: str, peer: str, why: str) -> None:
        """Note that a figure could not be taken. In every round: a failure to warm up is one."""
        self.failures.setdefault((key, peer), []).append(why)

    def figures(self, key: str, peer: str) -> Spread | None:
        """Summarize a row at a peer."""
        figures = self._figures.get((key, peer))
        return Spread.of(list(figures.values())) if figures else None

    def ratio(self, row: tuple[str, str], other: tuple[str, str]) -> Spread | None:
        """Compare (row, peer) with another of the same rounds; above 1 the first is better."""
        ours, theirs = self._figures.get(row, {}), self._figures.get(other, {})
        more_is_better = self.lines[row[0]].unit.more_is_better
        ratios = [
            ours[one] / theirs[one] if more_is_better else theirs[one] / ours[one]
            for one in sorted(ours.keys() & theirs.keys())
            if ours[one] and theirs[one]
        ]
        return Spread.of(ratios) if ratios else None


def turns(everybody: Sequence[T], number: int) -> list[T]:
    """Give everybody in order, beginning with another one each time, so that no place is always one's own.

    Examples
    --------
    >>> turns("abc", 1)
    ['b', 'c', 'a']
    """
    first = number % len(everybody)
    return [*everybody[first:], *everybody[:first]]
