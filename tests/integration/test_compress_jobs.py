"""The jobs of compression: asked for by arrivals, done in slices, tried again where something failed."""

import threading
from pathlib import Path

import pytest

from pacs.app import compress as attached
from pacs.app.archive import Archive
from pacs.core.work import JobRow
from pacs.services.compress.service import Compression
from storage.database.compress import FormTable
from tests.forms import files, fill, restored
from tests.integration.test_compress import started, verified
from tests.integration.test_jobs import hands, until
from tests.keeping import ADMIN

SETTINGS = {
    "storage__compress": "jpeg-ls",
    "storage__compress_delay_s": "0",
    "storage__compress_tidy_cron": "",
}


def work(archive: Archive) -> JobRow:
    """Let a worker do what is due; gives the one job of the series."""
    with hands(archive, "compress") as worker:
        worker.work(threading.Event())
    (row,) = archive.jobs.list(ADMIN, kind="compress.series")
    return row


def compressed(archive: Archive) -> int:
    return archive.statistics.read(ADMIN)["compressed_instances"]


def test_a_series_is_one_job(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url, **SETTINGS) as archive:
        kept = fill(archive, 3)
        row = work(archive)
        assert (row.state.value, row.attempts, row.progress_total) == ("done", 1, 3)
        assert row.result is not None and '"changed":3' in row.result
        assert compressed(archive) == 3
        assert restored(archive) == kept
        assert verified(archive) == []
        assert len(files(tmp_path)) == 6


def test_a_long_series_lets_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached, "SLICE_S", 0.0)
    with started(tmp_path, **SETTINGS) as archive:
        kept = fill(archive, 5)
        monkeypatch.setattr(FormTable, "page", _one_at_a_time(FormTable.page))
        row = work(archive)
        states = [row.state.value]
        for _ in range(10):
            if row.state.value != "done":
                row = work(archive)
                states.append(row.state.value)
        assert states[-1] == "done"
        assert compressed(archive) == 5 and restored(archive) == kept


def _one_at_a_time(page):  # type: ignore[no-untyped-def]
    def limited(table, scope, target, *, again, after, limit):  # type: ignore[no-untyped-def]
        return page(table, scope, target, again=again, after=after, limit=1)

    return limited


def test_what_failed_is_tried_again_and_what_is_claimed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, **SETTINGS) as archive:
        fill(archive, 2)
        with monkeypatch.context() as patch:
            patch.setattr(archive.store._limits, "reserve_bytes", 1 << 60)
            row = work(archive)
        assert row.state.value == "delayed" and "2 instances failed" in row.last_error
        assert compressed(archive) == 0
        archive.jobs.retry(ADMIN, row.id)
        (held,) = [FormTable(archive.database).held(object_id) for object_id in _first(archive)]
        assert held is not None
        FormTable(archive.database).claim([held], "who has died", 3_600)
        row = work(archive)
        assert row.state.value == "delayed" and "somebody else" in row.last_error
        assert compressed(archive) == 1


def _first(archive: Archive) -> list[str]:
    rows = archive.database.execute("SELECT object_id FROM instance ORDER BY object_id LIMIT 1")
    return [row[0] for row in rows]


def test_a_cancelled_job_stops_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, **SETTINGS) as archive:
        kept = fill(archive, 6)
        changed = Compression._changed

        def cancelling(service, threads, some, target):  # type: ignore[no-untyped-def]
            (row,) = archive.jobs.list(ADMIN, kind="compress.series")
            if row.state.value == "running" and "cancel" not in seen:
                seen.append("cancel")
                archive.jobs.cancel(ADMIN, row.id)
                until(told)
            yield from changed(service, threads, some, target)

        def told() -> bool:
            """The keeper, which looks once a second, has told the job."""
            held = worker._keeper._held
            return held is not None and bool(held.stopping)

        seen: list[str] = []
        monkeypatch.setattr(Compression, "_changed", cancelling)
        with hands(archive, "compress") as worker:
            worker.work(threading.Event())
        (row,) = archive.jobs.list(ADMIN, kind="compress.series")
        assert row.state.value == "cancelled"
        assert 0 < compressed(archive) < 6
        assert restored(archive) == kept


def test_a_setting_that_was_turned_off_ends_the_job(tmp_path: Path) -> None:
    with started(tmp_path, **SETTINGS) as archive:
        fill(archive, 1)
    with started(tmp_path, storage__compress_tidy_cron="") as archive:
        row = work(archive)
        assert row.state.value == "done" and compressed(archive) == 0


def test_the_chore_runs_as_a_job(tmp_path: Path) -> None:
    every_second = {**SETTINGS, "storage__compress_tidy_cron": "* * * * * *"}
    with started(tmp_path, **every_second, storage__keep_original_s="0") as archive:
        fill(archive, 2)
        work(archive)
        stop = threading.Event()
        with hands(archive) as worker:
            until(lambda: worker.work(stop) or len(files(tmp_path)) == 2)
        assert len(files(tmp_path)) == 2
        assert verified(archive) == []
