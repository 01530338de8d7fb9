"""Headers of real files from many makers agree with what pydicom reads of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.config import IGNORE
from pydicom.dataset import FileDataset
from pydicom.filereader import _read_file_meta_info, dcmread, read_preamble
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from config.settings import Parsing
from pacs.core.attributes import INDEXED
from pacs.core.errors import PacsError
from pacs.core.records import Header
from pacs.services.header import read_dataset, read_header
from pacs.services.header.non_patient import NON_PATIENT_SOP_CLASSES

SAMPLES = Path(
    os.environ.get("PACS_SAMPLES") or Path(__file__).parents[2].parent / "shared" / "samples"
)
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
NOT_READ_RIGHT_BY_PYDICOM = {"chrGB2312.dcm"}  # it leaves escape sequences in the text
WITHOUT_LAST_DELIMITER = {"GH1339.dcm"}
LIMITS = Parsing()


def part10_files() -> Iterator[Path]:
    if SAMPLES.is_dir():
        for path in sorted(SAMPLES.rglob("*")):
            if path.is_file() and "malformed" not in path.parts:
                with path.open("rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        yield path


def _as_written(value: object) -> object:
    return getattr(value, "original_string", value)


def meant(data_set: FileDataset, keyword: str) -> str:
    """Write what pydicom read as the index writes it."""
    value = data_set.get(keyword)
    values = value if isinstance(value, (MultiValue, list)) else [value]
    written = [one if isinstance(one, PersonName) else _as_written(one) for one in values]
    texts = [str(one).strip(" \0") for one in written]
    if value is None or not any(texts):
        return ""
    if "Date" in keyword:
        texts = [one.replace(".", "") for one in texts]
    if "Time" in keyword:
        texts = [one.replace(":", "") for one in texts]
    return "\\".join(texts)


def read(path: Path) -> Header:
    with path.open("rb") as file:
        read_preamble(file, force=False)
        syntax = str(_read_file_meta_info(file).get("TransferSyntaxUID", ""))
        start, size_bytes = file.tell(), path.stat().st_size - file.tell()
        assert read_dataset(file, size_bytes, syntax, LIMITS)
        file.seek(start)
        return read_header(file, size_bytes, syntax, LIMITS)


@pytest.mark.parametrize("path", list(part10_files()), ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore")
def test_a_real_file_is_read_as_pydicom_reads_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydicom.config.settings.reading_validation_mode", IGNORE)
    data_set = dcmread(path, stop_before_pixels=True)
    usable = all(0 < len(data_set.get(keyword) or "") <= 64 for keyword in UIDS)
    usable = usable or data_set.get("SOPClassUID") in NON_PATIENT_SOP_CLASSES
    if path.name in WITHOUT_LAST_DELIMITER:  # pydicom finds nothing at all in it
        assert read(path).sop_instance_uid == data_set.file_meta.MediaStorageSOPInstanceUID
        return
    if not usable:
        with pytest.raises(PacsError):
            read(path)
        return
    header = read(path)
    if path.name in NOT_READ_RIGHT_BY_PYDICOM:
        return
    for one in INDEXED:
        found = header.values.get(one.keyword, "")
        if one.vr == "SQ":
            assert bool(found) == bool(data_set.get(one.keyword)), one.keyword
        elif not found.startswith("2.25.") or data_set.get(one.keyword):
            assert found == meant(data_set, one.keyword), one.keyword
