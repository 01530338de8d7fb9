"""Forwarding and routing of studies of which a file cannot be read: the others go, and it is said."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.app.route import routes
from pacs.app.worker import kinds_of
from pacs.core.attributes import Level
from pacs.core.identifiers import AETitle
from pacs.core.routing import Route, RouteKey
from pacs.jobs.keeper import Keeper
from pacs.jobs.schedules import Scheduler
from pacs.jobs.worker import Worker
from tests.forwarding import QUICK, Scripted, ended, jobs, receiver, record, until
from tests.keeping import ADMIN, data_set, keep, opened

STUDY, SERIES = "1.1", "1.1.1"
LONG_AGO_S = 1_000.0


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, "", **QUICK) as made:
        yield made


@pytest.fixture
def to(archive: Archive) -> Iterator[Scripted]:
    with receiver() as made:
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", made.port)
        yield made


def add(archive: Archive, level: Level, *keys: RouteKey) -> None:
    made = Route(name="r", level=level, destinations=(AETitle("DEST"),), keys=keys)
    routes(archive).add(ADMIN, made)
    archive.snapshots._looked_at = 0.0


def worked(archive: Archive) -> None:
    """Work until every job has ended, with the archive's own routes."""
    settings = archive.settings.jobs
    scheduler = Scheduler(archive.job_table, [], "UTC")
    keeper = Keeper(archive.job_table, scheduler, settings, owner="test", give_up=lambda: None)
    keeper.start()
    worker = Worker(archive.job_table, kinds_of(archive), settings, keeper=keeper)
    try:
        until(lambda: worker.work(threading.Event()) or ended(archive))
    finally:
        keeper.stop()


def file_of(archive: Archive, uid: str) -> Path:
    for place in archive.store.places():
        if archive.reindex.read(place).header.sop_instance_uid == uid:
            return Path(archive.store.path(place))
    raise AssertionError(uid)


def test_what_cannot_be_judged_is_no_reason_to_say_done(archive: Archive, to: Scripted) -> None:
    add(archive, Level.IMAGE, RouteKey(path="KVP", value="120"))
    uids = [f"{SERIES}.{number}" for number in (1, 2, 3)]
    away = uids[0]
    for uid in uids:
        keep(archive, data_set(STUDY, SERIES, uid, KVP="120"))
    kept = file_of(archive, away)
    kept.rename(kept.with_suffix(".away"))
    worked(archive)
    (job,) = jobs(archive)
    assert set(to.got) == set(uids[1:]), "nothing keeps the others back"
    assert job.state.value == "failed" and away in job.last_error
    kept.with_suffix(".away").rename(kept)
    archive.jobs.retry(ADMIN, job.id)
    worked(archive)
    assert sorted(to.got) == uids and set(record(archive, "DEST")) == set(uids)
    assert jobs(archive)[0].state.value == "done"


def test_a_study_fires_though_its_newest_file_is_damaged(archive: Archive, to: Scripted) -> None:
    add(archive, Level.STUDY)
    uids = [f"{SERIES}.{number}" for number in (1, 2, 3)]
    for number, uid in enumerate(uids):
        keep(archive, data_set(STUDY, SERIES, uid), ago_s=LONG_AGO_S - number)
    kept = file_of(archive, uids[-1])
    kept.chmod(0o600)
    kept.write_bytes(b"\0" * kept.stat().st_size)
    worked(archive)
    assert [one.state.value for one in archive.jobs.list(ADMIN, kind="quiet.study")] == ["done"]
    assert set(uids[:-1]) <= set(to.got)
