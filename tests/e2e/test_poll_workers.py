"""Polls run by worker processes: on a schedule, killed in the middle, on two nodes, at a peer that comes back."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs.app.archive import Archive
from pacs.core.polling import FetchBy
from tests import forked, processes
from tests.archive import REPOSITORY, Tool, environment, free_port, serving
from tests.association_fakes import until
from tests.keeping import ADMIN, NO_CHORES, opened
from tests.poll_peer import FakePeer
from tests.polling import add_poll, dcmqrscp, in_index, send, study_of, uids

PATIENCE_S = 60.0
MOVED = "Received Move SCP"
QUICK = {
    "jobs.poll_s": "0.1",
    **{name.replace("__", "."): "" for name in NO_CHORES},
    "jobs.hold_first_s": "0.2",
    "jobs.hold_max_s": "0.5",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@contextmanager
def working(home: Path, url: str, **settings: str) -> Iterator[int]:
    """Run ``pacs worker`` on a home; ends with SIGTERM, gives its process id."""
    with home.with_suffix(".workers.log").open("ab") as log:
        process = forked.Forked(
            ["worker", "--processes", "1"],
            environment(home, {**QUICK, **settings}, url),
            REPOSITORY,
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
    try:
        yield process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def waits_until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_new_studies_come_by_schedule(url: str, peer_tool: Tool, tmp_path: Path) -> None:
    """Added with the command line while the server runs; studies arrive between and during polls."""
    with (
        serving(tmp_path / "home", url, {**QUICK, "jobs.workers": "1"}) as archive,
        dcmqrscp(peer_tool, tmp_path / "peer", archive.port) as peer,
    ):
        archive.pacs("peer", "add", "PEER", "127.0.0.1", str(peer.port))
        archive.pacs("poll", "add", "PEER", "--cron", "* * * * * *", "--by", "move")
        everything: list[Dataset] = []
        for number in range(4):
            images = study_of(2, 3)
            send(peer_tool, peer.port, images, tmp_path / str(number))
            everything += images
        waits_until(lambda: len(archive.kept()) == len(everything))
        (row,) = archive.listed("poll", "list")
        assert (row["name"], row["ae_title"], row["trouble"]) == ("PEER", "PEER", "")
        moves = peer.count(MOVED)
        assert moves >= 4
        with opened(tmp_path / "home", url) as same:
            runs = _ended(same)
            waits_until(lambda: _ended(same) > runs + 1)
            assert peer.count(MOVED) == moves
            assert in_index(same) == uids(everything)


@pytest.mark.parametrize("by", FetchBy)
def test_after_a_worker_was_killed_the_next_goes_on_with_what_is_missing(
    by: FetchBy, url: str, tmp_path: Path
) -> None:
    """SIGKILL in the middle of fetching, twice; nothing that had come is asked for again."""
    home, images = tmp_path / "home", study_of(8, 6)
    peer = FakePeer(images=images, pause_s=0.15)
    with serving(home, url, {**QUICK, "jobs.workers": "1"}) as server, peer.listening() as port:
        peer.our_port = server.port
        server.pacs("peer", "add", "PEER", "127.0.0.1", str(port))
        server.pacs("poll", "add", "PEER", "--cron", "", "--by", by.value)
        server.pacs("poll", "run", "PEER")
        with opened(home, url) as archive:
            for several in (3, 7):
                waits_until(partial(_came, archive, several))
                (worker,) = processes.workers(server.process.pid)
                os.kill(worker, signal.SIGKILL)
                before = set(in_index(archive))
                waits_until(partial(_asked_more, peer, len(peer.asked)))
                named = _named(peer.asked[-1])
                assert named and not named & before
            waits_until(lambda: len(in_index(archive)) == len(images))
            waits_until(lambda: _ended(archive) == 1)
            assert in_index(archive) == uids(images)
            assert len(server.kept()) == len(images)
            assert server.arriving() == []  # successors settle what the killed ones left
            assert archive.polls.show(ADMIN, "PEER").failed == []


def _came(archive: Archive, several: int) -> bool:
    return len(in_index(archive)) >= several


def _asked_more(peer: FakePeer, times: int) -> bool:
    return len(peer.asked) > times


def _named(asked: Dataset) -> set[str]:
    wanted = asked.get("SOPInstanceUID") or asked.SeriesInstanceUID
    return {wanted} if isinstance(wanted, str) else set(wanted)


def _ended(archive: Archive) -> int:
    jobs = archive.jobs.list(ADMIN, kind="poll.run")
    return sum(one.state.value == "done" for one in jobs)


def test_two_nodes_poll_a_peer_one_at_a_time(postgres_url: str, tmp_path: Path) -> None:
    """Two polls of one peer, due every second on both nodes: nobody is there twice at once."""
    images = [one for _ in range(6) for one in study_of(2)]
    peer = FakePeer(images=images, pause_s=0.05)
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    (second / "store").symlink_to(first / "store")
    with opened(first, postgres_url) as archive, peer.listening() as port:
        for name in ("PEER", "AGAIN"):
            add_poll(archive, port, FetchBy.GET, name=name, cron="* * * * * *", max_instances=2)
        with working(first, postgres_url), working(second, postgres_url):
            waits_until(lambda: len(in_index(archive)) == len(images))
            done = _ended(archive)
            waits_until(lambda: _ended(archive) > done + 4)
    assert sorted(peer.sent) == uids(images)
    assert peer.most_at_once == 1


def test_a_peer_that_comes_back_is_polled_by_itself(url: str, tmp_path: Path) -> None:
    peer, port = FakePeer(images=study_of(3)), free_port()
    with opened(tmp_path / "home", url) as archive:
        add_poll(archive, port, FetchBy.GET)
        archive.polls.run(ADMIN, "PEER", now=False)
        with working(tmp_path / "home", url):
            waits_until(lambda: any(one.held_until_utc for one in archive.jobs.depths(ADMIN)))
            with peer.listening(port):
                waits_until(lambda: _ended(archive) == 1)
            (job,) = archive.jobs.list(ADMIN, kind="poll.run")
        assert (job.attempts, in_index(archive)) == (1, uids(peer.images))


def test_a_run_now_does_not_wait_for_the_peers_time(tmp_path: Path) -> None:
    peer, port = FakePeer(images=study_of(1)), free_port()
    patient = {"jobs__hold_first_s": "3600", "jobs__hold_max_s": "3600"}
    with opened(tmp_path / "home", **patient) as archive:
        add_poll(archive, port, FetchBy.GET)
        archive.polls.run(ADMIN, "PEER", now=False)
        with working(
            tmp_path / "home", "", **{"jobs.hold_first_s": "3600", "jobs.hold_max_s": "3600"}
        ):
            waits_until(lambda: any(one.held_until_utc for one in archive.jobs.depths(ADMIN)))
            with peer.listening(port):
                archive.polls.run(ADMIN, "PEER", now=False)
                assert not until(lambda: len(peer.found) > 0, 1.0)
                archive.polls.run(ADMIN, "PEER", now=True)
                waits_until(lambda: _ended(archive) == 1)
        assert in_index(archive) == uids(peer.images)
