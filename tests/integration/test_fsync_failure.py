"""A failed fsync is an instance refused: 0xA703, nothing kept, nothing in the index, never tried again.

PS3.4 Table B.2-1; design law 1. The archive runs in this process so that
``os.fsync`` can be made to fail for one file or one directory.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.core.errors import StorageFailed
from pacs.core.identifiers import ObjectId
from tests.crash import arriving, ct, find_instances, get_study, in_process, kept, store

REFUSED = 0xA703


class FailingFsync:
    """``os.fsync`` that fails where ``matches`` says so, and counts how often it was asked."""

    def __init__(self, matches: Callable[[Path], bool]) -> None:
        self._matches = matches
        self._fsync = os.fsync
        self.asked: Counter[Path] = Counter()
        self.failing = True

    def __call__(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self.failing and self._matches(path):
            self.asked[path] += 1
            raise OSError(errno.EIO, "Input/output error")
        self._fsync(descriptor)


def depth_of(path: Path, store_root: Path) -> int:
    """Levels below the store; -1 outside of it."""
    if path != store_root and store_root not in path.parents:
        return -1
    return len(path.relative_to(store_root).parts)


def is_arrival(path: Path, store_root: Path) -> bool:
    return path.parent == store_root / "incoming"


CASES: dict[str, Callable[[Path, Path], bool]] = {
    "file": is_arrival,
    "study": lambda path, root: path.is_dir() and depth_of(path, root) == 4,
    "day": lambda path, root: path.is_dir() and depth_of(path, root) == 3,
    "month": lambda path, root: path.is_dir() and depth_of(path, root) == 2,
    "year": lambda path, root: path.is_dir() and depth_of(path, root) == 1,
    "store": lambda path, root: path.is_dir() and path == root,
}


@pytest.mark.parametrize("where", sorted(CASES))
def test_a_failed_fsync_refuses_the_instance(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    one = ct()
    with in_process(home) as (_, port):
        failing = FailingFsync(lambda path: CASES[where](path, home / "store"))
        monkeypatch.setattr(os, "fsync", failing)

        answer = store(port, one)

        assert answer.Status == REFUSED
        assert answer.ErrorComment == StorageFailed.peer_comment
        assert list(failing.asked.values()) == [1], "tried again, or not at all"
        assert kept(home) == [] and arriving(home) == []
        study, series = str(one.StudyInstanceUID), str(one.SeriesInstanceUID)
        assert find_instances(port, study, [series]) == set()

        failing.failing = False
        assert store(port, one).Status == 0x0000
        assert find_instances(port, study, [series]) == {str(one.SOPInstanceUID)}
        assert len(kept(home)) == 1 and arriving(home) == []


def test_a_failed_fsync_spares_what_was_kept_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    first = ct()
    second = ct(study=first.StudyInstanceUID, series=first.SeriesInstanceUID)
    with in_process(home) as (_, port):
        assert store(port, first).Status == 0x0000
        failing = FailingFsync(lambda path: CASES["study"](path, home / "store"))
        monkeypatch.setattr(os, "fsync", failing)
        assert store(port, second).Status == REFUSED
        assert get_study(port, first.StudyInstanceUID).keys() == {first.SOPInstanceUID}
        assert len(kept(home)) == 1 and arriving(home) == []


def test_a_parent_whose_fsync_failed_is_synced_before_the_next_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory counts as durable only after its fsync came back, not because it exists."""
    home = tmp_path / "home"
    synced: Counter[Path] = Counter()
    one = ct()
    with in_process(home) as (_, port):
        failing = FailingFsync(lambda path: CASES["day"](path, home / "store"))
        monkeypatch.setattr(os, "fsync", failing)
        assert store(port, one).Status == REFUSED

        def counting(descriptor: int, fsync: Callable[[int], None] = failing._fsync) -> None:
            synced[Path(f"/proc/self/fd/{descriptor}").readlink()] += 1
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", counting)
        assert store(port, one).Status == 0x0000
        (path,) = kept(home)
        for folder in path.parents[:5]:
            assert synced[folder] == 1, folder


def test_a_file_that_cannot_be_removed_again_is_left_to_start_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    one = ct()
    with in_process(home) as (_, port):
        failing = FailingFsync(lambda path: CASES["study"](path, home / "store"))
        monkeypatch.setattr(os, "fsync", failing)
        unlink = Path.unlink

        def refused(path: Path, missing_ok: bool = False) -> None:
            if path.suffix == ".dcm":
                raise OSError(errno.EROFS, "Read-only file system")
            unlink(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refused)
            assert store(port, one).Status == REFUSED
        assert [path.stem for path in arriving(home)] == [path.stem[:36] for path in kept(home)]
        failing.failing = False
    with in_process(home) as (archive, port):
        assert arriving(home) == []
        (path,) = kept(home)
        assert archive.reindex._index.has_object(ObjectId(path.stem[:36]))
        assert get_study(port, one.StudyInstanceUID).keys() == {one.SOPInstanceUID}
