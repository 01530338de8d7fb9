"""SIGKILL of the server during four parallel sends: nothing acknowledged is lost, nothing is left behind."""

import random
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.crash import (
    Acknowledged,
    Child,
    DcmtkSender,
    PynetdicomSender,
    arriving,
    ct,
    data_set_of,
    find_instances,
    get_study,
    initialize,
    pacs,
    write,
)

FILES_OF_A_SENDER = 40
MOST_OF_A_SENDER = 500


def encoded(one: Dataset) -> bytes:
    """Give the Data Set as pynetdicom sends it."""
    part10 = BytesIO()
    pydicom.dcmwrite(part10, one, enforce_file_format=True)
    content = part10.getvalue()
    return content[144 + int.from_bytes(content[140:144], "little") :]


class Rounds:
    """One home, killed again and again."""

    def __init__(self, home: Path, storescu: str, scratch: Path) -> None:
        self.home, self._storescu, self._scratch = home, storescu, scratch
        self._random = random.Random(20260101)
        self.rounds: list[Acknowledged] = []
        self.interrupted = 0
        self.left_arriving = 0

    def _folders(self, known: Acknowledged, name: str) -> Iterator[Path]:
        for sender in range(2):
            folder = self._scratch / f"{name}-{sender}"
            folder.mkdir()
            series = generate_uid()
            known.series.add(series)
            for index in range(FILES_OF_A_SENDER):
                size_bytes = 100_000 + 10_000 * index
                write(ct(study=known.study, series=series, size_bytes=size_bytes), folder)
            yield folder

    def send_and_kill(self, child: Child) -> Acknowledged:
        """Send on four associations, kill at a random moment, and collect what was acknowledged."""
        known = Acknowledged(study=generate_uid())
        folders = list(self._folders(known, str(len(self.rounds))))
        ours = [PynetdicomSender(child.port, known.study, MOST_OF_A_SENDER) for _ in range(2)]
        known.series.update(one.series for one in ours)
        theirs = [DcmtkSender(self._storescu, child.port, folder) for folder in folders]
        for one in ours:
            one.start()
        while not any(one.answered for one in ours) and all(one.is_alive() for one in ours):
            time.sleep(0.005)
        time.sleep(self._random.uniform(0.0, 0.4))
        child.kill()
        for one in ours:
            one.join(60)
            known.data_sets |= {str(each.SOPInstanceUID): encoded(each) for each in one.answered}
            self.interrupted += one.sent - len(one.answered)
        for other in theirs:
            answered = other.acknowledged()
            known.data_sets |= {path.stem: data_set_of(path) for path in answered}
            self.interrupted += len(other.files) - len(answered)
            for path in other.files:
                path.unlink()
        self.left_arriving += len(arriving(self.home))
        self.rounds.append(known)
        return known


def assert_safe(child: Child, known: Acknowledged) -> None:
    """Find and fetch everything that was acknowledged, byte for byte."""
    found = find_instances(child.port, known.study, known.series)
    assert known.data_sets.keys() <= found
    got = get_study(child.port, known.study)
    assert got.keys() == found
    damaged = [uid for uid, sent in known.data_sets.items() if got[uid] != sent]
    assert damaged == []


def assert_nothing_left(home: Path) -> None:
    """No file is on its way, and files and index agree both ways."""
    assert arriving(home) == []
    done = pacs(home, "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def kill_again_and_again(home: Path, storescu: str, scratch: Path, kills: int) -> None:
    tried = Rounds(home, storescu, scratch)
    child = Child(home)
    try:
        for _ in range(kills):
            known = tried.send_and_kill(child)
            child = Child(home)
            assert_safe(child, known)
            assert_nothing_left(home)
        for known in tried.rounds:
            assert_safe(child, known)
    finally:
        child.kill()
    # The test is worth something only when the kills hit something.
    assert all(known.data_sets for known in tried.rounds)
    assert tried.interrupted >= kills
    assert tried.left_arriving > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_lose_nothing_acknowledged(
    tmp_path: Path, peer_tool: Callable[[str], str]
) -> None:
    home = tmp_path / "home"
    initialize(home)
    kill_again_and_again(home, peer_tool("storescu"), tmp_path, kills=20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_on_postgresql_lose_nothing_acknowledged(
    tmp_path: Path, peer_tool: Callable[[str], str], postgres_url: str
) -> None:
    home = tmp_path / "home"
    initialize(home, database={"url": postgres_url})
    kill_again_and_again(home, peer_tool("storescu"), tmp_path, kills=5)
