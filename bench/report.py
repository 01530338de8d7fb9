"""The tables, as Markdown: for the terminal, and for the page that keeps the latest run."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.peers import OURS, Peer
from bench.results import Results, Spread, Unit
from bench.targets import verdicts

BEGIN, END = "<!-- measured: store and retrieve -->", "<!-- end measured -->"
NOTHING = "–"


def markdown(results: Results, peers: Sequence[Peer], facts: Sequence[str]) -> str:
    """Write all of a run: machine, figures, ratios, targets, failures."""
    blocks = [
        "\n".join(f"- {one}" for one in facts),
        "Figures: median (least to most).",
        table(*figures(results, peers)),
        "Ours against each peer, round by round, median (least to most); above 1 ours is better.",
        table(*ratios(results, peers)),
        "Targets:",
        table(*judgements(results)),
        *failures(results),
    ]
    return "\n\n".join(one for one in blocks if one)


def figures(results: Results, peers: Sequence[Peer]) -> tuple[list[str], list[list[str]]]:
    """Tabulate every row at every peer."""
    rows = []
    for line in results.lines.values():
        cells = [
            spread_text(
                results.figures(line.key, one.name), line.unit, (line.key, one.name), results
            )
            for one in peers
        ]
        rows.append([line.title, line.unit.value, *cells])
    return ["work", "unit", *(one.name for one in peers)], rows


def ratios(results: Results, peers: Sequence[Peer]) -> tuple[list[str], list[list[str]]]:
    """Tabulate ours against every peer."""
    others = [one.name for one in peers if one.name != OURS]
    rows = []
    for line in results.lines.values():
        found = [results.ratio((line.key, OURS), (line.key, one)) for one in others]
        if any(found):
            rows.append([line.title, *(ratio_text(one) for one in found)])
    return ["work", *(f"÷ {one}" for one in others)], rows


def judgements(results: Results) -> tuple[list[str], list[list[str]]]:
    """Tabulate the targets."""
    rows = [[v.work, v.at_least, v.reach_for, v.measured, v.met] for v in verdicts(results)]
    return ["work", "at least", "reach for", "measured", ""], rows


def failures(results: Results) -> Iterator[str]:
    """Say what could not be measured and why."""
    for (key, peer), reasons in results.failures.items():
        title = results.lines[key].title if key in results.lines else key
        yield f"{peer}, {title}: failed {len(reasons)} times. {'; '.join(sorted(set(reasons)))}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table whose columns also line up on a terminal."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def spread_text(spread: Spread | None, unit: Unit, where: tuple[str, str], results: Results) -> str:
    """Write one cell; a figure some of whose rounds failed says so."""
    failed = "failed" if where in results.failures else ""
    if spread is None:
        return failed or NOTHING
    text = unit.text(spread.median)
    if spread.least != spread.most:
        text += f" ({unit.text(spread.least)} to {unit.text(spread.most)})"
    return f"{text}, others {failed}" if failed else text


def ratio_text(ratio: Spread | None) -> str:
    """Write one ratio."""
    if ratio is None:
        return NOTHING
    if ratio.least == ratio.most:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def replaced(page: str, text: str, begin: str = BEGIN) -> str:
    """Put a run into the page, between its marks; what is around them stays."""
    marks = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    if len(marks.findall(page)) != 1:
        raise ValueError(f"the page needs {begin} and {END} once each")
    return marks.sub(lambda _: f"{begin}\n{text}\n{END}", page)


def write(path: Path, text: str, begin: str = BEGIN) -> None:
    """Keep a run in the page."""
    page = path.read_text(encoding="utf-8")
    path.write_text(replaced(page, text, begin), encoding="utf-8")
