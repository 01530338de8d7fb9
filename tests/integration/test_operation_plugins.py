"""Operations of other distributions: known beside ours, by version, and their faults cost their results only."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from config.settings import Process
from pacs.app.archive import Archive
from pacs.app.extension import Attached, Extension
from pacs.app.operations import catalogue
from pacs.app.process import processing
from pacs.core.attributes import Level
from pacs.core.errors import (
    ProcessingFailed,
    ProcessingRefused,
    ProcessingUnknown,
    SettingsInvalid,
)
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.processing import ProcessingRequest, StoredImage
from pacs.core.records import Selection
from pacs.services.process import Asked
from processing.datasets.process import SandboxedProcessor
from tests.integration.test_extension import installed, pacs
from tests.keeping import ADMIN, keep, listed, opened
from tests.phantoms import ct_series, hounsfield, saved

EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")

_MODULE = '''
import os
from dataclasses import dataclass
import numpy as np
from processing.operations.operation import Kind, Meaning, Operation
from processing.operations.parameters import Parameters, number

@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted(Parameters):
    """Lift all values."""
    by: float = number(1.0, least=0, most=100, says="How far")

def operation(name, run, version="1.0", meaning=Meaning.SAME):
    return Operation(name=name, version=version, kind=Kind.IMAGE, parameters=Lifted, run=run,
                     contrast="FILTERED", meaning=meaning)

def lift(image, parameters):
    return image.values + parameters.by

NEWER = operation("gaussian", lift, "2.0")
OLDER = operation("gaussian", lift, "0.9")
TENTH = operation("lift", lift, "1.10")
SECOND = operation("lift", lift, "1.2")
AGAIN = operation("lift", lift, "1.2")
ODD = operation("Lift it!", lift)
RAISES = operation("raises", lambda image, parameters: 1 / 0)
CRASHES = operation("crashes", lambda image, parameters: os.abort())
FLAT = operation("flat", lambda image, parameters: image.values.ravel())
ENDLESS = operation("endless", lambda image, parameters: image.values * np.inf)
BRIGHT = operation("bright", lift, meaning=Meaning.DISPLAY)
'''


def extension(*attributes: str) -> Extension:
    return Extension(
        name="lender",
        attach=lambda archive, settings: Attached(),
        operations=tuple(f"lent_operations:{one}" for one in attributes),
    )


@pytest.fixture(autouse=True)
def _site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "lent_operations.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def processor(tmp_path: Path) -> Iterator[SandboxedProcessor]:
    known = catalogue([extension("OLDER", "NEWER", "TENTH", "SECOND", "RAISES", "CRASHES", "FLAT",
                                 "ENDLESS", "BRIGHT")])  # fmt: skip
    made = SandboxedProcessor(Process(), tmp_path / "work", catalogue=known, workers=1, threads=1)
    with closing(made):
        yield made


def request(
    files: list[Path],
    operation: str,
    version: str = "",
    parameters: Mapping[str, str] | None = None,
) -> ProcessingRequest:
    """Ask for something to be done to phantoms, which begin after preamble and meta information."""
    offsets = [144 + int.from_bytes(one.read_bytes()[140:144], "little") for one in files]
    return ProcessingRequest(
        operation=operation,
        version=version,
        parameters=parameters or {},
        sources=[
            StoredImage(path=str(one), offset=at, transfer_syntax_uid=EXPLICIT)
            for one, at in zip(files, offsets, strict=True)
        ],
        series_instance_uid="1.2.3",
    )


def test_the_newest_version_is_meant_unless_one_is_pinned(processor: SandboxedProcessor) -> None:
    assert processor.checked("gaussian", {"by": "3"}).version == "2.0"
    assert processor.checked("gaussian", {"sigma": "3"}, "1.0").version == "1.0"
    assert processor.checked("gaussian", {}, "0.9").summary == "Lift all values."
    assert processor.checked("lift", {}).version == "1.10", "versions are numbers, not words"
    with pytest.raises(
        ProcessingUnknown, match=r"not installed in version '3.0', only 1.0, 0.9, 2.0"
    ):
        processor.checked("gaussian", {}, "3.0")
    with pytest.raises(ProcessingUnknown, match="no such parameter: 'by'"):
        processor.checked("gaussian", {"by": "3"}, "1.0")


def test_results_are_those_of_the_pinned_version_and_say_so(
    processor: SandboxedProcessor, tmp_path: Path
) -> None:
    from pydicom.filereader import read_dataset

    source = ct_series(count=1, rows=20, columns=24)[0]
    files = saved([source], tmp_path / "in")
    for version, said in (
        ("2.0", "gaussian 2.0: by=7.0"),
        ("1.0", "gaussian 1.0: sigma=1.0 unit=mm"),
    ):
        asked = request(files, "gaussian", version, {"by": "7"} if version == "2.0" else {})
        with processor.process(asked) as results:
            (one,) = results
            with Path(one.path).open("rb") as file:
                found = read_dataset(file, False, True)
        assert found.DerivationDescription == said
        assert found.ContributingEquipmentSequence[0].SoftwareVersions == version
        lifted = np.array_equal(hounsfield(found), hounsfield(source) + 7)
        assert lifted == (version == "2.0")


def test_a_fault_costs_only_its_result(processor: SandboxedProcessor, tmp_path: Path) -> None:
    files = saved(ct_series(count=1, rows=20, columns=24), tmp_path / "in")
    for operation, error, said in (
        ("raises", ProcessingFailed, "ZeroDivisionError"),
        ("crashes", ProcessingFailed, "crashed"),
        ("flat", ProcessingRefused, "gave no image"),
        ("endless", ProcessingRefused, "no numbers"),
        ("bright", ProcessingRefused, "levels that are none"),
    ):
        with pytest.raises(error, match=said), processor.process(request(files, operation)):
            pytest.fail("nothing was made")
        with processor.process(request(files, "lift")) as results:
            assert len(results) == 1, operation


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (("SECOND", "AGAIN"), "two operations are lift 1.2"),
        (("ODD",), "its name is not of the form"),
        (("NOWHERE",), "cannot be loaded"),
        (("lift",), "is no Operation"),
    ],
)
def test_what_cannot_be_offered_is_refused_as_an_archive_opens(
    offered: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with (
        pytest.raises(SettingsInvalid, match=said),
        opened(tmp_path, extensions=(extension(*offered),)),
    ):
        pytest.fail("it was opened")


def run(archive: Archive, operation: str, series: str) -> list[str]:
    selection = Selection(level=Level.SERIES, series_instance_uids=(series,))
    with processing(archive) as service:
        asked = Asked(operation=operation, parameters={}, selection=selection)
        return service.run(ADMIN, asked, workers=1, most=10).series


def test_an_archive_computes_what_an_extension_brings(tmp_path: Path) -> None:
    with opened(tmp_path, extensions=(extension("TENTH"),)) as archive:
        images = ct_series(count=2, rows=20, columns=24)
        for one in images:
            keep(archive, Dataset(dict(one.items())))
        (series,) = run(archive, "lift", str(images[0].SeriesInstanceUID))
        assert len(listed(archive, Level.IMAGE, SeriesInstanceUID=series)) == 2


def test_an_installed_one_is_listed_with_ours(tmp_path: Path) -> None:
    folder = installed(tmp_path / "site", "lender:EXTENSION")
    (folder / "lent_operations.py").write_text(_MODULE)
    (folder / "lender.py").write_text(
        "from pacs.app.extension import Attached, Extension\n"
        "EXTENSION = Extension(name='lender', attach=lambda archive, settings: Attached(),\n"
        "                      operations=('lent_operations:NEWER', 'lent_operations:TENTH'))\n"
    )
    done = pacs(tmp_path / "home", folder, "process", "operations", "--json")
    assert done.returncode == 0, done.stderr
    rows = {(one["name"], one["version"]) for one in json.loads(done.stdout)}
    assert {("gaussian", "1.0"), ("gaussian", "2.0"), ("lift", "1.10"), ("mip", "1.0")} <= rows
