"""A Data Set is refused by its structure and its identifiers only, each cause by name."""

import io
import struct
import zlib

import pytest

from config.settings import Parsing
from pacs.core import errors
from pacs.core.records import Header
from pacs.services.header import read_dataset, read_header

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
LIMITS = Parsing()
SEQUENCE_END = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
ITEM_END = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One explicit little endian element of a VR with a 16-bit length."""
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def long_element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One explicit little endian element of a VR with a 32-bit length."""
    length = len(value) if length is None else length
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length) + value


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if length is None else length) + content


IDENTIFIERS = {
    0x00080016: element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    0x00080018: element(0x00080018, "UI", b"1.2.3.4\0"),
    0x0020000D: element(0x0020000D, "UI", b"1.2.3.5\0"),
    0x0020000E: element(0x0020000E, "UI", b"1.2.3.6\0"),
}
WHOLE = b"".join(IDENTIFIERS.values())
PIXELS = long_element(0x7FE00010, "OW", bytes(200_000))


def header_of(raw: bytes, syntax: str = EXPLICIT, limits: Parsing = LIMITS) -> Header:
    return read_header(io.BytesIO(raw), len(raw), syntax, limits)


def test_reading_starts_where_the_file_stands() -> None:
    file = io.BytesIO(b"meta" * 50 + WHOLE)
    file.seek(200)
    header = read_header(file, len(WHOLE), EXPLICIT, LIMITS, issuer_of_patient_id="here")
    assert header.study_instance_uid == "1.2.3.5"
    assert (header.patient_id, header.issuer_of_patient_id) == ("", "here")
    assert "PatientID" not in header.values


def test_the_data_sets_own_issuer_wins() -> None:
    raw = WHOLE + element(0x00100020, "LO", b" 7 ") + element(0x00100021, "LO", b"CLINIC")
    header = read_header(io.BytesIO(raw), len(raw), EXPLICIT, LIMITS, issuer_of_patient_id="x")
    assert (header.patient_id, header.issuer_of_patient_id) == ("7", "CLINIC")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(5_000),
        bytes(128) + b"DICM" + element(0x00020010, "UI", b"1.2") + WHOLE,
        element(0x00020010, "UI", b"1.2\0") + WHOLE,
        element(0x00000100, "US", b"\1\0") + WHOLE,
        WHOLE + item(b""),
        WHOLE + long_element(0x00400275, "SQ", WHOLE, 0xFFFFFFFF),
    ],
)
def test_what_is_no_data_set_is_unreadable(raw: bytes) -> None:
    with pytest.raises(errors.InstanceUnreadable) as caught:
        header_of(raw)
    assert type(caught.value) is errors.InstanceUnreadable


@pytest.mark.parametrize("lost_bytes", [1, 7, 199_999, 200_000, 200_004, 200_011])
def test_a_truncated_data_set_is_refused_as_such(lost_bytes: int) -> None:
    raw = WHOLE + PIXELS
    with pytest.raises(errors.InstanceTruncated):
        header_of(raw[:-lost_bytes])


@pytest.mark.parametrize(
    "tail",
    [
        long_element(0x7FE00010, "OB", item(b"") + item(b"1234"), 0xFFFFFFFF),
        long_element(0x00400275, "SQ", item(b"", 0xFFFFFFFF) + ITEM_END, 0xFFFFFFFF),
        long_element(0x00400275, "SQ", item(b"", 0xFFFFFFFF), 0xFFFFFFFF),
    ],
)
def test_delimiters_that_only_end_the_data_set_may_be_missing(tail: bytes) -> None:
    assert header_of(WHOLE + tail).sop_instance_uid == header_of(WHOLE).sop_instance_uid


@pytest.mark.parametrize(
    "tail",
    [
        long_element(0x00400275, "SQ", item(b""), 0xFFFFFFFE),
        long_element(0x7FE00010, "OB", b"", 0xFFFFFFFE),
        long_element(0x7FE00010, "OB", item(b"") + item(b"1234")[:-1], 0xFFFFFFFF),
    ],
)
def test_a_fragment_cut_off_or_a_huge_length_is_a_truncation(tail: bytes) -> None:
    with pytest.raises(errors.InstanceTruncated):
        header_of(WHOLE + tail)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        bytes(3),
        bytes(600),
        long_element(0xFFFCFFFC, "OB", bytes(130)),
        long_element(0x7FE00010, "OB", item(b"") + item(b"1234") + SEQUENCE_END, 0xFFFFFFFF),
        long_element(0x00400275, "SQ", item(b"", 0xFFFFFFFF) + SEQUENCE_END, 0xFFFFFFFF),
        element(0x00080005, "CS", b"ISO_IR 100"),
        element(0x00091001, "LO", b"odd"),
        element(0x00280010, "XX", b"ab"),
        long_element(0x00280010, "ZZ", b"abcd"),
        element(0x00280010, "  ", b"\2\0"),
        element(0x00280010, "OB", b"\2\0"),
        struct.pack("<HHL", 0x0040, 0x0275, 4) + b"abcd",
    ],
)
def test_oddities_of_structure_are_no_cause(tail: bytes) -> None:
    assert header_of(WHOLE + tail).sop_instance_uid == "1.2.3.4"


def test_the_order_of_tags_decides_what_an_odd_vr_means() -> None:
    pixels = long_element(0x7FE00010, "OW", b"\x08\0\x08\0" * 100_000)
    header = header_of(WHOLE + element(0x00280010, "  ", b"\2\0\2\0") + pixels)
    assert header.values["Rows"] == "2\\2"


def test_a_broken_sequence_with_a_length_is_skipped() -> None:
    broken = long_element(0x00400275, "SQ", b"no item at all, but its end is known")
    header = header_of(WHOLE + broken + element(0x00420010, "ST", b"x "))
    assert "RequestAttributesSequence" not in header.values


@pytest.mark.parametrize("tag", sorted(IDENTIFIERS))
@pytest.mark.parametrize("value", [None, b"", b"1.2.x", b"1" * 65, b"1..2"])
def test_each_unusable_uid_is_named(tag: int, value: bytes | None) -> None:
    parts = dict(IDENTIFIERS)
    parts[tag] = b"" if value is None else element(tag, "UI", value)
    with pytest.raises(errors.InstanceIncomplete) as caught:
        header_of(b"".join(parts.values()))
    assert caught.value.offending_elements == (tag,)


def test_a_non_patient_object_gets_a_study_and_series_of_its_own() -> None:
    hanging_protocol = element(0x00080016, "UI", b"1.2.840.10008.5.1.4.38.1")
    raw = hanging_protocol + IDENTIFIERS[0x00080018]
    header = header_of(raw)
    assert header == header_of(raw)
    assert header.study_instance_uid.startswith("2.25.")
    assert header.values["StudyInstanceUID"] != header.values["SeriesInstanceUID"]
    with pytest.raises(errors.InstanceIncomplete):
        header_of(raw + IDENTIFIERS[0x0020000D])


def test_nesting_is_bounded_with_and_without_lengths() -> None:
    opening = long_element(0x00081110, "SQ", item(b"", 0xFFFFFFFF), 0xFFFFFFFF)
    with pytest.raises(errors.InstanceTooDeep):
        header_of(WHOLE + opening * 10_000)
    nest = b""
    for _ in range(1_000):
        nest = long_element(0x00081110, "SQ", item(nest))
    with pytest.raises(errors.InstanceTooDeep):
        header_of(WHOLE + nest)


def test_sequences_may_nest_to_the_bound() -> None:
    limits = Parsing(max_depth=3)
    nest = b""
    for _ in range(3):
        nest = long_element(0x00081110, "SQ", item(nest))
    assert header_of(WHOLE + nest, limits=limits).sop_instance_uid == "1.2.3.4"
    with pytest.raises(errors.InstanceTooDeep):
        header_of(WHOLE + long_element(0x00081110, "SQ", item(nest)), limits=limits)


def test_elements_and_held_bytes_are_bounded() -> None:
    with pytest.raises(errors.InstanceTooDeep):
        header_of(WHOLE, limits=Parsing(max_elements=3))
    with pytest.raises(errors.InstanceTooDeep):
        header_of(WHOLE, limits=Parsing(max_header_bytes=600))


def test_a_long_value_is_cut_off_not_refused() -> None:
    raw = WHOLE + element(0x00104000, "LT", b"x" * 5_000)
    header = header_of(raw, limits=Parsing(max_value_bytes=1_000))
    assert header.values["PatientComments"] == "x" * 1_000
    data_set = read_dataset(io.BytesIO(raw), len(raw), EXPLICIT, Parsing(max_value_bytes=1_000))
    assert "PatientComments" not in data_set


def deflate(raw: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(raw) + machine.flush()


@pytest.mark.parametrize("pad", [b"", b"\0"])
def test_a_deflated_data_set_is_read(pad: bytes) -> None:
    assert header_of(deflate(WHOLE + PIXELS) + pad, DEFLATED) == header_of(WHOLE)
    assert header_of(zlib.compress(WHOLE), DEFLATED) == header_of(WHOLE)


def test_a_deflated_data_set_is_refused_by_cause() -> None:
    whole = deflate(WHOLE + PIXELS)
    with pytest.raises(errors.InstanceTruncated):
        header_of(whole[:-3], DEFLATED)
    with pytest.raises(errors.InstanceTruncated):
        header_of(deflate((WHOLE + PIXELS)[:-1]), DEFLATED)
    with pytest.raises(errors.InstanceUnreadable):
        header_of(WHOLE, DEFLATED)


def test_only_the_header_of_a_bomb_is_inflated() -> None:
    limits = Parsing(max_header_bytes=100_000)
    bomb = bytes(50_000_000)
    behind = deflate(WHOLE + long_element(0x7FE00010, "OW", bomb))
    assert header_of(behind, DEFLATED, limits).sop_instance_uid == "1.2.3.4"
    before = deflate(long_element(0x00080001, "OB", bomb) + WHOLE)
    with pytest.raises(errors.InstanceTooDeep):
        header_of(before, DEFLATED, limits)


def test_deflated_frames_are_an_encapsulated_syntax() -> None:
    assert header_of(WHOLE + PIXELS, "1.2.840.10008.1.2.8.1").sop_instance_uid == "1.2.3.4"


def test_bulk_is_not_read() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            got = super().read(size)
            self.taken += len(got)
            return got

    raw = WHOLE + long_element(0x7FE00010, "OW", bytes(5_000_000))
    file = Counting(raw)
    read_header(file, len(raw), EXPLICIT, LIMITS)
    assert file.taken < 200_000
