"""The short way into a Data Set: it finds what the strict reader finds, and leaves to it what is odd."""

import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pydicom.config
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items

from processing.datasets.elements import EXPLICIT_LITTLE, PIXEL_DATA, DataSet
from processing.datasets.image_pixel import ImagePixel, described
from processing.datasets.images import head_of
from processing.datasets.skim import skimmed
from processing.datasets.source import read
from tests.archive import data_set_offset
from tests.phantoms import ct_series

PIXELS = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 8) + b"12345678"


def encoded(one: Dataset) -> bytes:
    wire = DicomBytesIO()
    wire.is_implicit_VR, wire.is_little_endian = False, True
    write_dataset(wire, one)
    return wire.getvalue()


def with_sequences(*, undefined: bool) -> Dataset:
    one = deepcopy(ct_series(count=1, rows=4, columns=6)[0])
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "Grün"
    outer = Dataset()
    outer.RequestedProcedureDescription = "Thorax"
    outer.RequestedProcedureCodeSequence = Items([inner, deepcopy(inner)])
    one.RequestAttributesSequence = Items([outer, deepcopy(outer)])
    one.ProcedureCodeSequence = Items([])
    block = one.private_block(0x0029, "PHANTOM", create=True)
    block.add_new(1, "OB", b"\x01\x02\x03\x04")
    one["RequestAttributesSequence"].is_undefined_length = undefined
    outer["RequestedProcedureCodeSequence"].is_undefined_length = undefined
    outer.is_undefined_length_sequence_item = undefined
    return Dataset(dict(one.items()))


def told(element: object) -> list[str]:
    """An element in lines, but for the group lengths in items, which the strict way drops."""
    return [line for line in str(element).splitlines() if "Group Length" not in line]


def form(elements: DataSet) -> ImagePixel | None:
    try:
        return described(elements)
    except ValueError:
        return None


def require_alike(buffer: memoryview) -> None:
    found = skimmed(buffer)
    assert found is not None and found.pixels is not None
    elements = read(buffer, EXPLICIT_LITTLE)
    expected = head_of(elements)
    assert found.head.keys() == expected.keys()
    for tag in expected.keys():  # noqa: SIM118 - as in a Dataset
        assert told(found.head[tag]) == told(expected[tag])
    assert found.head.original_character_set == expected.original_character_set
    assert form(found.described) == form(elements)
    start, length = found.pixels
    assert buffer[start : start + length] == elements[PIXEL_DATA].value


@pytest.mark.parametrize("undefined", [False, True])
def test_it_finds_what_the_strict_reader_finds(undefined: bool) -> None:
    require_alike(memoryview(encoded(with_sequences(undefined=undefined))))


def test_it_finds_the_same_in_real_images(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As wherever we read: odd values are no reason to warn.
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    alike = 0
    for path in sorted(samples.rglob("*.dcm"))[:150]:
        try:
            syntax = read_file_meta_info(path).TransferSyntaxUID
        except Exception:  # noqa: BLE001 - samples hold files that are none
            continue
        if syntax != "1.2.840.10008.1.2.1":
            continue
        buffer = memoryview(path.read_bytes())[data_set_offset(path) :]
        found = skimmed(buffer)
        if found is not None and found.pixels is not None:
            require_alike(buffer)
            alike += 1
    if not alike:
        pytest.skip("not among the samples")
    assert alike > 5


def cut(whole: bytes) -> bytes:
    return whole[:-3]


def turned_round(whole: bytes) -> bytes:
    return PIXELS + whole[: whole.index(PIXELS[:4])]


def twice(whole: bytes) -> bytes:
    return whole[:18] + whole


def broken_sequence(whole: bytes) -> bytes:
    at = whole.index(struct.pack("<HH", 0xFFFE, 0xE000))
    return whole[:at] + b"\0\0\0\0" + whole[at + 4 :]


def no_vr(whole: bytes) -> bytes:
    return whole[:4] + b"zz" + whole[6:]


def encapsulated(whole: bytes) -> bytes:
    at = whole.index(PIXELS[:4])
    return whole[: at + 8] + struct.pack("<IHHI", 0xFFFF_FFFF, 0xFFFE, 0xE0DD, 0)


def no_character_set(whole: bytes) -> bytes:
    return whole.replace(b"ISO_IR 192", b"a\0bcdefghi", 1)


@pytest.mark.parametrize(
    "spoil", [cut, turned_round, twice, broken_sequence, no_vr, encapsulated, no_character_set]
)
def test_what_is_odd_is_left_to_the_strict_reader(spoil: Callable[[bytes], bytes]) -> None:
    whole = encoded(with_sequences(undefined=False))
    assert skimmed(memoryview(whole)) is not None
    assert skimmed(memoryview(spoil(whole))) is None


def test_without_pixels_there_is_a_head_only() -> None:
    one = with_sequences(undefined=False)
    del one.PixelData
    found = skimmed(memoryview(encoded(one)))
    assert found is not None and found.pixels is None
    assert found.head.PatientID == "PH-1"
