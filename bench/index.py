"""The index at 1,000, 100,000 and 1,000,000 studies: what each kind of question costs.

Every question goes through ``Find``, as a C-FIND does, without its encoding.
What is to be seen is the last column: how much more processor time an answer
takes in the largest archive than in the smallest. Not part of ``make bench``: building takes minutes.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench.index_ingest import ingest_rate
from bench.index_questions import Measured, measure
from bench.synthetic_index import build
from config.settings import Database as DatabaseSettings
from storage.database.connection import Database
from tests.peers import find as find_tool
from tests.postgres import cluster

SIZES = (1_000, 100_000, 1_000_000)
POSTGRES_SIZES = (1_000, 200_000)
Results = dict[int, dict[str, Measured]]


def main() -> int:
    """Print one table for each back end asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__)
    parser.add_argument("--folder", type=Path, help="build here, keep, and use what is there")
    parser.add_argument("--studies", type=int, nargs="+", help="sizes to measure")
    parser.add_argument("--postgresql", action="store_true", help="measure PostgreSQL, not SQLite")
    asked = parser.parse_args()
    if asked.postgresql:
        return _postgresql(asked.studies or POSTGRES_SIZES)
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="pacs-index-"))
    try:
        results: Results = {}
        for studies in asked.studies or SIZES:
            results[studies] = _run(studies, "", folder / str(studies))
        show(results)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _postgresql(sizes: tuple[int, ...]) -> int:
    initdb, pg_ctl = find_tool("initdb"), find_tool("pg_ctl")
    if initdb is None or pg_ctl is None:
        print("PostgreSQL is missing: sudo apt-get install postgresql", file=sys.stderr)
        return 1
    results: Results = {}
    for studies in sizes:
        with tempfile.TemporaryDirectory() as name, cluster(initdb, pg_ctl) as address:
            results[studies] = _run(studies, f"{address}/postgres", Path(name))
    show(results)
    return 0


def _run(studies: int, url: str, home: Path) -> dict[str, Measured]:
    is_there = (home / "built").exists()
    if not is_there:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
    database = Database(DatabaseSettings(url=url), home)
    try:
        database.migrate()
        if not is_there:
            print(f"building {studies:,} studies", file=sys.stderr, flush=True)
            build(database, studies)
            (home / "built").touch()
        print(f"measuring {studies:,} studies", file=sys.stderr, flush=True)
        return {**measure(database, studies), **ingest_rate(database)}
    finally:
        database.close()


def show(results: Results) -> None:
    """Print first answer, all answers, processor time and how many, and the ratio of last size to first."""
    sizes = list(results)
    head = "".join(f"{f'{size:,} studies':>40}" for size in sizes)
    print(f"{'milliseconds, p50':36}{head}   ratio")
    print(f"{'':36}" + f"{'first':>10}{'all':>10}{'CPU':>10}{'answers':>10}" * len(sizes))
    for name, small in results[sizes[0]].items():
        row = [results[size][name] for size in sizes]
        cells = "".join(
            f"{one.first_ms:10.2f}{one.all_ms:10.2f}{one.cpu_ms:10.2f}{one.answers:10,}"
            for one in row
        )
        print(f"{name:36}{cells}{_ratio(row[-1], small):>8}")
        for one, size in zip(row, sizes, strict=True):
            if one.note:
                print(f"  at {size:,}: {one.note}")


def _ratio(large: Measured, small: Measured) -> str:
    """Compare an answer's processor time; a refusal has nothing to be compared with."""
    if bool(large.answers) != bool(small.answers):
        return "-"
    each = [one.cpu_ms / max(1, one.answers) for one in (large, small)]
    return f"{each[0] / each[1]:.1f}"


if __name__ == "__main__":
    sys.exit(main())
