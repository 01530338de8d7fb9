"""Whatever fails while a form is made, proved, named or spoken of: one good file stays, and the index knows it."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.errors import NotAsReceived, RecordsFailed
from pacs.core.forms import Outcome
from pacs.core.records import Held, Place
from processing.datasets.restorer import SandboxedRestorer
from storage.database.compress import FormTable
from storage.instances.form import DiskForm
from storage.instances.incoming import DiskIncoming
from tests.forms import compress, files, fill, restored, tidy
from tests.integration.test_compress import indexed, started, verified
from tests.integration.test_fsync_failure import FailingFsync
from tests.keeping import ADMIN

STEPS: dict[str, Callable[[Path], bool]] = {
    "file": lambda path: path.parent.name == "reencoding",
    "folder": lambda path: path.is_dir() and len(path.name) == 32,
}


def unchanged(archive: Archive, home: Path, kept: dict[str, bytes]) -> None:
    """Everything is as it was before, and the next try succeeds."""
    tidy(archive)
    assert len(files(home)) == len(kept)
    assert archive.statistics.read(ADMIN)["compressed_instances"] == 0
    settled(archive, home, kept)
    assert compress(archive, again=True).outcomes == {Outcome.CHANGED: len(kept)}


def settled(archive: Archive, home: Path, kept: dict[str, bytes]) -> None:
    """One good file for each object, nothing beside it."""
    assert len(files(home)) == len(kept)
    assert list((home / "store" / "reencoding").glob("*")) == []
    assert verified(archive) == []
    assert restored(archive) == kept
    indexed(archive)


@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("back", [False, True])
def test_a_failed_fsync_leaves_what_was(
    step: str, back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path) as archive:
        kept = fill(archive, 2)
        if back:
            compress(archive)
            tidy(archive)
        failing = FailingFsync(STEPS[step])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            tally = compress(archive, None if back else "jpeg-ls")
        assert tally.outcomes == {Outcome.FAILED: 2}
        assert tally.reasons == {"StorageFailed": 2}
        assert failing.asked and sum(failing.asked.values()) == 2, "never tried again"
        assert len(files(tmp_path)) == 2
        if back:
            tidy(archive)
            settled(archive, tmp_path, kept)
        else:
            unchanged(archive, tmp_path, kept)


def test_a_full_disk_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path) as archive:
        kept = fill(archive, 2)
        with monkeypatch.context() as patch:
            patch.setattr(archive.store._limits, "reserve_bytes", 1 << 60)
            tally = compress(archive)
        assert tally.reasons == {"CapacityExhausted": 2}
        unchanged(archive, tmp_path, kept)


@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_in_doubt_removes_nothing(
    committed: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = FormTable.swap

    def doubtful(table: FormTable, held: Held, new: Held, token: str, keep_s: float) -> bool:
        if committed:
            assert swap(table, held, new, token, keep_s)
        raise RecordsFailed("the connection is gone")

    with started(tmp_path, url) as archive:
        kept = fill(archive, 2)
        with monkeypatch.context() as patch:
            patch.setattr(FormTable, "swap", doubtful)
            with pytest.raises(RecordsFailed):
                compress(archive)
        assert restored(archive) == kept
        assert verified(archive) == []
        indexed(archive)
        assert compress(archive).outcomes.get(Outcome.CHANGED, 0) == 0, "claimed, or done"
        tidy(archive)
        assert archive.statistics.read(ADMIN)["compressed_instances"] == (2 if committed else 0)
        settled(archive, tmp_path, kept)


def test_what_does_not_prove_itself_is_not_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = SandboxedRestorer.recipe

    def wrong(restorer: SandboxedRestorer, *stored: tuple[str, int, str]) -> str:
        return recipe(restorer, *stored).replace('"tail":""', '"tail":"AAA="')  # type: ignore[arg-type]

    with started(tmp_path) as archive:
        kept = fill(archive, 2)
        with monkeypatch.context() as patch:
            patch.setattr(SandboxedRestorer, "recipe", wrong)
            tally = compress(archive)
        assert tally.outcomes == {Outcome.REFUSED: 2}
        assert tally.reasons == {NotAsReceived.peer_comment: 2}
        unchanged(archive, tmp_path, kept)


def test_a_codec_that_never_ended_refuses_nothing(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        kept = fill(archive, 2)
        archive.transcoder.close()
        assert compress(archive).outcomes == {Outcome.FAILED: 2}
        assert list(archive.database.execute("SELECT * FROM form_refusal")) == []
    with started(tmp_path) as archive:
        unchanged(archive, tmp_path, kept)


def damage(path: Path) -> None:
    """Turn one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def test_what_is_damaged_already_is_not_compressed(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        damage(files(tmp_path)[0])
        before = files(tmp_path)[0].read_bytes()
        assert compress(archive).reasons == {"InstanceCorrupt": 1}
        tidy(archive)
        assert [one.read_bytes() for one in files(tmp_path)] == [before]


def form_files(archive: Archive) -> list[Path]:
    rows = archive.database.execute("SELECT place FROM instance WHERE form_digest IS NOT NULL")
    return [archive.home / "store" / row[0] for row in rows]


def test_a_damaged_form_gives_way_to_the_original_beside_it(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url) as archive:
        kept = fill(archive, 2)
        compress(archive)
        damaged = form_files(archive)[0]
        damage(damaged)
        assert verified(archive) == ["corrupt"]
        assert tidy(archive) == 1, "the original of the other one"
        assert restored(archive) == kept
        assert damaged.exists() and verified(archive) == ["surplus"]
        archive.reindex.run(ADMIN, lambda: None)
        assert tidy(archive) == 1
        settled(archive, tmp_path, kept)


def test_back_takes_the_original_that_is_still_there(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        kept = fill(archive, 1)
        compress(archive)
        damage(form_files(archive)[0])
        assert compress(archive, None).outcomes == {Outcome.CHANGED: 1}
        tidy(archive)
        settled(archive, tmp_path, kept)


def test_nothing_is_removed_where_no_file_is_good(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        compress(archive)
        for path in files(tmp_path):
            damage(path)
        assert tidy(archive) == 0
        assert len(files(tmp_path)) == 2
        assert verified(archive) == ["corrupt"]
        assert compress(archive, None).outcomes == {Outcome.FAILED: 1}
        assert len(files(tmp_path)) == 2


def test_a_damaged_form_alone_is_told_and_left(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        compress(archive)
        tidy(archive)
        damage(files(tmp_path)[0])
        before = files(tmp_path)[0].read_bytes()
        assert verified(archive) == ["corrupt"]
        assert compress(archive, None).outcomes == {Outcome.FAILED: 1}
        tidy(archive)
        assert [one.read_bytes() for one in files(tmp_path)] == [before]


def test_a_recipe_that_was_changed_is_found_by_restoring_only(tmp_path: Path) -> None:
    with started(tmp_path) as archive:
        fill(archive, 1)
        compress(archive)
        tidy(archive)
        (path,) = files(tmp_path)
        content = path.read_bytes()
        assert content.count(b'\\"tail\\":\\"\\"') == 1
        path.write_bytes(
            content.replace(b'\\"planes\\":1', b'\\"planes\\":1').replace(b",2,1,1]", b",2,1,2]")
        )
        assert verified(archive, restore=False) == []
        assert verified(archive) == ["not-restored"]


def test_two_at_the_same_time_change_each_instance_once(url: str, tmp_path: Path) -> None:
    with started(tmp_path, url) as one, started(tmp_path, url) as other:
        kept = fill(one, 12)
        tallies = []

        def work(archive: Archive) -> None:
            tallies.append(compress(archive))

        threads = [Thread(target=work, args=(archive,)) for archive in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(tally.outcomes[Outcome.CHANGED] for tally in tallies) == 12
        assert tidy(one) == 12
        settled(one, tmp_path, kept)


def test_a_purge_meanwhile_leaves_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = DiskForm.keep
    with started(tmp_path, url, storage__deletion_delay_s="0") as archive:
        fill(archive, 1)

        def purged_first(form: DiskForm) -> Place:
            archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
            assert archive.deletions.purge(ADMIN) == 1
            return keep(form)

        with monkeypatch.context() as patch:
            patch.setattr(DiskForm, "keep", purged_first)
            assert compress(archive).outcomes == {Outcome.PASSED_OVER: 1}
        assert tidy(archive, now=False) == 0, "whoever makes a form has its time to notice"
        assert tidy(archive) == 1
        assert files(tmp_path) == []
        assert list(archive.database.execute("SELECT * FROM form_change")) == []


def test_a_claim_that_ran_out_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody so slow that the chore has looked meanwhile: the file made too late goes as well."""
    keep = DiskForm.keep
    with started(tmp_path) as archive:
        kept = fill(archive, 1)

        def too_late(form: DiskForm) -> Place:
            assert tidy(archive) == 0
            return keep(form)

        with monkeypatch.context() as patch:
            patch.setattr(DiskForm, "keep", too_late)
            assert compress(archive).outcomes == {Outcome.PASSED_OVER: 1}
        assert archive.statistics.read(ADMIN)["compressed_instances"] == 0
        assert tidy(archive) == 1
        settled(archive, tmp_path, kept)


def test_an_arrival_mark_means_what_arrived_and_not_a_form_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener died before it dropped the mark; a worker has compressed the instance since."""
    with started(tmp_path, url) as archive:
        with monkeypatch.context() as patch:
            patch.setattr(DiskIncoming, "settle", lambda incoming: None)
            kept = fill(archive, 1)
        assert len(list((tmp_path / "store" / "incoming").glob("*.part"))) == 1
        compress(archive)
        index = list(archive.database.execute("SELECT place FROM instance"))
        assert archive.reindex.recover() == 0
        assert list((tmp_path / "store" / "incoming").glob("*.part")) == []
        assert list(archive.database.execute("SELECT place FROM instance")) == index
        tidy(archive)
        settled(archive, tmp_path, kept)
