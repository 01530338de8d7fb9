"""Workers that die in the middle of a workitem cost time only; several share one."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pacs.core.workitems import WorkitemState
from tests.archive import REPOSITORY, environment
from tests.forwarding import until
from tests.integration.test_process_workitems import QUIET, Home, home_of
from tests.keeping import ADMIN

COUNT = 40
BOUND_S = 120.0
SETTINGS = {**QUIET, "jobs__lease_s": "2", "jobs__poll_s": "0.1", "process__piece_images": "4"}


@contextmanager
def worker(home: Path, url: str, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process, ended at the end."""
    named = {key.replace("__", "."): value for key, value in SETTINGS.items()}
    child = environment(home, named, url)
    process = subprocess.Popen(
        [sys.executable, "-m", "pacs.app.worker", "--home", str(home)],
        env=child,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def owners(home: Home) -> set[int]:
    """Process ids of workers that have a piece at hand."""
    rows = home.archive.jobs.list(ADMIN, kind="process.piece")
    held = [one.lease_owner or "" for one in rows if one.state.value == "running"]
    return {int(one.rpartition(":")[2]) for one in held if one}


def done_pieces(home: Home) -> int:
    return home.jobs("process.piece").count("done")


def killed_at_work(home: Home, worker: subprocess.Popen[bytes]) -> bool:
    """Kill a worker that has a piece at hand; it is stopped first, so that it cannot end it meanwhile."""
    worker.send_signal(signal.SIGSTOP)
    at_work = worker.pid in owners(home)
    worker.send_signal(signal.SIGKILL if at_work else signal.SIGCONT)
    return at_work


def test_a_worker_killed_in_the_middle_costs_time_only(url: str, tmp_path: Path) -> None:
    path = tmp_path / "home"
    with (
        home_of(path, url, COUNT, **SETTINGS) as home,
        (tmp_path / "workers.log").open("wb") as log,
    ):
        uid = home.ask("nlm", parameters={"patch_px": "7", "distance_px": "15"})
        with (
            worker(path, url, log) as first,
            worker(path, url, log) as second,
        ):
            until(lambda: done_pieces(home) >= 2, BOUND_S)
            until(lambda: killed_at_work(home, first) or killed_at_work(home, second), BOUND_S)
            until(lambda: home.worklist.read(uid).state is not WorkitemState.IN_PROGRESS, BOUND_S)
            until(lambda: home.jobs("process.deliver") == ["done"], BOUND_S)
        item = home.worklist.read(uid)
        assert item.state is WorkitemState.COMPLETED, (tmp_path / "workers.log").read_text()[
            -2_000:
        ]
        ((series, uids),) = item.results().items()
        assert len(uids) == len(set(uids)) == COUNT
        assert home.held(series) == sorted(uids)
        assert home.files(series) == COUNT, "no further version of any"
        assert home.usage() == [("local", "nlm", home.study, COUNT)]
        crashes = [one.crashes for one in home.archive.jobs.list(ADMIN, kind="process.piece")]
        assert sum(crashes) >= 1
        assert item.told == sorted(item.told, key=float)


def test_two_workers_share_one_series(tmp_path: Path) -> None:
    path = tmp_path / "home"
    with (
        home_of(path, "", COUNT, **SETTINGS) as home,
        (tmp_path / "workers.log").open("wb") as log,
        worker(path, "", log),
        worker(path, "", log),
    ):
        names = path / "store" / "receivers"
        until(lambda: len(list(names.glob("worker-*.lock"))) == 2, BOUND_S)
        uid = home.ask("nlm", parameters={"patch_px": "7", "distance_px": "15"})
        seen: set[int] = set()

        def ended() -> bool:
            seen.update(owners(home))
            return home.worklist.read(uid).state is WorkitemState.COMPLETED

        until(ended, BOUND_S)
        assert len(seen) == 2
        ((_, uids),) = home.worklist.read(uid).results().items()
        assert len(set(uids)) == COUNT
