"""What the figures should be: ratios against peers of the same run, and bounds of our own.

"At least" is the promise, "reach for" the ambition; both are compared with the
median. It holds the numbers and the verdict, and measures nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench import compressing, forward, gate
from bench.extremes import IDLE_CPU, IDLE_MEMORY, MULTI_FRAME_MEMORY
from bench.peers import OURS
from bench.results import MIB, Results

ORTHANC, DCMQRSCP, STORESCP = "Orthanc", "dcmqrscp", "storescp +B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A ratio of ours to a peer's figure; above 1 we are better. Without bounds it only informs."""

    row: str
    against: str = ORTHANC
    against_row: str = ""
    """Another row than ours, for comparing two rows of one server."""
    at_least: float | None = None
    reach_for: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A figure of ours that must stay below."""

    row: str
    at_most: float
    reach_for: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One target and how it went."""

    work: str
    at_least: str
    reach_for: str
    measured: str
    met: str


TARGETS = (
    Target(row="store-ct-1", at_least=1.8, reach_for=3.0),
    Target(row="store-ct-1", against=DCMQRSCP, at_least=0.75, reach_for=1.0),
    Target(row="store-mr-1", at_least=1.5, reach_for=2.5),
    Target(row="store-ct-4", at_least=1.4, reach_for=2.5),
    Target(row="store-ct-4", against=STORESCP, reach_for=0.8),
    Target(row="store-ct-stock", at_least=4.0),
    Target(row="store-ct-stock", against=DCMQRSCP, at_least=1.2),
    Target(row="store-ct-stock", against=OURS, against_row="store-ct-1", reach_for=1.0),
    Target(row="get-ct", at_least=1.0, reach_for=1.5),
    Target(row="move-ct", at_least=0.8, reach_for=1.1),
    Target(row=forward.FORWARD, against=OURS, against_row=forward.MOVE, at_least=0.9),
    *(
        Target(
            row=compressing.move_key(name),
            against=OURS,
            against_row=compressing.alone_key(name),
            at_least=0.7,
        )
        for name in compressing.SYNTAXES
    ),
    *(
        Target(
            row=compressing.move_key(name), against=OURS, against_row=compressing.encode_key(name)
        )
        for name in compressing.SYNTAXES
    ),
    Target(row=gate.CONTRACT, against=OURS, against_row=gate.TRUST),
    Target(row=gate.ASKED, against=OURS, against_row=gate.CONTRACT, at_least=50.0),
    Target(row="find-id", at_least=1.0, reach_for=2.0),
    Target(row="find-date", at_least=1.0, reach_for=2.0),
    Target(row="find-name", at_least=1.0, reach_for=2.0),
)

BOUNDS = (
    Bound(row=MULTI_FRAME_MEMORY, at_most=150 * MIB, reach_for=100 * MIB),
    Bound(row=IDLE_CPU, at_most=1.0),
    Bound(row=IDLE_MEMORY, at_most=300 * MIB),
)


def verdicts(results: Results) -> Iterator[Verdict]:
    """Judge every target whose row was part of the run."""
    for target in TARGETS:
        if target.row in results.lines and (target.against_row or target.row) in results.lines:
            yield judged(results, target)
    for bound in BOUNDS:
        if bound.row in results.lines:
            yield bounded(results, bound)


def judged(results: Results, target: Target) -> Verdict:
    """Compare a ratio with its target."""
    other = (target.against_row or target.row, target.against)
    ratio = results.ratio((target.row, OURS), other)
    median = ratio.median if ratio else None
    against = results.lines[other[0]].title if target.against_row else target.against
    met = word(meets(median, target.at_least), meets(median, target.reach_for))
    if median is not None and target.at_least is None and target.reach_for is None:
        met = "for information"
    return Verdict(
        work=f"{results.lines[target.row].title} ÷ {against}",
        at_least=times(target.at_least),
        reach_for=times(target.reach_for),
        measured=times(median),
        met=met,
    )


def bounded(results: Results, bound: Bound) -> Verdict:
    """Compare a figure with its bound."""
    line = results.lines[bound.row]
    found = results.figures(bound.row, OURS)

    def shown(figure: float | None) -> str:
        return "" if figure is None else f"{line.unit.text(figure)} {line.unit.value}"

    def below(limit: float | None) -> bool | None:
        return None if limit is None or found is None else found.median < limit

    return Verdict(
        work=line.title,
        at_least=f"< {shown(bound.at_most)}",
        reach_for=f"< {shown(bound.reach_for)}" if bound.reach_for is not None else "",
        measured=shown(found.median if found else None),
        met=word(below(bound.at_most), below(bound.reach_for)) if found else word(None, None),
    )


def meets(ratio: float | None, wanted: float | None) -> bool | None:
    """Tell whether a ratio is enough; nothing where nothing is wanted or measured."""
    return None if wanted is None or ratio is None else ratio >= wanted


def word(promise: bool | None, ambition: bool | None) -> str:
    """Say how a target went."""
    if promise is None and ambition is None:
        return "not measured"
    if promise is False:
        return "MISSED"
    if ambition:
        return "reached"
    return "met" if promise else "not reached"


def times(ratio: float | None) -> str:
    """Write a ratio."""
    return "" if ratio is None else f"{ratio:.2f}×"
