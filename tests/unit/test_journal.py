"""The journal: entries are durable before they count, read back as written, and damage is named."""

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs.core.errors import InstanceCorrupt, StorageFailed
from pacs.core.identifiers import new_object_id
from pacs.core.journal import JournalEntry
from storage.journal import Journal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def append(journal: Journal, reason: str = "because") -> JournalEntry:
    return journal.append(
        "delete",
        made_by="admin",
        reason=reason,
        about={"level": "STUDY", "uid": "1.2.3"},
        object_ids=(new_object_id(), new_object_id()),
    )


def test_entries_are_read_back_as_they_were_written(root: Path) -> None:
    journal = Journal(root)
    written = [append(journal, reason) for reason in ("one", "zwei", "三\n")]
    assert list(Journal(root).entries()) == sorted(written, key=lambda one: one.id)


def test_order_is_kept_when_the_clock_is_set_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(root)
    first = append(journal)
    early_ns = time.time_ns() - 400 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: early_ns)
    second, third = append(journal), append(journal)
    assert first.id < second.id < third.id
    assert [one.id for one in journal.entries()] == [first.id, second.id, third.id]


def test_what_a_crash_left_unfinished_is_swept(root: Path) -> None:
    journal = Journal(root)
    kept = append(journal)
    (month,) = root.glob("*/*")
    (month / f"{new_object_id()}.part").write_text("{")
    journal.sweep()
    assert [one.name for one in month.iterdir()] == [f"{kept.id}.json"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reason=st.text(max_size=200))
def test_any_reason_survives(root: Path, reason: str) -> None:
    journal = Journal(root)
    written = append(journal, reason)
    assert written in list(journal.entries())


def test_entries_that_were_obeyed_are_left_out(root: Path) -> None:
    journal = Journal(root)
    first, second, third = (append(journal) for _ in range(3))
    assert [one.id for one in journal.entries(obeyed={second.id})] == sorted([first.id, third.id])


def test_an_entry_that_was_not_finished_does_not_count(root: Path) -> None:
    journal = Journal(root)
    written = append(journal)
    (path,) = root.rglob("*.json")
    (path.with_name(f"{new_object_id()}.part")).write_text('{"id": "')
    assert list(journal.entries()) == [written]


def test_a_damaged_entry_is_named(root: Path) -> None:
    journal = Journal(root)
    append(journal)
    (path,) = root.rglob("*.json")
    path.write_text('{"id": "x"}')
    with pytest.raises(InstanceCorrupt, match=path.name):
        list(journal.entries())


def test_content_name_and_folders_are_synced_in_this_order(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(root)
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recording(descriptor: int) -> None:
        fsync(descriptor)
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def renaming(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(Path, "rename", renaming)
    append(journal)
    (path,) = root.rglob("*.json")
    assert events[0] == str(path.with_suffix(".part"))
    assert events[1] == "rename"
    assert events[2:] == [str(one) for one in path.parents[:4]]


def test_a_failed_sync_is_an_error_and_is_not_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(root)
    asked = []

    def failing(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageFailed):
            append(journal)
    assert len(asked) == 1
    assert list(journal.entries()) == []
