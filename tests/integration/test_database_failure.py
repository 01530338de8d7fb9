"""The database fails before, at and after a commit: no acknowledged loss, the right status, doubt settled at start.

PS3.4 Table B.2-1 (0xA702 of the range A7xx). On SQLite failures are injected
into an archive in this process; PostgreSQL is really stopped.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from pacs.app.archive import Archive
from pacs.core.caller import admin
from pacs.core.errors import RecordsFailed
from tests.crash import (
    Cluster,
    arriving,
    associated,
    ct,
    find_instances,
    get_study,
    in_process,
    initialize,
    kept,
    serving,
    store,
)

RECORDS_FAILED = 0xA702
PROCESSING_FAILURE = 0x0110


class Faults:
    """Puts faults where the archive's database commits, writes and reads."""

    def __init__(self, archive: Archive, patch: pytest.MonkeyPatch) -> None:
        self._archive = archive
        self._patch = patch
        self._commit = archive.database.peewee.commit
        self.commits = 0

    def refuse(self, *_: object, **__: object) -> Any:
        """Fail as a database that has gone."""
        raise peewee.OperationalError("server closed the connection unexpectedly")

    def _commit_then(self, first: Callable[[], object], error: BaseException) -> None:
        def commit() -> None:
            self.commits += 1
            first()
            raise error

        self._patch.setattr(self._archive.database.peewee, "commit", commit)

    def lose_answer_of_commit(self) -> None:
        """Commit, and then report failure: the rows are there, nobody knows."""
        gone = peewee.OperationalError("server closed the connection unexpectedly")
        self._commit_then(self._commit, gone)

    def refuse_commit(self, error: BaseException | None = None) -> None:
        """Fail before anything is committed."""
        self._commit_then(lambda: None, error or peewee.OperationalError("disk I/O error"))

    def refuse_statement(self, beginning: str) -> None:
        """Fail at the first statement that begins so."""
        execute_sql = self._archive.database.peewee.execute_sql
        if beginning == "BEGIN":
            self._patch.setattr(self._archive.database.peewee, "begin", self.refuse)

        def execute(sql: str, *more: Any, **named: Any) -> Any:
            return self.refuse() if sql.startswith(beginning) else execute_sql(sql, *more, **named)

        self._patch.setattr(self._archive.database.peewee, "execute_sql", execute)

    def refuse_reads_after_commit(self) -> None:
        """From the first commit on nobody answers any more."""
        execute_sql = self._archive.database.peewee.execute_sql

        def execute(sql: str, *more: Any, **named: Any) -> Any:
            return self.refuse() if self.commits else execute_sql(sql, *more, **named)

        self._patch.setattr(self._archive.database.peewee, "execute_sql", execute)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def found(port: int, one: Any) -> set[str]:
    return find_instances(port, one.StudyInstanceUID, [one.SeriesInstanceUID])


def assert_nothing_kept(home: Path, port: int, one: Any) -> None:
    assert kept(home) == [] and arriving(home) == []
    assert found(port, one) == set()


def damages(archive: Archive) -> list[Any]:
    return list(archive.verification.run(admin("test"), lambda: None))


@pytest.mark.parametrize(
    "statement", ["BEGIN", "SELECT i.registrant", "INSERT INTO patient", "INSERT INTO usage_fact"]
)
def test_a_failure_before_commit_keeps_nothing(
    statement: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ct()
    with in_process(home) as (archive, port):
        with monkeypatch.context() as patch:
            Faults(archive, patch).refuse_statement(statement)
            answer = store(port, one)
        assert answer.Status == RECORDS_FAILED
        assert answer.ErrorComment == RecordsFailed.peer_comment
        assert_nothing_kept(home, port, one)
        assert store(port, one).Status == 0x0000
        assert found(port, one) == {str(one.SOPInstanceUID)}


def test_a_commit_that_did_not_happen_keeps_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ct()
    with in_process(home) as (archive, port):
        with monkeypatch.context() as patch:
            Faults(archive, patch).refuse_commit()
            assert store(port, one).Status == RECORDS_FAILED
        assert_nothing_kept(home, port, one)
        assert store(port, one).Status == 0x0000


def test_a_commit_whose_answer_was_lost_is_a_success(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ct()
    with in_process(home) as (archive, port):
        with monkeypatch.context() as patch:
            Faults(archive, patch).lose_answer_of_commit()
            assert store(port, one).Status == 0x0000
        assert len(kept(home)) == 1 and arriving(home) == []
        assert get_study(port, one.StudyInstanceUID).keys() == {one.SOPInstanceUID}
        assert damages(archive) == []


@pytest.mark.parametrize("committed", [True, False])
def test_doubt_that_nobody_can_settle_waits_for_start_up(
    committed: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ct()
    with in_process(home) as (archive, port):
        with monkeypatch.context() as patch:
            faults = Faults(archive, patch)
            faults.refuse_reads_after_commit()
            if committed:
                faults.lose_answer_of_commit()
            else:
                faults.refuse_commit()
            assert store(port, one).Status == RECORDS_FAILED
        assert len(kept(home)) == 1, "a file whose rows may be committed must stay"
        assert len(arriving(home)) == 1
        assert damages(archive) == []
    with in_process(home) as (archive, port):
        assert arriving(home) == []
        assert len(kept(home)) == 1
        assert found(port, one) == {str(one.SOPInstanceUID)}
        assert get_study(port, one.StudyInstanceUID).keys() == {one.SOPInstanceUID}
        assert damages(archive) == []
        assert store(port, one).Status == 0x0000
        assert len(kept(home)) == 1


def test_doubt_is_settled_whatever_went_wrong_at_commit(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of another kind, after the rows were committed, must not take their file away."""
    one = ct()
    with in_process(home) as (archive, port):
        with monkeypatch.context() as patch:
            faults = Faults(archive, patch)
            faults._commit_then(faults._commit, MemoryError())
            assert store(port, one).Status == 0x0000
        assert len(kept(home)) == 1 and arriving(home) == []
        assert get_study(port, one.StudyInstanceUID).keys() == {one.SOPInstanceUID}
        assert damages(archive) == []


def test_a_rule_that_fails_at_arrival_keeps_nothing(home: Path) -> None:
    """Usage, jobs and rows are one transaction: what one of them refuses, none of them holds."""
    one = ct()

    def broken(*_: object) -> Iterator[Any]:
        raise ZeroDivisionError

    with in_process(home) as (archive, port):
        archive.ingest.add_rule(broken)
        assert store(port, one).Status == PROCESSING_FAILURE
        assert_nothing_kept(home, port, one)


def test_rows_without_their_file_never_make_a_success(home: Path) -> None:
    """What is held by the index alone is not held: the sender keeps its copy."""
    one = ct()
    with in_process(home) as (archive, port):
        assert store(port, one).Status == 0x0000
        (path,) = kept(home)
        path.unlink()
        assert store(port, one).Status == 0xA703
        assert kept(home) == [] and arriving(home) == []
        assert [damage.kind for damage in damages(archive)] == ["missing"]


@pytest.fixture
def own_cluster(peer_tool: Callable[[str], str]) -> Iterator[Cluster]:
    """Run a PostgreSQL cluster that only this test uses, and may stop."""
    one = Cluster(peer_tool("initdb"), peer_tool("pg_ctl"))
    try:
        one.start()
        yield one
    finally:
        one.remove()


def test_postgresql_commits_are_synchronous(home: Path, postgres_url: str) -> None:
    with in_process(home, database={"url": postgres_url}) as (archive, _):
        assert list(archive.database.execute("SHOW synchronous_commit")) == [("on",)]


def test_sqlite_commits_are_synchronous(home: Path) -> None:
    with in_process(home) as (archive, _):
        full = 2
        assert list(archive.database.execute("PRAGMA synchronous")) == [(full,)]
        assert list(archive.database.execute("PRAGMA journal_mode")) == [("wal",)]


def test_postgresql_stops_and_comes_back_while_the_archive_serves(
    home: Path, own_cluster: Cluster
) -> None:
    one, two = ct(), ct()
    initialize(home, database={"url": f"{own_cluster.address}/postgres", "timeout_s": 5})
    with serving(home) as child:
        with associated(child.port) as association:
            assert association.send_c_store(one).Status == 0x0000
            own_cluster.stop()
            answer = association.send_c_store(two)
            assert answer.Status == RECORDS_FAILED
            assert answer.ErrorComment == RecordsFailed.peer_comment
            assert association.send_c_store(two).Status == RECORDS_FAILED
            own_cluster.start()
            assert association.send_c_store(two).Status == 0x0000
        assert get_study(child.port, one.StudyInstanceUID).keys() == {one.SOPInstanceUID}
        assert get_study(child.port, two.StudyInstanceUID).keys() == {two.SOPInstanceUID}
        assert len(kept(home)) == 2
        assert child.terminate() == 0
    with serving(home) as child:
        assert arriving(home) == []
        assert found(child.port, one) and found(child.port, two)


def test_connections_that_lay_idle_while_postgresql_restarted_are_not_used_again(
    home: Path, own_cluster: Cluster
) -> None:
    """Four idle connections in the pool must not become four failures."""
    initialize(home, database={"url": f"{own_cluster.address}/postgres", "timeout_s": 5})
    with serving(home) as child:
        for _ in range(2):
            assert _parallel_stores(child.port, 4) == [0x0000] * 4
            own_cluster.stop()
            own_cluster.start()
        assert _parallel_stores(child.port, 4) == [0x0000] * 4
        assert child.terminate() == 0


def _parallel_stores(port: int, count: int) -> list[int]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(count) as pool:
        return [int(one.Status) for one in pool.map(lambda _: store(port, ct()), range(count))]
