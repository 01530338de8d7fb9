"""The process that forks listeners and workers: without it a server goes on, and no child outlives its server."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pacs.app.cradle import ROLES
from tests import processes
from tests.archive import REPOSITORY
from tests.association_fakes import until as until_within
from tests.crash import ct, initialize, kept, serving, store

until = partial(until_within, timeout_s=60)
TWO_AND_TWO = ("--listeners", "2", "--workers", "2")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    initialize(path, jobs={"drain_timeout_s": 5})
    return path


def nurseries(pid: int) -> list[int]:
    return processes.named(pid, "pacs-nursery")


def everybody(pid: int) -> bool:
    """Tell that two listeners and two workers run below one nursery."""
    return [len(found(pid)) for found in (nurseries, processes.listeners, processes.workers)] == [
        *(1, 2, 2)
    ]


def test_children_are_forked_and_end_with_a_killed_server(home: Path) -> None:
    with serving(home, *TWO_AND_TWO) as child:
        assert until(lambda: everybody(child.pid))
        (nursery,) = nurseries(child.pid)
        begun = processes.below(nursery)
        assert len(begun) == 4, "all of them are the nursery's"
        os.kill(child.pid, signal.SIGKILL)
        assert until(lambda: not any(map(processes.runs, [nursery, *begun])))


def test_a_server_without_its_nursery_makes_another_and_serves_on(
    home: Path,
) -> None:
    with serving(home, *TWO_AND_TWO) as child:
        assert until(lambda: everybody(child.pid))
        (nursery,) = nurseries(child.pid)
        begun = processes.below(nursery)
        os.kill(nursery, signal.SIGKILL)
        assert until(lambda: everybody(child.pid) and nurseries(child.pid) != [nursery])
        assert until(lambda: not any(map(processes.runs, begun))), "the others went with theirs"
        assert store(child.port, ct()).Status == 0x0000
        assert len(kept(home)) == 1
        assert child.terminate() == 0


@pytest.mark.parametrize("module", [*ROLES.values(), "pacs.app.cradle", "pacs.app.serve"])
def test_each_finds_what_it_imports_in_an_interpreter_of_its_own(module: str) -> None:
    """Forked ones would not notice: whoever forks them has imported more."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import {module}"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_nursery_that_hangs_is_in_nobody_s_way(home: Path) -> None:
    """Stopped, it tells no end of a child, and reaps none: the server sees them itself."""
    with serving(home, "--listeners", "1", "--workers", "0") as child:
        (nursery,) = nurseries(child.pid)
        (listener,) = processes.listeners(child.pid)
        os.kill(nursery, signal.SIGSTOP)
        assert child.terminate() == 0
        assert not processes.runs(listener) and not processes.runs(nursery)


def test_listeners_do_not_wait_for_the_workers_of_a_dead_nursery(home: Path) -> None:
    with serving(home, "--listeners", "1", "--workers", "1") as child:
        assert until(lambda: len(processes.workers(child.pid)) == 1)
        (nursery,), (worker,) = nurseries(child.pid), processes.workers(child.pid)
        os.kill(worker, signal.SIGSTOP)  # as one that has a long job at hand
        try:
            os.kill(nursery, signal.SIGKILL)
            assert until(lambda: child.log.count("listener-started") == 2)
            assert processes.runs(worker)
            assert store(child.port, ct()).Status == 0x0000
        finally:
            os.kill(worker, signal.SIGKILL)


def test_children_hold_nothing_that_whoever_started_the_server_had(home: Path) -> None:
    read, write = os.pipe()
    with serving(home, *TWO_AND_TWO, pass_fds=(write,)) as child:
        assert until(lambda: everybody(child.pid))
        held = os.fstat(write).st_ino
        for one in processes.below(child.pid):
            open_there = [entry.stat().st_ino for entry in Path(f"/proc/{one}/fd").iterdir()]
            assert held not in open_there
            assert str(Path(f"/proc/{one}/fd/0").readlink()) == os.devnull
    os.close(read)
    os.close(write)
