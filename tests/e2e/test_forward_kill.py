"""SIGKILL of workers and of the whole server at random while 2,000 jobs forward: each object arrives, each effect is had once."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.forwarding import FORWARD
from pacs.core.sent import SentState
from pacs.core.work import JobState, Policy
from tests import brokers, forked, processes
from tests.archive import REPOSITORY, Tool, data_set_of, environment
from tests.forwarding import Writer, ask, record, until, used, work, writer
from tests.keeping import ADMIN, data_set, keep, opened

STUDIES, INSTANCES = {"sqlite-without": 250, "postgresql-redis": 250}, 2
FEWER_STUDIES = 40
"""Where each part is one of another combination that has 2,000 jobs: enough to be killed in."""
DESTINATIONS = tuple(f"TO{number}" for number in range(8))
WORKERS, WORKER_KILLS, SERVER_KILLS = 3, 9, 2
BOUND_S = 240.0
MOST_CRASHES = Policy().max_crashes


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


class Server:
    """``pacs serve`` with workers, to be killed."""

    def __init__(self, home: Path, url: str, settings: dict[str, str]) -> None:
        named = {key.replace("__", "."): one for key, one in settings.items()}
        self._command = ["serve", "--port", "0", "--workers", str(WORKERS)]
        self._environment = environment(home, named, url)
        self._log = home.with_suffix(".log")
        self.process = self._begun()

    def _begun(self) -> forked.Forked:
        with self._log.open("ab") as log:
            streams = {"stdout": log.fileno(), "stderr": log.fileno()}
            return forked.Forked(self._command, self._environment, REPOSITORY, **streams)

    @property
    def workers(self) -> list[int]:
        """The processes that run jobs."""
        return processes.workers(self.process.pid)

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        for one in (self.process.pid, *processes.below(self.process.pid)):
            _kill(one)
        self.process.wait()

    def begin_again(self) -> None:
        """Serve once more."""
        self.process = self._begun()

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(BOUND_S)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def serving(home: Path, url: str, settings: dict[str, str]) -> Iterator[Server]:
    made = Server(home, url, settings)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


def filled(archive: Archive, many: int) -> None:
    """Keep so many studies, and ask for each to be sent to each destination."""
    studies = [f"1.2.9.{number}" for number in range(many)]
    for study in studies:
        for number in range(INSTANCES):
            keep(archive, data_set(study, f"{study}.1", f"{study}.1.{number}"))
    ask(archive, *(work(study, to) for study in studies for to in DESTINATIONS))


def done(archive: Archive) -> int:
    """How many of the jobs asked for are done; chores of the archive end meanwhile, too."""
    sql = "SELECT COUNT(*) FROM job WHERE state = 'done' AND kind = ?"
    return int(next(archive.database.execute(sql, (FORWARD,)))[0])


def _as_many(archive: Archive, jobs: int) -> bool:
    return done(archive) >= jobs


def all_done(archive: Archive, jobs: int) -> bool:
    """Whether all is done; what chance has killed three times is tried again, as an administrator would."""
    for one in archive.jobs.list(ADMIN, state=JobState.FAILED):
        assert one.crashes == MOST_CRASHES, one.last_error
        archive.jobs.retry(ADMIN, one.id)
    return done(archive) == jobs


def harassed(archive: Archive, server: Server, jobs: int, forget: Callable[[], None]) -> int:
    """Kill workers, now and then everything, all along the way; gives how often."""
    chance, killed, kills = random.Random(11), 0, WORKER_KILLS + SERVER_KILLS
    while killed < kills:
        # By what is done, not by time: however fast this machine is, it happens in the middle.
        due = min(jobs, int(jobs * (killed + chance.uniform(0.0, 1.0)) / kills))
        until(partial(_as_many, archive, due), BOUND_S)
        if done(archive) == jobs:
            break
        if killed % 5 == 4:
            server.kill()
            server.begin_again()
        elif server.workers:
            _kill(chance.choice(server.workers))
        killed += 1
        if killed % 4 == 0:
            forget()
    return killed


def check(archive: Archive, name: str, to: Writer, many: int) -> int:
    """Everything is there, once as far as can be known; gives how many answers were lost."""
    known, received, files = record(archive, name), to.received(), to.files()
    kept = [data_set_of(one) for one in (archive.home / "store").rglob("*.dcm")]
    assert len(known) == len(kept) == many * INSTANCES
    assert {state for state, _, _ in known.values()} == {SentState.SENT}
    assert sorted(files.values()) == sorted(kept)
    assert known.keys() == files.keys() == received.keys()
    # More than once only where it is on record that an answer was lost.
    assert {uid: many for uid, many in received.items() if many > 1 + known[uid][2]} == {}
    assert used(archive, "deliver", name) == many * INSTANCES
    return sum(doubts for _, _, doubts in known.values())


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["without", "redis"])
def test_each_object_arrives_though_workers_and_servers_are_killed(
    url: str, broker: str, tmp_path: Path, peer_tool: Tool
) -> None:
    """With a broker, it also forgets everything in the middle."""
    home = tmp_path / "home"
    many = STUDIES.get(f"{'postgresql' if url else 'sqlite'}-{broker}", FEWER_STUDIES)
    jobs = many * len(DESTINATIONS)
    settings = {"jobs__poll_s": "0.2", "jobs__lease_s": "4", "forward__purge_cron": ""}
    with ExitStack() as stack:
        forget: Callable[[], None] = lambda: None  # noqa: E731 - nothing forgets
        if broker == "redis":
            address = stack.enter_context(brokers.redis(peer_tool))
            settings |= {"jobs__broker": address, "jobs__sweep_s": "1"}
            forget = partial(brokers.flush, address)
        archive = stack.enter_context(opened(home, url, **settings))
        receivers = {
            one: stack.enter_context(writer(peer_tool, tmp_path / one)) for one in DESTINATIONS
        }
        for name, one in receivers.items():
            archive.peers.add(ADMIN, name, "127.0.0.1", one.port)
        filled(archive, many)
        server = stack.enter_context(serving(home, url, settings))
        until(lambda: done(archive) > 20, BOUND_S)
        assert harassed(archive, server, jobs, forget) > 5
        until(lambda: all_done(archive, jobs), BOUND_S)
        assert server.terminate() == 0
        lost = [check(archive, name, one, many) for name, one in receivers.items()]
        assert sum(lost) <= (WORKER_KILLS + WORKERS * SERVER_KILLS) * INSTANCES
