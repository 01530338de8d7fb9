"""Values reach the index as clean Unicode text, whatever their bytes and their VR."""

import io
import json
import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Parsing
from pacs.services.header import read_dataset, read_header
from pacs.services.header.text import UNDECLARED, CharacterSet, character_set, decode
from pacs.services.header.values import text_of, value_of

ALL_VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OW", "PN"),
    *("SH", "SL", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "XX"),
)
EXPLICIT = "1.2.840.10008.1.2.1"


def text(vr: str, raw: bytes, characters: CharacterSet = UNDECLARED) -> str:
    return text_of(vr, raw, characters, little=True)


@pytest.mark.parametrize(
    ("declared", "raw", "expected"),
    [
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO IR 100 ", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"iso-ir-144", b"\xbb\xee\xda", "Люк"),
        (b"ISO_IR 192", "Wang^王".encode(), "Wang^王"),
        (b"utf-8", "Wang^王".encode(), "Wang^王"),
        (b"KLINGON", "Wang^王".encode(), "Wang^王"),
        (b"KLINGON", b"J\xe9", "Jé"),
        (b"", "é".encode(), "é"),
        (b"ISO_IR 192", b"J\xe9", "J\ufffd"),
        (b"GB18030", b"\xcd\xf5^\xd0\xa1\xb6\xab", "王^小东"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde=\x1b$B;3ED\x1b(J",
            "ﾔﾏﾀﾞ=山田",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
            "Hong^Gildong=洪^吉洞",
        ),
        (b"\\ISO 2022 IR 58", b"Z=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1", "Z=张^小"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-L\xbb^\xe9", "Л^é"),
        (b"ISO 2022 IR 6", b"a\x1b", "a\x1b"),
    ],
)
def test_character_sets_are_obeyed_or_guessed(declared: bytes, raw: bytes, expected: str) -> None:
    assert decode(raw, character_set(declared)) == expected


@given(st.binary(max_size=80), st.binary(max_size=24))
def test_decoding_never_fails_and_always_suits_a_database(raw: bytes, declared: bytes) -> None:
    decoded = decode(raw, character_set(declared))
    assert "\0" not in decoded
    assert decoded.encode("utf-8").decode("utf-8") == decoded


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DA", b"1997.04.24", "19970424"),
        ("DA", b"19970424", "19970424"),
        ("DA", b"nonsense", "nonsense"),
        ("TM", b"10:20:30", "102030"),
        ("TM", b"10:20:30.5 ", "102030.5"),
        ("TM", b"1020", "1020"),
        ("UI", b"1.2.3\0", "1.2.3"),
        ("LO", b"a \\ b\0", "a\\b"),
        ("LO", b" \\ ", ""),
        ("LT", b"  a\\b  ", "  a\\b"),
        ("PN", b"A^B==C ", "A^B==C"),
        ("PN", b"A^B=\xe7\x8e\x8b=", "A^B=王"),
        ("DS", b" 1.50\\2 ", "1.50\\2"),
        ("IS", b"abc", "abc"),
        ("US", b"\1\0\2\0\3", "1\\2"),
        ("SS", b"\xff\xff", "-1"),
        ("FD", struct.pack("<dd", 1.5, float("nan")), "1.5"),
        ("AT", b"\x10\0\x20\0", "00100020"),
        ("US", b"", ""),
    ],
)
def test_values_become_text_without_padding(vr: str, raw: bytes, expected: str) -> None:
    assert text(vr, raw) == expected


@given(
    st.sampled_from(ALL_VRS),
    st.binary(max_size=60),
    st.booleans(),
)
def test_no_value_fails_or_warns(vr: str, raw: bytes, little: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value_of(vr, raw, UNDECLARED, little=little)
        if vr not in ("OB", "OW", "UN", "XX"):
            assert "\0" not in text_of(vr, raw, UNDECLARED, little=little)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"SQ", b"UN"):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


CODE = element(0x00080100, b"SH", b"T-04000 ") + element(0x00401010, b"PN", b"A^B=\xe7\x8e\x8b ")
ODD = element(0x00102210, b"CS", b"\xff\xfe") + element(0x00101020, b"DS", b"tall")
NAMED = b"".join(
    element(tag, b"UI", value)
    for tag, value in {
        0x00080016: b"1.2.840.10008.5.1.4.1.1.2\0",
        0x00080018: b"1.2.3.4\0",
        0x0020000D: b"1.2.3.5\0",
        0x0020000E: b"1.2.3.6\0",
    }.items()
)


def test_an_indexed_sequence_is_dicom_json_without_odd_values() -> None:
    raw = element(0x00080005, b"CS", b"ISO_IR 192") + NAMED
    raw += element(0x00400275, b"SQ", item(CODE + ODD) + item(b""))
    header = read_header(io.BytesIO(raw), len(raw), EXPLICIT, Parsing())
    first, second = json.loads(header.values["RequestAttributesSequence"])
    assert first["00080100"] == {"vr": "SH", "Value": ["T-04000"]}
    assert first["00401010"]["Value"] == [{"Alphabetic": "A^B", "Ideographic": "王"}]
    assert first["00101020"] == {"vr": "DS"}
    assert second == {}


def test_a_value_json_has_no_form_for_is_left_out_of_the_index_alone() -> None:
    nameless = element(0x00080008, b"PN", b"\0\\")  # two values, both without a component
    raw = NAMED + element(0x00400275, b"SQ", item(nameless + element(0x00400007, b"LO", b"CT")))
    header = read_header(io.BytesIO(raw), len(raw), EXPLICIT, Parsing())
    found = json.loads(header.values["RequestAttributesSequence"])
    assert found == [{"00400007": {"vr": "LO", "Value": ["CT"]}}]


def test_an_indexed_sequence_written_as_unknown_is_implicit() -> None:
    code = struct.pack("<HHL", 0x0008, 0x0100, 4) + b"CODE"
    raw = NAMED + element(0x00400275, b"UN", item(code))
    header = read_header(io.BytesIO(raw), len(raw), EXPLICIT, Parsing())
    found = json.loads(header.values["RequestAttributesSequence"])
    assert found == [{"00080100": {"vr": "SH", "Value": ["CODE"]}}]


def test_only_indexed_attributes_with_a_value_are_in_the_header() -> None:
    raw = NAMED + element(0x00080060, b"CS", b"  ") + element(0x00180050, b"DS", b"5 ")
    header = read_header(io.BytesIO(raw), len(raw), EXPLICIT, Parsing())
    assert set(header.values) == {
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
    }


def test_the_whole_header_holds_odd_values_as_none() -> None:
    raw = NAMED + ODD + element(0x00180050, b"DS", b"5.0 ") + element(0x00280010, b"UN", b"\2\0")
    data_set = read_dataset(io.BytesIO(raw), len(raw), EXPLICIT, Parsing())
    assert data_set.PatientSize is None
    assert str(data_set.SliceThickness) == "5.0"
    assert data_set.Rows == 2
