"""Workers of a server: started with it, replaced alone, ended with it."""

import os
import signal
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests import processes
from tests.archive import free_port
from tests.association_fakes import until as until_within
from tests.crash import Child, configure, initialize, pacs, serving

until = partial(until_within, timeout_s=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    # Seconds stand first: each second asks for a purge.
    initialize(path, jobs={"purge_deletions_cron": "* * * * * *", "drain_timeout_s": 5})
    return path


def workers(child: Child) -> list[int]:
    """Processes that run jobs."""
    return processes.workers(child.pid)


def done(home: Path) -> int:
    """Purges that have been made."""
    listed = pacs(home, "job", "list", "--state", "done", "--kind", "delete.purge", "--json")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.count('"id"')


def test_a_server_runs_scheduled_jobs_and_takes_its_workers_along(home: Path) -> None:
    with serving(home, "--listeners", "1", "--workers", "2") as child:
        assert until(lambda: len(workers(child)) == 2)
        assert until(lambda: done(home) > 0)
        killed, spared = workers(child)
        os.kill(killed, signal.SIGKILL)
        assert until(lambda: len(workers(child)) == 2 and killed not in workers(child))
        assert spared in workers(child)
        before = done(home)
        assert until(lambda: done(home) > before)
        held = workers(child)
        assert child.terminate() == 0
    assert not any(processes.runs(pid) for pid in held)


def test_a_server_answers_how_deep_its_queues_are_until_it_ends(home: Path) -> None:
    port = free_port()
    jobs = {"purge_deletions_cron": "* * * * * *", "drain_timeout_s": 5}
    configure(home, jobs=jobs, metrics={"port": port})
    with serving(home, "--listeners", "1", "--workers", "0") as child:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            served = answer.read().decode()
        assert "pacs_store_free_bytes " in served
        assert 'pacs_outbox_events{state="waiting"} 0.0' in served
        assert child.terminate() == 0
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60)
    with serving(home, "--listeners", "1", "--workers", "1") as child:
        assert until(lambda: done(home) > 0)
        child.terminate()
    printed = pacs(home, "metrics")
    assert printed.returncode == 0, printed.stderr
    assert "# TYPE pacs_jobs_oldest_seconds gauge" in printed.stdout
    assert 'state="done"' not in printed.stdout


def test_workers_end_with_a_killed_server(home: Path) -> None:
    with serving(home, "--listeners", "1", "--workers", "1") as child:
        assert until(lambda: len(workers(child)) == 1)
        held = workers(child)
        child.kill()
        assert until(lambda: not any(processes.runs(pid) for pid in held))


def test_a_server_without_workers_leaves_jobs_to_others(home: Path) -> None:
    with serving(home, "--listeners", "1", "--workers", "0") as child:
        assert workers(child) == []
        assert child.terminate() == 0
    assert done(home) == 0
