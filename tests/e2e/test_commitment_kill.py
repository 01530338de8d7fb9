"""A server killed before the report, a worker killed before the answer: the job goes on, and ends with what was reported."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pacs.app.archive import Archive, open_archive
from pacs.core.work import JobState
from tests.association_fakes import until as until_within
from tests.crash import initialize, serving
from tests.e2e.test_commitment import UIDS, Committer, ask, information, row_of
from tests.e2e.test_serve_workers import workers
from tests.keeping import ADMIN, loaded_for

until = partial(until_within, timeout_s=60)
BOUNDS = {
    # So small that 50 references are three transactions, each report within our own bounds.
    "association": {"max_identifier_bytes": 4_096},
    "commitment": {"wait_on_association_s": 0.2, "max_references": 10_000},
    "jobs": {"lease_s": 5, "purge_deletions_cron": "", "purge_jobs_cron": ""},
}


@contextmanager
def beside(home: Path) -> Iterator[Archive]:
    """Open the records beside the server."""
    with open_archive(home, loaded_for(home)) as archive:
        yield archive


def result(archive: Archive) -> Any:
    assert until(lambda: row_of(archive).state is JobState.DONE), row_of(archive)
    return json.loads(str(row_of(archive).result))


def test_a_report_after_the_server_was_killed(tmp_path: Path) -> None:
    home, committer = tmp_path / "home", Committer()
    initialize(home, **BOUNDS)
    with beside(home) as archive, committer.listening() as port:
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *UIDS)
        with serving(home, "--listeners", "1", "--workers", "1") as child:
            assert until(lambda: row_of(archive).state is JobState.DELAYED)
            child.kill()
        assert len(committer.asked) == 1
        with (
            serving(home, "--listeners", "1", "--workers", "1") as child,
            committer.calling(child.port) as association,
        ):
            made = information(committer.asked[0])
            assert committer.report(association, made) == 0x0000
            assert result(archive) == {"offered": True, "committed": 3, "failed": {}}
    assert len(committer.asked) == 1


def test_a_worker_killed_while_it_waits_for_the_answer_asks_anew(tmp_path: Path) -> None:
    home, committer = tmp_path / "home", Committer()
    initialize(home, **BOUNDS)
    uids = [f"1.2.826.0.1.3680043.10.511.1{number:040d}" for number in range(1, 51)]

    def die() -> None:
        committer.on_asked = lambda: None
        for pid in workers(child):
            os.kill(pid, signal.SIGKILL)

    committer.on_asked = die
    with (
        beside(home) as archive,
        committer.listening() as port,
        serving(home, "--listeners", "1", "--workers", "1") as child,
    ):
        archive.peers.add(ADMIN, "COMMITTER", "127.0.0.1", port)
        ask(archive, "COMMITTER", *uids)
        assert until(lambda: len(committer.asked) == 4), len(committer.asked)
        assert committer.asked[0].ReferencedSOPSequence == committer.asked[1].ReferencedSOPSequence
        assert len({one.TransactionUID for one in committer.asked}) == 4
        assert until(lambda: row_of(archive).state is JobState.DELAYED)
        with committer.calling(child.port) as association:
            for one in committer.asked[1:]:
                made = information(one, failed=uids[:1])
                assert committer.report(association, made) == 0x0000
        found = result(archive)
        assert found == {"offered": True, "committed": 49, "failed": {uids[0]: 0x0112}}
