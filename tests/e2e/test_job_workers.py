"""Worker processes: killed at random, poisoned, drained, orphaned; woken by a broker that forgets or is away."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pacs.app import home as app_home
from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.identifiers import new_object_id
from pacs.core.work import JobState
from storage.instances.receivers import receiver
from tests import brokers, forked, processes
from tests.archive import PACS, REPOSITORY, Tool, environment, free_port
from tests.keeping import ADMIN, NO_CHORES, listed, opened
from tests.tally import TALLY, effects, job, lay

JOBS_AND_KILLS = {"sqlite-without": (2_000, 12), "postgresql-redis": (2_000, 12)}
FEWER = (500, 4)
"""Where each part is one of another combination."""
BOUND_S = 240.0


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture(autouse=True)
def _with_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_home, "installed", lambda: (TALLY,))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return lay(tmp_path / "site")


class Workers:
    """One ``pacs worker`` and the processes it runs."""

    def __init__(
        self,
        home: Path,
        site: Path,
        url: str,
        processes: int,
        *,
        start_new_session: bool = False,
        **settings: str,
    ) -> None:
        named = {key.replace("__", "."): one for key, one in {**NO_CHORES, **settings}.items()}
        child = environment(home, named, url)
        child["PYTHONPATH"] = f"{REPOSITORY}{os.pathsep}{site}"
        self._log = home.with_suffix(".workers.log").open("ab")
        self.process = subprocess.Popen(
            [*PACS, "worker", "--processes", str(processes)],
            env=child,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            start_new_session=start_new_session,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def children(self) -> list[int]:
        """Processes that run jobs now, and no dead ones."""
        return processes.workers(self.process.pid)

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(BOUND_S)

    def close(self) -> None:
        """End it whatever happens."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def working(*arguments: Any, **settings: Any) -> Iterator[Workers]:
    made = Workers(*arguments, **settings)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def archive_of(home: Path, url: str, **settings: str) -> Iterator[Archive]:
    with opened(home, url, extensions=(TALLY,), **{**NO_CHORES, **settings}) as archive:
        yield archive


def ask(archive: Archive, jobs: list[Any], *, at_once: int = 100) -> None:
    for begin in range(0, len(jobs), at_once):
        with archive.ingest._records.transaction() as unit:
            for one in jobs[begin : begin + at_once]:
                unit.enqueue(one)


def counted(archive: Archive) -> dict[str, int]:
    """How many of ours are in which state; chores of the archive come and go beside them."""
    sql = "SELECT state, COUNT(*) FROM job WHERE substr(kind, 1, 6) = 'tally.' GROUP BY state"
    return {state: int(jobs) for state, jobs in archive.database.execute(sql)}


def until(holds: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    limit = time.monotonic() + bound_s
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["without", "redis"])
def test_each_effect_happens_once_though_workers_are_killed(
    url: str, broker: str, tmp_path: Path, site: Path, peer_tool: Tool
) -> None:
    """SIGKILL at random; with a broker, it also forgets everything in the middle."""
    home, chance = tmp_path / "home", random.Random(7)
    total, kills = JOBS_AND_KILLS.get(f"{'postgresql' if url else 'sqlite'}-{broker}", FEWER)
    with ExitStack() as stack:
        settings = {"jobs__poll_s": "0.2", "jobs__lease_s": "20"}
        if broker == "redis":
            address = stack.enter_context(brokers.redis(peer_tool))
            settings |= {"jobs__broker": address, "jobs__sweep_s": "2"}
        archive = stack.enter_context(archive_of(home, url, **settings))
        workers = stack.enter_context(working(home, site, url, 4, **settings))
        ask(archive, [job("count", one) for one in range(total // 2)])
        until(lambda: counted(archive).get("done", 0) > 20)
        ask(archive, [job("count", one) for one in range(total // 2, total)])
        killed = 0
        while (done := counted(archive).get("done", 0)) < total and killed < kills:
            # All along the way, however fast this machine is.
            if workers.children and done >= total * killed // kills:
                os.kill(chance.choice(workers.children), signal.SIGKILL)
                killed += 1
                if broker == "redis" and killed % 4 == 0:
                    brokers.flush(address)
            time.sleep(chance.uniform(0.0, 0.1))
        until(lambda: counted(archive) == {"done": total})
        assert killed > 2
        assert effects(archive) == list(range(total))
        assert workers.terminate() == 0


def test_a_poisoned_job_is_given_up_and_takes_nobody_with_it(
    url: str, tmp_path: Path, site: Path
) -> None:
    home = tmp_path / "home"
    with archive_of(home, url) as archive, working(home, site, url, 2) as workers:
        ask(archive, [job("die"), *(job("count", one) for one in range(20))])
        until(lambda: counted(archive) == {"done": 20, "failed": 1})
        (dead,) = archive.jobs.list(ADMIN, state=JobState.FAILED)
        assert (dead.kind, dead.crashes) == ("tally.die", 3)
        assert effects(archive) == list(range(20))
        assert archive.jobs.list(ADMIN, kind="tally.count", limit=1)[0].crashes == 0
        until(lambda: len(workers.children) == 2)


def test_the_job_at_hand_is_finished_when_workers_are_stopped(
    url: str, tmp_path: Path, site: Path
) -> None:
    home = tmp_path / "home"
    with archive_of(home, url) as archive, working(home, site, url, 1) as workers:
        ask(archive, [job("stubborn", wait_s=2), job("count", 1)])
        until(lambda: counted(archive).get("running") == 1)
        assert workers.terminate() == 0
        assert counted(archive) == {"done": 1, "waiting": 1}


def test_workers_end_with_their_parent_and_give_back(url: str, tmp_path: Path, site: Path) -> None:
    home, hurry = tmp_path / "home", {"jobs__drain_timeout_s": "0.5"}
    with archive_of(home, url) as archive, working(home, site, url, 1, **hurry) as workers:
        ask(archive, [job("stubborn", wait_s=BOUND_S)])
        until(lambda: counted(archive).get("running") == 1)
        (child,) = workers.children
        workers.process.kill()
        until(lambda: not processes.runs(child))
        assert counted(archive) == {"waiting": 1}


def test_what_a_killed_worker_was_receiving_is_settled_by_its_replacement(
    url: str, tmp_path: Path, site: Path
) -> None:
    home = tmp_path / "home"
    folders = home / "store" / "incoming"
    with archive_of(home, url) as archive, working(home, site, url, 1) as workers:
        ask(archive, [job("receive")])
        until(lambda: counted(archive) == {"done": 1})
        (row,) = archive.jobs.list(ADMIN)
        assert (row.crashes, row.result) == (1, '"second"')
        assert [one["StudyInstanceUID"] for one in listed(archive, Level.STUDY)] == [
            f"1.2.{row.id}"
        ]
        assert [one.name for one in folders.iterdir()] == ["worker-0"]
        assert list(folders.rglob("*.part")) == []
        assert workers.terminate() == 0


def test_leftovers_of_workers_nobody_replaces_are_settled_and_those_of_others_left_alone(
    url: str, tmp_path: Path, site: Path
) -> None:
    home = tmp_path / "home"
    folders = home / "store" / "incoming"

    def leave(name: str) -> Path:
        (folders / name).mkdir()
        left = folders / name / f"{new_object_id()}.part"
        left.write_bytes(b"unfinished")
        return left

    with archive_of(home, url) as archive, ExitStack() as stack:
        stack.enter_context(receiver(home / "store"))
        running, forgotten, listening = leave("worker-0"), leave("worker-7"), leave("listener-0")
        workers = stack.enter_context(working(home, site, url, 1))
        until(lambda: not forgotten.exists())
        ask(archive, [job("count", 1)])
        until(lambda: effects(archive) == [1])
        assert running.exists() and listening.exists()
        assert (folders / "worker-1").is_dir()
        with opened(home, url, extensions=(TALLY,), **NO_CHORES) as serving:
            assert serving.reindex.settle() == 0
        assert running.exists() and not listening.exists()
        assert workers.terminate() == 0
    with opened(home, url, extensions=(TALLY,), **NO_CHORES) as serving:
        assert serving.reindex.settle() == 0
    assert not running.exists()


@pytest.mark.parametrize("broker", [brokers.redis, brokers.rabbitmq])
def test_a_message_wakes_a_worker_long_before_its_sweep(
    broker: Callable[[Tool], AbstractContextManager[str]],
    tmp_path: Path,
    site: Path,
    peer_tool: Tool,
) -> None:
    home = tmp_path / "home"
    settings = {"jobs__sweep_s": "3600"}
    with broker(peer_tool) as settings["jobs__broker"], archive_of(home, "", **settings) as archive:
        ask(archive, [job("count", 1)])
        with working(home, site, "", 1, **settings) as workers:
            until(lambda: effects(archive) == [1])
            ask(archive, [job("count", 2)])
            until(lambda: effects(archive) == [1, 2])
            assert workers.terminate() == 0


def test_a_broker_that_is_away_delays_and_no_more(tmp_path: Path, site: Path) -> None:
    home = tmp_path / "home"
    settings = {"jobs__broker": f"redis://127.0.0.1:{free_port()}/0", "jobs__sweep_s": "0.5"}
    with (
        archive_of(home, "", **settings) as archive,
        working(home, site, "", 1, **settings) as workers,
    ):
        ask(archive, [job("count", one) for one in range(50)], at_once=1)
        until(lambda: effects(archive) == list(range(50)))
        assert workers.terminate() == 0


def test_a_schedule_fires_once_a_period_on_two_nodes(url: str, tmp_path: Path, site: Path) -> None:
    homes = [tmp_path / "one", tmp_path / ("two" if url else "one")]
    settings = {"tally__cron": "* * * * * *", "jobs__poll_s": "0.2"}
    with archive_of(homes[0], url) as archive, ExitStack() as stack:
        for home in homes:
            stack.enter_context(working(home, site, url, 1, **settings))
        until(lambda: counted(archive).get("done", 0) >= 5)
        causes = [one.cause for one in archive.jobs.list(ADMIN, kind="tally.count")]
        assert len(causes) == len(set(causes))
        assert all(one.startswith("schedule tally of ") for one in causes)


def test_a_schedule_begins_and_stops_while_workers_run(
    url: str, tmp_path: Path, site: Path
) -> None:
    home, settings = tmp_path / "home", {"jobs__poll_s": "0.2"}

    def silent() -> bool:
        """Nothing for three seconds, though it fires each second."""
        before = effects(archive)
        time.sleep(3)
        return effects(archive) == before

    with archive_of(home, url) as archive, working(home, site, url, 2, **settings) as workers:
        ask(archive, [job("count", 1)])
        until(lambda: effects(archive) == [1])
        archive.peers.add(ADMIN, "TALLY", "127.0.0.1", 104)
        until(lambda: len(effects(archive)) >= 4)
        assert set(effects(archive)) == {1, 5}
        archive.peers.remove(ADMIN, "TALLY")
        until(silent)
        assert workers.terminate() == 0


def test_eight_workers_share_the_work(url: str, tmp_path: Path, site: Path) -> None:
    home = tmp_path / "home"
    with archive_of(home, url) as archive, working(home, site, url, 8) as workers:
        # All of them are at work before it is counted who does how much.
        ask(archive, [job("stubborn", wait_s=0.5) for _ in range(40)])
        until(lambda: counted(archive) == {"done": 40})
        ask(archive, [job("who", wait_s=0.02) for _ in range(400)])
        until(lambda: counted(archive) == {"done": 440})
        shares: dict[str, int] = {}
        for one in archive.jobs.list(ADMIN, kind="tally.who"):
            shares[str(one.result)] = shares.get(str(one.result), 0) + 1
        assert len(shares) == 8, shares
        assert min(shares.values()) >= 400 / 8 / 3, shares
        assert workers.terminate() == 0


@pytest.mark.slow
def test_two_nodes_share_the_work_of_one_database(
    postgres_url: str, tmp_path: Path, site: Path
) -> None:
    """Each does what the other does, give or take a fifth: jobs enough that no start matters."""
    homes = [tmp_path / "one", tmp_path / "two"]
    count = 3_000
    with archive_of(homes[0], postgres_url) as archive, ExitStack() as stack:
        nodes = [
            stack.enter_context(working(home, site, postgres_url, 2, start_new_session=True))
            for home in homes
        ]
        until(lambda: all(len(one.children) == 2 for one in nodes))
        # All are at work before it is counted who does how much.
        ask(archive, [job("stubborn", wait_s=0.5) for _ in range(20)])
        until(lambda: counted(archive) == {"done": 20})
        ask(archive, [job("who", wait_s=0.005) for _ in range(count)], at_once=count)
        until(lambda: counted(archive) == {"done": count + 20})
        done_by = Counter(
            int(str(one.result)) for one in archive.jobs.list(ADMIN, kind="tally.who", limit=count)
        )
        shares = sorted(sum(done_by[pid] for pid in one.children) for one in nodes)
        assert sum(shares) == count, "nobody else did any"
        assert shares[1] - shares[0] <= 0.2 * shares[1], (shares, done_by)
        assert [one.terminate() for one in nodes] == [0, 0]


def command_of(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a way to run ``pacs`` on a home."""

    def pacs(*arguments: str) -> subprocess.CompletedProcess[str]:
        return forked.run_first_fresh(arguments, environment(home, {}), timeout_s=BOUND_S)

    return pacs


def test_a_held_queue_is_seen_and_let_go_on_by_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    pacs = command_of(home)
    with archive_of(home, "") as archive:
        ask(archive, [job("count", one, queue="part:a", alone=True) for one in range(3)])
        claim = archive.job_table.claim("part:a", "test", 60)
        assert claim is not None
        archive.job_table.hold(claim, "Hold: nobody answers", lambda _: 3_600)
        (row,) = json.loads(pacs("job", "list", "--summary", "--json").stdout)
        assert (row["queue"], row["jobs"], row["held_why"]) == ("part:a", 3, "Hold: nobody answers")
        assert row["held_until_utc"] > f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
        assert 'pacs_queue_failures{queue="part:a"} 1.0' in pacs("metrics").stdout
        assert list(archive.job_table.queues()) == []
        assert pacs("job", "retry", "3").returncode == 0
        assert list(archive.job_table.queues()) == ["part:a"]
        assert "held" not in pacs("job", "list", "--summary").stdout
        assert pacs("job", "retry", "3").returncode == 1


def test_dead_letters_are_seen_and_tried_again_by_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    pacs = command_of(home)
    with archive_of(home, "") as archive:
        ask(archive, [job("refuse"), job("count")])
        claim = archive.job_table.claim("default", "test", 60)
        assert claim is not None
        archive.job_table.fail(claim, "no use")
        listed = pacs("job", "list", "--state", "failed")
        assert listed.stdout.split("\t")[:4] == ["1", "failed", "default", "tally.refuse"]
        assert "no use" in pacs("job", "show", "1").stdout
        assert '"jobs": 1' in pacs("job", "list", "--summary", "--json").stdout
        assert pacs("job", "retry", "1").returncode == 0
        assert pacs("job", "retry", "1").returncode == 1
        assert pacs("job", "cancel", "1", "2").returncode == 0
        assert pacs("job", "purge", "--older-than-s", "0").stdout == "2 jobs forgotten\n"
        assert pacs("job", "list", "--json").stdout == "[]\n"
        assert pacs("job", "show", "1").returncode == 1
