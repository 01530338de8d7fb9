"""``python -m bench.jobs``: jobs per second through worker processes, and how evenly they share them.

Each job does nothing but end: what is measured is the claim, the fences and
the durable commits. SQLite unless a PostgreSQL URL is given.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

from config.settings import Database as DatabaseSettings
from pacs.core.records import Job
from storage.database.connection import Database
from storage.database.jobs import JobTable
from storage.database.store import DatabaseRecords

LEASE_S = 60.0


def opened(home: Path, url: str) -> tuple[Database, JobTable]:
    database = Database(DatabaseSettings(url=url), home)
    return database, JobTable(database, DatabaseRecords(database, "first"))


def work(home: Path, url: str, name: str, begin: threading.Event) -> None:
    """Claim and end jobs until none waits; the rows say who did how many."""
    database, table = opened(home, url)
    table.queues()
    begin.wait()
    while (claim := table.claim("default", name, LEASE_S)) is not None:
        with table.finishing(claim, f'"{name}"'):
            pass
    database.close()


def main() -> int:
    """Measure with 1, 2, 4 and 8 processes."""
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument(
        "--waiting", type=int, default=0, help="further rows that wait, half of them not yet due"
    )
    parser.add_argument("--url", default="", help="an empty PostgreSQL database")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args()
    print("| processes | jobs/s | least and most done by one |\n|---|---|---|")
    for processes in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory(prefix="pacs-bench-", dir=options.folder) as name:
            rate, shares = measured(Path(name), options, processes)
        print(f"| {processes} | {rate:.0f} | {min(shares.values())} {max(shares.values())} |")
    return 0


def measured(home: Path, options: argparse.Namespace, processes: int) -> tuple[float, Counter[str]]:
    database, _ = opened(home, options.url)
    database.migrate()
    with DatabaseRecords(database, "first").transaction() as unit:
        for number in range(options.jobs + options.waiting):
            mine = number >= options.waiting
            queue = "default" if mine or number % 2 else "elsewhere"
            later = None if mine else datetime.now(UTC) + timedelta(days=1)
            unit.enqueue(
                Job(
                    kind="bench",
                    payload="{}",
                    queue=queue,
                    not_before_utc=later if queue == "default" else None,
                )
            )
    context = get_context("spawn")
    begin = context.Event()
    children = [
        context.Process(target=work, args=(home, options.url, str(one), begin))
        for one in range(processes)
    ]
    for child in children:
        child.start()
    time.sleep(1 + processes / 2)  # imports are not measured
    started = time.perf_counter()
    begin.set()
    for child in children:
        child.join()
    elapsed_s = time.perf_counter() - started
    rows = database.execute("SELECT result FROM job WHERE state = 'done'")
    shares = Counter(row[0] for row in rows)
    with database.transaction():
        database.write("DELETE FROM job")
    database.close()
    return options.jobs / elapsed_s, shares


if __name__ == "__main__":
    sys.exit(main())
