"""Profiles from the outside: a modality that only knows C-STORE gets its images processed. DCMTK on both sides."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from tests.archive import Archive, Receiver, Tool, run, serving, storescp
from tests.forwarding import until
from tests.phantoms import ct_series, hounsfield, patient, saved
from tests.routing import Here

SETTINGS = {
    "jobs.workers": "1",
    "jobs.poll_s": "0.1",
    "arrival.series_quiet_s": "1",
    "dicom.any_called_ae_title": "false",
    "serve.listeners": "1",  # so that who is let in once is let in
}
SETTLED_S = 6.0
"""Documented: what comes within five seconds of the change is not given up."""
_PASS_SINCE_S: list[float] = []


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with serving(tmp_path_factory.mktemp("profiles") / "home", settings=SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def here(archive: Archive) -> Here:
    return Here(archive.home)


@pytest.fixture(scope="module")
def workstation(
    here: Here, peer_tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Receiver]:
    """Where results go: WORKSTATION, and CT1, which sends and takes at one place. PASS gives up what is sent to it."""
    with storescp(peer_tool, tmp_path_factory.mktemp("workstation")) as receiver:
        for title in ("WORKSTATION", "CT1"):
            here.peer(title, receiver.port)
        here("process", "profile", "add", "PASS", "mip", "--to", "WORKSTATION",
             "--keep-sources", "until-done")  # fmt: skip
        _PASS_SINCE_S.append(time.monotonic())
        yield receiver


class Modality:
    """DCMTK's storescu, calling whom it is told to."""

    def __init__(self, tool: Tool, port: int, folder: Path) -> None:
        self._tool, self._port, self._folder = tool, str(port), folder

    def sends(self, images: list[FileDataset], called: str) -> bool:
        folder = self._folder / f"{called}-{images[0].SeriesInstanceUID}"
        files = map(str, saved(images, folder))
        said = run(self._tool("storescu"), "-aet", "CT1", "-aec", called, "127.0.0.1", self._port,
                   *files)  # fmt: skip
        return said.code == 0

    def echoes(self, called: str) -> bool:
        return (
            run(self._tool("echoscu"), "-aet", "CT1", "-aec", called, "127.0.0.1", self._port).code
            == 0
        )


@pytest.fixture
def modality(archive: Archive, peer_tool: Tool, tmp_path: Path) -> Modality:
    return Modality(peer_tool, archive.port, tmp_path)


def stack(count: int = 4) -> list[FileDataset]:
    return ct_series(count=count, rows=24, columns=32, spacing_mm=2.0, study=patient())


def instances(here: Here, images: list[FileDataset]) -> int:
    series = f"SeriesInstanceUID={images[0].SeriesInstanceUID}"
    study = f"StudyInstanceUID={images[0].StudyInstanceUID}"
    return len(here.json("ls", "instances", study, series))


def arrived(receiver: Receiver, images: list[FileDataset]) -> list[Any]:
    """Wait for results of a study; give those there are."""
    study = images[0].StudyInstanceUID
    until(lambda: bool(_of_study(receiver, study)))
    return _of_study(receiver, study)


def _of_study(receiver: Receiver, study: str) -> list[Any]:
    """What has come of a study; storescp writes in place, so a file may not be whole yet."""
    whole = []
    for path in receiver.folder.iterdir():
        try:
            one = pydicom.dcmread(path)
            size_bytes = one.Rows * one.Columns * one.BitsAllocated // 8
            if one.StudyInstanceUID == study and len(one.PixelData) >= size_bytes:
                whole.append(one)
        except (pydicom.errors.InvalidDicomError, AttributeError, EOFError):
            continue
    return whole


def test_an_ae_title_is_ours_for_as_long_as_a_profile_has_it(
    here: Here, modality: Modality
) -> None:
    assert modality.echoes("PACS")
    assert not modality.echoes("SMOOTH")
    here("process", "profile", "add", "SMOOTH", "gaussian", "--set", "sigma=2")
    until(lambda: modality.echoes("SMOOTH"))
    here("process", "profile", "disable", "SMOOTH")
    until(lambda: not modality.echoes("SMOOTH"))
    assert modality.echoes("PACS")
    here("process", "profile", "enable", "SMOOTH")
    until(lambda: modality.echoes("SMOOTH"))
    here("process", "profile", "remove", "SMOOTH")
    until(lambda: not modality.echoes("SMOOTH"))


def test_what_an_admin_types(here: Here, workstation: Receiver) -> None:
    add = ("process", "profile", "add")
    said = here(*add, "LISTED", "mip", "--set", "plane=axial", "--to", "WORKSTATION", "--to-sender")
    assert said == "LISTED: mip to WORKSTATION, the sender\n"
    (row,) = (one for one in here.json("process", "profiles") if one["ae_title"] == "LISTED")
    assert (row["parameters"], row["to"], row["to_sender"]) == (
        {"plane": "axial"},
        ["WORKSTATION"],
        True,
    )
    exported = here("process", "profile", "export", "LISTED")
    assert json.loads(exported)["profiles"] == [row]
    for arguments, code, line in (
        ((*add, "LISTED", "mip"), 1, "named LISTED already"),
        ((*add, "X", "mop"), 2, "no operation"),
        ((*add, "X", "mip", "--set", "plane=up"), 2, "plane is stack or"),
        ((*add, "X", "mip", "--version", "0.0"), 2, "version"),
        ((*add, "X", "mip", "--to", "NOBODY"), 1, "no peer is named NOBODY"),
        ((*add, "PACS", "mip"), 1, "own AE title"),
        ((*add, "WORKSTATION", "mip"), 1, "is a peer"),
        ((*add, "X", "mip", "--keep-sources", "until-done"), 1, "without a destination"),
        ((*add, "X", "mip", "--keep-sources", "no"), 2, "--keep-sources"),
        (("process", "profile", "remove", "NONE"), 1, "no profile is named NONE"),
        (("process", "profile", "export", "NONE"), 1, "no profile is named NONE"),
    ):
        assert line in here(*arguments, code=code)
    here("process", "profile", "remove", "LISTED")
    file = workstation.folder.with_suffix(".json")
    file.write_text(exported)
    assert here("process", "profile", "import", str(file)) == "LISTED\n"
    assert "LISTED already" in here("process", "profile", "import", str(file), code=1)
    here("process", "profile", "import", "--replace", str(file))
    assert here("process", "profile", "export", "LISTED") == exported
    here("process", "profile", "remove", "LISTED")
    assert "LISTED" not in here("process", "profiles")


def test_a_modality_that_only_knows_c_store_gets_its_projection(
    here: Here, modality: Modality, workstation: Receiver
) -> None:
    here("process", "profile", "add", "MIP", "mip", "--to", "WORKSTATION",
         "--series-description", "Projected")  # fmt: skip
    until(lambda: modality.echoes("MIP"))
    images = stack()
    assert modality.sends(images, "MIP")
    (result,) = arrived(workstation, images)
    expected = np.max([hounsfield(one) for one in images], axis=0)
    assert np.array_equal(hounsfield(result), expected)
    assert result.SeriesDescription == "Projected"
    assert result.SeriesInstanceUID != images[0].SeriesInstanceUID
    until(here.all_over)
    assert instances(here, images) == 4, "sources are kept"


def test_what_is_sent_again_is_processed_again_and_the_sender_gets_it(
    here: Here, modality: Modality, workstation: Receiver
) -> None:
    images = stack()
    assert modality.sends(images, "PACS")
    here("process", "profile", "add", "AGAIN", "mean-projection", "--to-sender")
    until(lambda: modality.echoes("AGAIN"))
    assert modality.sends(images, "AGAIN")
    (result,) = arrived(workstation, images)
    expected = np.mean([hounsfield(one) for one in images], axis=0)
    assert np.abs(hounsfield(result) - expected).max() <= 1
    until(here.all_over)


def test_sources_are_given_up_when_all_is_done_but_for_what_was_sent_elsewhere(
    here: Here, modality: Modality, workstation: Receiver
) -> None:
    until(lambda: modality.echoes("PASS"))
    time.sleep(max(0.0, _PASS_SINCE_S[-1] + SETTLED_S - time.monotonic()))
    images = stack()
    assert modality.sends(images[:1], "PACS")
    assert modality.sends(images[1:], "PASS")
    assert len(arrived(workstation, images)) == 1
    until(lambda: instances(here, images) == 1)
    until(here.all_over)
    (pending,) = here.json("delete", "list")
    assert pending["instances"] == 3
    (left,) = here.json(
        "ls", "instances", f"StudyInstanceUID={images[0].StudyInstanceUID}",
        f"SeriesInstanceUID={images[0].SeriesInstanceUID}",
    )  # fmt: skip
    assert left["SOPInstanceUID"] == images[0].SOPInstanceUID


def test_what_cannot_be_done_keeps_everything_and_says_why(
    here: Here, modality: Modality, workstation: Receiver
) -> None:
    gapped = stack(6)
    del gapped[3]
    until(lambda: modality.echoes("PASS"))
    assert modality.sends(gapped, "PASS")

    def said() -> list[str]:
        return [one["result"].get("why", "") for one in here.jobs("process.tidy")]

    until(lambda: "the workitem is CANCELED" in said())
    until(here.all_over)
    assert instances(here, gapped) == 5
