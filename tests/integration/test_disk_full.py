"""No room: C-STORE is answered 0xA700 with the fixed comment, nothing stays behind, the server goes on.

PS3.4 Table B.2-1, Refused: Out of Resources. One way is the reserve, which
refuses before the disk is full; the others are a disk and a process that
really have no room left.
"""

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.core.errors import CapacityExhausted, InstanceTooLarge
from tests.crash import arriving, ct, find_instances, in_process, initialize, kept, serving, store

NO_ROOM = 0xA700
TOO_LARGE = 0xA701


def assert_refused(port: int, home: Path, size_bytes: int = 20_000) -> None:
    """Refused for want of room, without a trace; and the server still answers."""
    before = kept(home)
    one = ct(size_bytes=size_bytes)
    answer = store(port, one)
    assert answer.Status == NO_ROOM
    assert answer.ErrorComment == CapacityExhausted.peer_comment
    assert kept(home) == before and arriving(home) == []
    assert find_instances(port, one.StudyInstanceUID, [one.SeriesInstanceUID]) == set()


def assert_stored(port: int, size_bytes: int = 20_000) -> None:
    one = ct(size_bytes=size_bytes)
    assert store(port, one).Status == 0x0000
    found = find_instances(port, one.StudyInstanceUID, [one.SeriesInstanceUID])
    assert found == {str(one.SOPInstanceUID)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_the_next_store_is_fine_once_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    home = tmp_path / "home"
    (small_disk / "filler").write_bytes(bytes(3_000_000))
    initialize(home, storage={"path": str(small_disk / "store")})
    (home / "store").symlink_to(small_disk / "store")
    with serving(home) as child:
        assert_stored(child.port)
        assert_refused(child.port, home, size_bytes=2_000_000)
        assert_stored(child.port)
        (small_disk / "filler").unlink()
        assert_stored(child.port, size_bytes=2_000_000)
        assert child.terminate() == 0


def test_the_disk_runs_full_in_the_middle_of_an_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was said of free space before: the write itself fails."""
    home = tmp_path / "home"
    write = os.write
    written = 0

    def filling(descriptor: int, data: bytes) -> int:
        nonlocal written
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix != ".part":
            return write(descriptor, data)
        if written > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(descriptor, data[:10_000])  # a short write first, as a filling disk makes
        written += count
        return count

    with in_process(home) as (_, port):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", filling)
            assert_refused(port, home, size_bytes=400_000)
        assert written > 100_000
        assert_stored(port, size_bytes=400_000)


@pytest.mark.parametrize(
    ("name", "code"), [("link", errno.ENOSPC), ("link", errno.EDQUOT), ("mkdir", errno.ENOSPC)]
)
def test_no_room_for_a_name_or_a_directory(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with in_process(home) as (_, port):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            assert_refused(port, home)
        assert_stored(port)


def test_the_reserve_refuses_before_the_disk_is_full(tmp_path: Path) -> None:
    home = tmp_path / "home"
    free_bytes = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with in_process(home, storage={"reserve_bytes": 2 * free_bytes}) as (archive, port):
        assert archive.store.free_bytes() == 0
        assert_refused(port, home)
        left = os.statvfs(tmp_path)
        assert left.f_bavail * left.f_frsize > free_bytes // 2, "the disk itself is not full"
    with in_process(home) as (_, port):
        assert_stored(port)


def test_the_reserve_is_of_the_disk_the_store_is_on(tmp_path: Path, small_disk: Path) -> None:
    """What others write there counts, and room that comes back is used again."""
    home = tmp_path / "home"
    storage = {"path": str(small_disk / "store"), "reserve_bytes": 3_500_000}
    with in_process(home, storage=storage) as (_, port):
        (home / "store").symlink_to(small_disk / "store")
        assert_stored(port)
        (small_disk / "filler").write_bytes(bytes(690_000))
        assert_refused(port, home)
        left = os.statvfs(small_disk)
        assert left.f_bavail * left.f_frsize > 2_000_000
        (small_disk / "filler").unlink()
        assert_stored(port)


def test_a_limit_on_the_size_of_files_is_no_room(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for every limit of the process: EFBIG, not a dead server."""
    home = tmp_path / "home"
    initialize(home)
    # SQLite's own files need a few hundred KB of it.
    limit = (1_500_000, 1_500_000)
    with serving(
        home, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    ) as child:
        assert_stored(child.port)
        assert_refused(child.port, home, size_bytes=2_000_000)
        assert_stored(child.port)
        assert child.terminate() == 0


def test_an_instance_larger_than_accepted_has_a_status_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with in_process(home, storage={"max_instance_bytes": 50_000}) as (_, port):
        answer = store(port, ct(size_bytes=200_000))
        assert answer.Status == TOO_LARGE
        assert answer.ErrorComment == InstanceTooLarge.peer_comment
        assert kept(home) == [] and arriving(home) == []
        assert_stored(port)
