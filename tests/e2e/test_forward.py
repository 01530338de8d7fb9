"""``pacs forward`` to DCMTK and Orthanc: away and back, in order; bit for bit; again on purpose."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from tests.archive import Tool, data_set_of, free_port, serving
from tests.e2e.test_cli_scu import orthanc
from tests.forwarding import ask, jobs, known, states, until, work, writer
from tests.keeping import data_set, keep, opened

WORKING = {
    "jobs.workers": "2",
    "jobs.poll_s": "0.1",
    "jobs.hold_first_s": "0.5",
    "jobs.hold_max_s": "1",
}
STUDIES = [f"1.2.7.{number}" for number in range(4)]
UIDS = [f"{study}.1.{number}" for study in STUDIES for number in range(6)]
BOUND_S = 120.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def archive(home: Path, url: str) -> Iterator[Archive]:
    """It holds four studies of one series each, in the order of ``UIDS``."""
    with opened(home, url) as made:
        for uid in UIDS:
            series = uid.rpartition(".")[0]
            keep(made, data_set(series.rpartition(".")[0], series, uid))
        yield made


def test_a_destination_that_was_down_gets_everything_in_order(
    archive: Archive, home: Path, url: str, tmp_path: Path, peer_tool: Tool
) -> None:
    port = free_port()
    with serving(home, url, WORKING) as served, writer(peer_tool, tmp_path / "live") as live:
        known(archive, "DOWN", port)
        known(archive, "LIVE", live.port)
        ask(archive, *(work(study, to) for to in ("DOWN", "LIVE") for study in STUDIES))
        until(lambda: states(archive) == ["waiting"] * 4 + ["done"] * 4, BOUND_S)
        # While one that is down is tried, its attempt is counted.
        until(lambda: [one.attempts for one in jobs(archive)] == [0] * 4 + [1] * 4, BOUND_S)
        with writer(peer_tool, tmp_path / "down", port) as back:
            until(lambda: states(archive) == ["done"] * 8, BOUND_S)
            assert live.in_order() == back.in_order() == UIDS
            kept = sorted(map(data_set_of, served.kept()))
            assert sorted(back.files().values()) == sorted(live.files().values()) == kept
            served.pacs("forward", "--to", "DOWN", "--study", STUDIES[0])
            served.pacs("forward", "--to", "DOWN", "--study", STUDIES[1], "--again")
            until(lambda: states(archive) == ["done"] * 10, BOUND_S)
            assert back.in_order() == [*UIDS, *UIDS[6:12]]


def test_orthanc_takes_it_over_several_associations(
    archive: Archive, home: Path, url: str, tmp_path: Path, peer_tool: Tool
) -> None:
    with (
        serving(home, url, WORKING) as served,
        orthanc(peer_tool, tmp_path / "orthanc", {"PACS": served.port}) as port,
    ):
        known(archive, "ORTHANC", port, associations=3)
        ask(archive, *(work(study, "ORTHANC") for study in STUDIES))
        until(lambda: states(archive) == ["done"] * 4, BOUND_S)
        found = served.listed("find", "ORTHANC", "PatientID=P1", "StudyInstanceUID")
        assert sorted(one["StudyInstanceUID"] for one in found) == STUDIES
