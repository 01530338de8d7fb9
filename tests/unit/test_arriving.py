"""An instance while it arrives: read back across memory and file, written out early, hidden from nobody."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Storage
from storage.instances import incoming as module
from storage.instances.disk import DiskStore
from storage.instances.incoming import DiskIncoming
from storage.instances.writeout import PAGE_BYTES
from tests.contracts.test_instance_store import QUICK, STUDY, meta

DATA = os.urandom(module._HEAD_BYTES * 3 + 17)


@pytest.fixture
def arriving(tmp_path: Path) -> Iterator[DiskIncoming]:
    with DiskStore(tmp_path, Storage()).incoming(meta()) as one:
        for start in range(0, len(DATA), 50_001):
            one.write(memoryview(DATA)[start : start + 50_001])
        one.finish()
        yield one


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(DATA) + 9), st.integers(-1, 90_000)), max_size=8))
def test_any_range_reads_as_it_came(arriving: DiskIncoming, reads: list[tuple[int, int]]) -> None:
    with arriving.open_data_set() as data_set:
        for start, size in reads:
            assert data_set.seek(start) == start
            expected = DATA[start:] if size < 0 else DATA[start : start + size]
            assert data_set.read(size) == expected
            assert data_set.tell() == start + len(expected)
        assert data_set.seek(-5, os.SEEK_END) == len(DATA) - 5
        assert data_set.read() == DATA[-5:]


def test_reading_leaves_the_file_open_for_its_fsync(arriving: DiskIncoming, tmp_path: Path) -> None:
    with arriving.open_data_set() as data_set:
        assert data_set.read(3) == DATA[:3]
    place = arriving.keep(STUDY)
    arriving.settle()
    assert (tmp_path / place.name).read_bytes()[place.data_set_offset :] == DATA


def test_all_of_a_file_is_begun_once_and_synced_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        module, "begin_writing", lambda _, start, count: begun.append((start, count))
    )

    def recording(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with DiskStore(tmp_path, Storage()).incoming(meta()) as one:
        for _ in range(9):
            one.write(memoryview(DATA)[:100_001])
        one.finish()
        place = one.keep(STUDY)
        arrival = one.arrival_path
        one.settle()
    position = 0
    for start, count in begun:
        assert start == position and start % PAGE_BYTES == 0 and count > 0
        position += count
    assert len(begun) > 2
    assert position == place.size_bytes
    assert synced[0] == arrival


def test_a_hint_that_fails_is_nobodys_loss(tmp_path: Path) -> None:
    """The call tells its failure by a number nobody reads; ``fsync`` is what counts."""
    module.begin_writing(-1, 0, 10)
    with DiskStore(tmp_path, Storage()).incoming(meta()) as one:
        one.write(memoryview(DATA))
        one.keep(STUDY)
        one.settle()
