"""Processing in an archive: results are held like anything that arrives, whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from config.settings import Process
from pacs.app import subscriber
from pacs.app.archive import Archive
from pacs.app.process import operations, processing
from pacs.cli import exits, main
from pacs.core.attributes import Level
from pacs.core.caller import Right
from pacs.core.errors import (
    CapacityExhausted,
    InstanceNotFound,
    ProcessingFailed,
    ProcessingRefused,
    ProcessingUnknown,
)
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.processing import ProcessingRequest, StoredImage
from pacs.core.records import Arrival, Job, Selection, Snapshot
from pacs.services.process import Asked, Processing, Tally
from pacs.services.subscriber.terms import PurposeEdits
from processing.datasets.process import SandboxedProcessor
from tests.integration.test_subscriber import contract
from tests.keeping import ADMIN, keep, listed, opened
from tests.phantoms import ct_series, hounsfield, patient, saved

EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
ISSUER = "issuer"


class Home:
    """An archive with two series of one study, and what arrival rules were asked about."""

    def __init__(self, archive: Archive, service: Processing) -> None:
        self.archive, self.service = archive, service
        self.asked: list[Arrival] = []
        archive.ingest.add_rule(self._rule)
        study = patient()
        self.study = str(study.StudyInstanceUID)
        self.thin = ct_series(count=6, rows=24, columns=32, spacing_mm=2.0, study=study)
        self.gapped = ct_series(count=6, rows=24, columns=32, study=study)
        del self.gapped[3]
        for one in (*reversed(self.thin), *self.gapped):
            keep(archive, Dataset(dict(one.items())), registrant="radiology")
        self.asked.clear()

    def _rule(self, arrival: Arrival, _: Snapshot) -> Iterator[Job]:
        self.asked.append(arrival)
        yield from ()

    def run(self, operation: str, *, series: str = "", most: int = 100, **settings: str) -> Tally:
        selection = Selection(
            level=Level.SERIES if series else Level.STUDY,
            study_instance_uids=() if series else (self.study,),
            series_instance_uids=(series,) if series else (),
        )
        asked = Asked(operation=operation, parameters=settings, selection=selection)
        return self.service.run(ADMIN, asked, workers=2, most=most)

    def files(self, series: str) -> list[pydicom.FileDataset]:
        rows = self.archive.database.execute(
            "SELECT i.place FROM instance i JOIN series e ON e.id = i.series_row "
            "WHERE e.series_instance_uid = ? ORDER BY i.id",
            (series,),
        )
        return [pydicom.dcmread(self.archive.home / "store" / row[0]) for row in rows]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with opened(tmp_path_factory.mktemp("home")) as archive, processing(archive) as service:
        yield Home(archive, service)


def test_a_mip_is_held_under_the_registrant_of_its_source(home: Home) -> None:
    series = home.thin[0].SeriesInstanceUID
    tally = home.run("mip", series=series)
    assert (tally.sources, tally.derived, len(tally.series)) == (6, 1, 1)
    (found,) = home.files(tally.series[0])
    expected = np.max([hounsfield(one) for one in home.thin], axis=0)
    assert np.array_equal(hounsfield(found), expected)
    (row,) = listed(home.archive, Level.SERIES, SeriesInstanceUID=tally.series[0])
    assert row["StudyInstanceUID"] == home.study
    (arrival,) = home.asked[-1:]
    assert arrival.instance.provenance.registrant == "radiology"
    assert arrival.instance.provenance.issuer_of_patient_id == ISSUER
    assert arrival.caller.subscriber == "radiology", "usage counts for whose image it is"
    assert list(home.archive.scratch.glob("process-*")) == []


def test_asked_again_it_makes_a_further_series(home: Home) -> None:
    series = home.thin[0].SeriesInstanceUID
    one, other = (home.run("median", series=series).series[0] for _ in range(2))
    assert one != other
    first, second = home.files(one), home.files(other)
    assert len(first) == len(second) == 6
    uids = {found.SOPInstanceUID for found in (*first, *second)}
    assert len(uids) == 12
    for found in first:
        source = found.SourceImageSequence[0].ReferencedSOPInstanceUID
        (number,) = (one.InstanceNumber for one in home.thin if one.SOPInstanceUID == source)
        assert found.InstanceNumber == number


def test_what_cannot_be_processed_keeps_nothing_else_from_it(home: Home) -> None:
    series = home.gapped[0].SeriesInstanceUID
    before = processed(home)
    tally = home.run("mip", series=series)
    assert dict(tally.reasons) == {"1 slices are missing, in 1 gaps": 1}
    assert (tally.derived, tally.series) == (0, [])
    assert processed(home) == before


def processed(home: Home) -> list[tuple[object, ...]]:
    """What accounting is told of processing, oldest first."""
    return list(
        home.archive.database.execute(
            "SELECT subscriber, operation, study_instance_uid, amount, bytes FROM usage_fact "
            "WHERE kind = 'process' ORDER BY noted_ms"
        )
    )


def test_what_was_processed_is_a_fact_for_accounting(home: Home) -> None:
    before = processed(home)
    home.run("gaussian", series=home.thin[0].SeriesInstanceUID)
    (fact,) = [one for one in processed(home) if one not in before]
    rows = home.archive.database.execute(
        "SELECT SUM(i.size_bytes - i.data_set_offset) FROM instance i JOIN series e ON e.id = i.series_row "
        "WHERE e.series_instance_uid = ?",
        (home.thin[0].SeriesInstanceUID,),
    )
    assert fact == ("radiology", "gaussian", home.study, 6, next(iter(rows))[0])


def test_what_was_asked_wrongly_is_refused_before_anything_is_read(home: Home) -> None:
    with pytest.raises(ProcessingUnknown, match="no operation 'mop'"):
        home.run("mop")
    with pytest.raises(ProcessingUnknown, match="size_px is a whole number, odd, from 3 to 31"):
        home.run("median", size_px="1e9")
    with pytest.raises(ProcessingUnknown, match="no such parameter: 'shell'"):
        home.run("mip", shell="rm")
    with pytest.raises(InstanceNotFound):
        home.run("mip", series="1.2.3.4")
    with pytest.raises(ProcessingRefused, match="more than 3 instances"):
        home.run("median", most=3)
    selection = Selection(level=Level.STUDY, study_instance_uids=(home.study,))
    for text in ("x" * 65, "a\\b", "a\nb", "é"):
        asked = Asked(operation="mip", parameters={}, selection=selection, series_description=text)
        with pytest.raises(ProcessingUnknown, match="series description"):
            home.service.run(ADMIN, asked, workers=1, most=9)


def test_a_full_disk_ends_it_and_leaves_whole_objects_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(listed(home.archive, Level.IMAGE, StudyInstanceUID=home.study))
    accept, taken = home.archive.ingest.accept, []

    def full(*arguments: Any) -> Any:
        if len(taken) >= 2:
            raise CapacityExhausted
        taken.append(1)
        return accept(*arguments)

    monkeypatch.setattr(home.archive.ingest, "accept", full)
    with pytest.raises(CapacityExhausted):
        home.run("mpr", series=home.thin[0].SeriesInstanceUID, plane="axial", spacing_mm="2")
    assert len(listed(home.archive, Level.IMAGE, StudyInstanceUID=home.study)) == before + 2
    assert list(home.archive.scratch.glob("process-*")) == []


def test_the_bounds_of_time_and_memory_hold(tmp_path: Path) -> None:
    files = saved(ct_series(count=2, rows=512, columns=512, spacing_mm=0.1), tmp_path / "in")
    request = ProcessingRequest(
        operation="nlm",
        parameters={"patch_px": "15", "distance_px": "15"},
        sources=[StoredImage(path=str(files[0]), offset=0, transfer_syntax_uid=EXPLICIT)],
        series_instance_uid="1.2.3",
    )
    quick = SandboxedProcessor(Process(timeout_s=0.01), tmp_path / "work")
    with (
        closing(quick),
        pytest.raises(ProcessingFailed, match="ran out of time"),
        quick.process(request),
    ):
        pytest.fail("nothing was made")
    assert list((tmp_path / "work").iterdir()) == []


def test_leftovers_of_killed_processes_are_removed(home: Home) -> None:
    left = home.archive.scratch / "process-left"
    left.mkdir()
    (left / "0.dcm").write_bytes(b"patient")
    home.run("mip", series=home.thin[0].SeriesInstanceUID)
    assert not left.exists()


def test_every_operation_is_listed_with_its_parameters() -> None:
    listed_ = {one.name: one for one in operations()}
    assert {"gaussian", "subtract", "mip", "mpr", "rotating-mip"} <= listed_.keys()
    (plane, _) = listed_["mip"].parameters
    assert (plane.name, plane.default) == ("plane", "stack")
    assert plane.bounds == "stack or axial or coronal or sagittal"


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACS_STORAGE__RESERVE_BYTES", "0")
    with opened(tmp_path) as archive:
        images = ct_series(count=4, rows=24, columns=32, spacing_mm=2.0)
        for one in images:
            keep(archive, Dataset(dict(one.items())))
    series = images[0].SeriesInstanceUID

    def pacs(*arguments: str) -> tuple[int, str, str]:
        code = main.run(["--home", str(tmp_path), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    rows = json.loads(pacs("process", "operations", "--json")[1])
    assert {row["name"]: row["takes"] for row in rows}["mip"] == "each volume"
    description = ("--series-description", "Coronal MIP")
    coronal = ("process", "run", "mip", "--series", series, "--set", "plane=coronal")
    code, out, err = pacs(*coronal, *description)
    assert code == exits.DONE, err
    said, derived = out.splitlines()
    assert said == "1 images derived of 4"
    (row,) = json.loads(pacs("ls", "series", f"SeriesInstanceUID={derived}", "--json")[1])
    assert row["SeriesDescription"] == "Coronal MIP"
    for arguments, expected, line in (
        (("mip", "--series", series, "--set", "plane=oblique"), exits.USAGE, "plane is stack or"),
        (("mip", "--series", series, "--set", "plane"), exits.USAGE, "NAME=VALUE"),
        (("mip",), exits.USAGE, "--study or --series"),
        (("add", "--series", series), exits.FAILED, "no two images show the same place"),
    ):
        code, out, err = pacs("process", "run", *arguments)
        assert code == expected and line in err and not out


def test_at_the_machine_the_owner_s_contract_must_grant_processing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACS_STORAGE__RESERVE_BYTES", "0")
    made = [ct_series(count=2, rows=16, columns=16) for _ in range(3)]
    owners = dict(zip(("radiology", "clinic", "local"), made, strict=True))
    for name, images in owners.items():
        with opened(tmp_path) as archive:
            for one in images:
                keep(archive, Dataset(dict(one.items())), registrant=name)

    def pacs(of: str, *command: str) -> tuple[int, str]:
        series = ("--series", owners[of][0].SeriesInstanceUID)
        code = main.run(["--home", str(tmp_path), "process", *command, *series])
        return code, capsys.readouterr().err.strip()

    run = ("run", "median")
    preview = ("preview", "median", "--force", "--output", str(tmp_path / "seen.png"))
    for owner in owners:
        assert pacs(owner, *run)[0] == exits.DONE, "without a contract this machine is trusted"
    with opened(tmp_path) as archive:
        rights = frozenset(Right) - {Right.CONNECT}
        subscriber.contracts(archive).add(ADMIN, contract("radiology", rights=rights))
        subscriber.terms(archive).add_purpose(
            ADMIN, "radiology", "teaching", PurposeEdits(), default=True
        )
    for command in (run, preview):
        assert pacs("radiology", *command)[0] == exits.DONE
        assert pacs("local", *command)[0] == exits.DONE, "nobody's contract could grant it"
        code, said = pacs("clinic", *command)
        assert code == exits.FAILED and len(said.splitlines()) == 1
        assert "images of clinic are not processed: clinic has no contract" in said
    with opened(tmp_path) as archive:
        subscriber.contracts(archive).revoke(ADMIN, "radiology", [Right.PROCESS])
    for command in (run, preview):
        code, said = pacs("radiology", *command)
        assert code == exits.FAILED and "radiology has no right to process" in said
    with opened(tmp_path) as archive:
        facts = (
            "SELECT subscriber, purpose FROM usage_fact WHERE kind = 'process' ORDER BY noted_ms"
        )
        noted = [tuple(row) for row in archive.database.execute(facts)]
    before = [("radiology", ""), ("clinic", ""), ("local", "")]
    assert noted == [*before, ("radiology", "teaching"), ("local", "")]
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    refused = [one for one in events if one["event"] == "process-refused"]
    assert len(refused) == 4 and all("not processed" in one["cause"] for one in refused)
