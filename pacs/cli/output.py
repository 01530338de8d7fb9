"""What a command prints: lists for people, for scripts and for programs, and progress.

Results go to standard output, progress and messages to standard error, so that
a pipe carries results only. Values come from peers: control characters in them
never reach a terminal.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

ROWS_PER_TABLE = 500
"""A terminal's table is printed in pieces of this many rows: a list may be longer than memory."""

Advance = Callable[[int], None]

json_option = click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
"""The option every list takes."""


def emit(
    rows: Iterable[Mapping[str, object]], columns: Sequence[str], *, as_json: bool = False
) -> None:
    """Print rows: a table on a terminal, tab-separated lines in a pipe, a JSON array on demand."""
    if as_json:
        _emit_json(rows)
    elif sys.stdout.isatty():
        _emit_tables(rows, columns)
    else:
        for row in rows:
            click.echo("\t".join(plain(row.get(column)) for column in columns))


def plain(value: object) -> str:
    r"""Write a value on one line without control characters.

    >>> plain("DOE^JANE\x1b[2J"), plain(None), plain(["CT", "MR"])
    ('DOE^JANE\\x1b[2J', '', 'CT, MR')
    """
    if value is None:
        return ""
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(plain(one) for one in value)
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(value)
    )


@contextmanager
def progress(total: int | None, label: str) -> Iterator[Advance]:
    """Show long work: a bar on a terminal, otherwise a line at each tenth.

    Yields a function that is called with the number of things just done.
    """
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(total, label) as advance:
        yield advance


def note(message: str) -> None:
    """Say something to the person at the terminal, on standard error."""
    click.echo(message, err=True)


def _emit_json(rows: Iterable[Mapping[str, object]]) -> None:
    opening = "["
    for row in rows:
        click.echo(
            f"{opening}\n {json.dumps(dict(row), ensure_ascii=False, default=str)}", nl=False
        )
        opening = ","
    click.echo("[]" if opening == "[" else "\n]")


def _emit_tables(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    console = Console()
    pending = iter(rows)
    while piece := list(islice(pending, ROWS_PER_TABLE)):
        table = Table(*columns)
        for row in piece:
            table.add_row(*(Text(plain(row.get(column))) for column in columns))
        console.print(table)


@contextmanager
def _bar(total: int | None, label: str) -> Iterator[Advance]:
    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with shown:
        task = shown.add_task(plain(label), total=total)
        yield lambda count: shown.advance(task, count)


@contextmanager
def _lines(total: int | None, label: str) -> Iterator[Advance]:
    step = max(1, (total or 10_000) // 10)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before, done = done, done + count
        if done // step > before // step:
            note(f"{label}: {done}{f' of {total}' if total is not None else ''}")

    yield advance
    note(f"{label}: {done} done")
