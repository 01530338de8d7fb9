"""The same Data Set gives the same header in every encoding; broken ones fail by name only."""

import contextlib
import io
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from config.settings import Parsing
from pacs.core.errors import PacsError
from pacs.services.header import read_dataset, read_header

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
LIMITS = Parsing(max_elements=20_000, max_header_bytes=200_000)

words = st.text(alphabet="AbcdÉß王山 ", min_size=0, max_size=12)
numbers = st.integers(0, 65_535)
KEYWORDS = ("PatientName", "PatientID", "StudyDescription", "PatientComments", "OperatorsName")


def written(data_set: Dataset, syntax: str) -> bytes:
    """Write a Data Set as ``syntax`` lays it out, by pydicom."""
    file = DicomBytesIO()
    file.is_implicit_VR = syntax == IMPLICIT
    file.is_little_endian = syntax != BIG
    write_dataset(file, data_set)
    raw = file.getvalue()
    if syntax != DEFLATED:
        return raw
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(raw) + machine.flush()


@st.composite
def items(draw: st.DrawFn, depth: int = 2) -> Dataset:
    one = Dataset()
    one.CodeValue = draw(words)
    one.add(DataElement("TotalNumberOfExposures", "US", draw(numbers), validation_mode=IGNORE))
    if depth and draw(st.booleans()):
        one.ProcedureCodeSequence = Sequence([draw(items(depth - 1))])
        one["ProcedureCodeSequence"].value[0].is_undefined_length_sequence_item = draw(
            st.booleans()
        )
    return one


@st.composite
def data_sets(draw: st.DrawFn) -> Dataset:
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 192"
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.SOPInstanceUID, one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    for keyword in KEYWORDS:
        if draw(st.booleans()):
            setattr(one, keyword, draw(words))
    one.Rows, one.Columns = draw(numbers), draw(numbers)
    one.RequestAttributesSequence = Sequence(draw(st.lists(items(), max_size=3)))
    one["RequestAttributesSequence"].is_undefined_length = draw(st.booleans())
    one.add_new(0x00091001, "UN", draw(st.binary(max_size=8)) * 2)
    one.PixelData = bytes(2 * draw(numbers))
    one["PixelData"].VR = "OW"
    return one


@given(data_sets())
@settings(max_examples=60, deadline=None)
def test_every_encoding_gives_the_same_header(data_set: Dataset) -> None:
    headers, rows = [], []
    for syntax in (EXPLICIT, IMPLICIT, BIG, DEFLATED):
        raw = written(data_set, syntax)
        headers.append(read_header(io.BytesIO(raw), len(raw), syntax, LIMITS))
        full = read_dataset(io.BytesIO(raw), len(raw), syntax, LIMITS)
        rows.append((full.Rows, full.Columns, len(full.RequestAttributesSequence)))
        assert "PixelData" not in full
    assert headers[1:] == headers[:1] * 3
    assert rows == [(data_set.Rows, data_set.Columns, len(data_set.RequestAttributesSequence))] * 4
    assert headers[0].values["Rows"] == str(data_set.Rows)
    if "PatientID" in data_set:
        assert headers[0].patient_id == data_set.PatientID.strip()


@pytest.mark.parametrize("actual", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("announced", [EXPLICIT, IMPLICIT, BIG, "1.2.3.4", ""])
def test_bytes_outrank_what_was_announced(actual: str, announced: str) -> None:
    one = Dataset()
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.SOPInstanceUID, one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    one.Rows = 512
    raw = written(one, actual)
    assert read_header(io.BytesIO(raw), len(raw), announced, LIMITS).values["Rows"] == "512"


def fails_by_name_only(raw: bytes, syntax: str) -> None:
    for read in (read_header, read_dataset):
        with contextlib.suppress(PacsError):  # anything else fails the test
            read(io.BytesIO(raw), len(raw), syntax, LIMITS)


@given(st.binary(max_size=600), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_by_name(raw: bytes, syntax: str) -> None:
    fails_by_name_only(raw, syntax)


@given(data_sets(), st.data(), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_data_sets_never_fail_otherwise(
    data_set: Dataset, data: st.DataObject, syntax: str
) -> None:
    raw = bytearray(written(data_set, syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw), 800) - 1))] ^= data.draw(st.integers(1, 255))
    fails_by_name_only(bytes(raw), syntax)
    fails_by_name_only(bytes(raw[: data.draw(st.integers(0, len(raw)))]), syntax)
