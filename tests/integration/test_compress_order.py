"""The order in which a form becomes the one that is spoken of: content, proof, name, folder, row; removal last. Design law 1."""

import os
from pathlib import Path
from typing import Any

import pytest

from pacs.core.forms import Change, Outcome
from pacs.core.records import Place
from storage.database.compress import FormTable
from storage.instances.disk import DiskStore
from tests.forms import compress, files, fill, tidy
from tests.integration.test_compress import started


def recording(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write down what reaches the disk and the index, in the order in which it came to its end."""
    said: list[str] = []
    fsync = os.fsync

    def on_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        fsync(descriptor)
        if "audit" in path.parts or "audit-chain" in path.parts:
            return  # the trail writes out its own, in its own time
        if path.suffix == ".part" or path.is_dir():
            said.append("fsync folder" if path.is_dir() else "fsync content")

    def on(owner: Any, name: str, word: str) -> None:
        done = getattr(owner, name)

        def wrapped(*arguments: Any) -> Any:
            result = done(*arguments)
            said.append(word)
            return result

        monkeypatch.setattr(owner, name, wrapped)

    monkeypatch.setattr(os, "fsync", on_fsync)
    on(os, "replace", "name")
    on(FormTable, "claim", "claim committed")
    on(FormTable, "swap", "row")
    on(DiskStore, "check", "proof")
    on(DiskStore, "verify", "read whole")
    on(DiskStore, "remove", "remove")
    return said


FOLDERS = ["fsync folder"]


@pytest.mark.parametrize("back", [False, True])
def test_nothing_is_spoken_of_before_it_is_durable_and_proved(
    back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        if back:
            compress(archive)
            tidy(archive)
        archive.audit.record("begun", None)  # its chain has a key to be named, once
        with monkeypatch.context() as patch:
            said = recording(patch)
            assert compress(archive, None if back else "jpeg-ls").outcomes == {Outcome.CHANGED: 1}
        folders = said.count("fsync folder")
        assert folders >= 1
        if back:
            expected = ["claim committed", "proof", "fsync content"]
        else:
            expected = ["claim committed", "read whole", "fsync content", "proof"]
        assert said == [*expected, "name", *FOLDERS * folders, "row"]
        with monkeypatch.context() as patch:
            said = recording(patch)
            assert tidy(archive) == 1
        assert said == ["read whole", "remove"]


def test_a_removal_that_is_not_committed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes before its note: a crash in between finds the note again, and nothing to do."""
    with started(tmp_path) as archive:
        fill(archive, 1)
        compress(archive)
        remove = DiskStore.remove

        def dying(store: DiskStore, place: Place) -> None:
            remove(store, place)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(DiskStore, "remove", dying)
            with pytest.raises(KeyboardInterrupt):
                tidy(archive)
        assert len(files(tmp_path)) == 1
        rows = list(archive.database.execute("SELECT object_id, keep FROM form_change"))
        assert len(rows) == 1 and (tmp_path / "store" / rows[0][1]).exists()
        assert tidy(archive) == 0
        assert list(archive.database.execute("SELECT * FROM form_change")) == []
        assert len(files(tmp_path)) == 1


def test_what_was_left_unnamed_goes_after_a_day(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        unfinished = tmp_path / "store" / "reencoding"
        unfinished.mkdir()
        for name, age_s in (("new.part", 3_600), ("old.part", 90_000)):
            (unfinished / name).write_bytes(b"x")
            then = (unfinished / name).stat().st_mtime - age_s
            os.utime(unfinished / name, (then, then))
        assert tidy(archive) == 1
        assert [one.name for one in unfinished.iterdir()] == ["new.part"]


def test_a_claim_is_nobody_elses(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        table = FormTable(archive.database)
        (object_id,) = next(archive.database.execute("SELECT object_id FROM instance"))
        held = table.held(object_id)
        assert held is not None
        assert table.claim([held], "mine", 60) == [held]
        assert table.claim([held], "yours", 60) == []
        assert not table.swap(held, held, "yours", 0)
        assert table.due("chore", 60, 10) == []
        table.refuse(held, "jpeg-ls", "r", "yours")
        assert table.claim([held], "yours", 60) == [], "only who holds it gives it back"
        table.release(held, "mine")
        change = Change(object_id=object_id, keep=held.place.name, token="chore", purged=False)
        assert table.due("chore", 60, 10) == [change]
        assert table.claim([held], "yours", 60) == [], "the chore is at it"
        table.postpone(change, 60)
        assert table.claim([held], "yours", 60) == [held]
