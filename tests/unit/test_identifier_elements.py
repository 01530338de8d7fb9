"""The number of elements and items a peer may make us read is bounded before they are read."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.association.elements import TooManyElements, check_elements
from pacs.association.identifiers import DEFLATED, EXPLICIT_BIG, decode_identifier

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
UNDEFINED = 0xFFFFFFFF
MIB = 1_048_576
EMPTY_ITEMS = ITEM * (MIB // len(ITEM) - 4)
EMPTY_ELEMENTS = b"".join(
    struct.pack("<HHL", 0x0008 + 2 * (n >> 15), n & 0x7FFF, 0) for n in range(MIB // 8)
)
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
NESTED = (struct.pack("<HHL", 0x0040, 0x0275, UNDEFINED) + OPEN_ITEM) * (MIB // 16)


def sequence(items: bytes, vr: bytes = b"") -> bytes:
    tag = struct.pack("<HH", 0x0040, 0x0275)
    return tag + (vr + b"\0\0" if vr else b"") + struct.pack("<L", len(items)) + items


@pytest.mark.parametrize(
    ("encoded", "syntax"),
    [
        (sequence(EMPTY_ITEMS), IMPLICIT),
        (sequence(EMPTY_ITEMS, b"SQ"), EXPLICIT),
        (sequence(EMPTY_ITEMS, b"UN"), EXPLICIT),
        (sequence(EMPTY_ITEMS, b"SQ"), IMPLICIT),  # read as what it looks like
        (EMPTY_ELEMENTS, IMPLICIT),
        (sequence(ITEM[:4] + struct.pack("<L", len(EMPTY_ELEMENTS)) + EMPTY_ELEMENTS), IMPLICIT),
        (NESTED, IMPLICIT),
    ],
    ids=["implicit", "explicit", "unknown", "disguised", "flat", "in an item", "nested"],
)
def test_a_megabyte_of_nothing_is_refused_before_it_is_read(
    encoded: bytes, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    monkeypatch.setattr("pacs.association.identifiers.read_dataset", lambda *_: read.append(1))
    with pytest.raises(TooManyElements):
        decode_identifier(encoded, syntax, most_bytes=2 * MIB, most_elements=2_000)
    assert read == []
    decode_identifier(encoded[:8], syntax, most_bytes=2 * MIB, most_elements=2_000)
    assert read == [1]


def test_a_deflated_one_is_counted_when_inflated() -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(sequence(EMPTY_ITEMS, b"SQ")) + deflater.flush()
    with pytest.raises(TooManyElements):
        decode_identifier(deflated, DEFLATED, most_bytes=2 * MIB, most_elements=2_000)


def data_sets() -> st.SearchStrategy[Dataset]:
    def filled(children: list[list[Dataset]], texts: list[str]) -> Dataset:
        made = Dataset()
        for at, text in enumerate(texts):
            made.add_new(0x00100010 + 0x10 * at, "LO", text)
        for at, items in enumerate(children):
            made.add_new((0x00081032, 0x00400275, 0x00081110)[at], "SQ", items)
        return made

    texts = st.lists(st.text("AB 1", max_size=9), max_size=3)
    leaves = st.builds(filled, st.just([]), texts)
    return st.recursive(
        leaves,
        lambda inner: st.builds(filled, st.lists(st.lists(inner, max_size=3), max_size=3), texts),
        max_leaves=8,
    )


def counted(data_set: Dataset) -> int:
    """Elements and items as pydicom makes them."""
    return sum(
        1 + sum(1 + counted(item) for item in (one.value if one.VR == "SQ" else []))
        for one in data_set
    )


@settings(max_examples=100, deadline=None)
@given(data_set=data_sets(), open_ended=st.booleans())
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, EXPLICIT_BIG])
def test_the_count_is_pydicoms(syntax: str, data_set: Dataset, open_ended: bool) -> None:
    for one in data_set.iterall():
        if one.VR == "SQ":
            one.is_undefined_length = open_ended
            for item in one.value:
                item.is_undefined_length_sequence_item = open_ended
    stream = DicomBytesIO()
    implicit, little = syntax == IMPLICIT, syntax != EXPLICIT_BIG
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, data_set)
    encoded, count = stream.getvalue(), counted(data_set)
    check_elements(encoded, implicit=implicit, little=little, most=count)
    if count:
        with pytest.raises(TooManyElements):
            check_elements(encoded, implicit=implicit, little=little, most=count - 1)


@settings(max_examples=200, deadline=None)
@given(encoded=st.binary(max_size=200), implicit=st.booleans(), little=st.booleans())
def test_whatever_the_bytes_counting_ends(encoded: bytes, implicit: bool, little: bool) -> None:
    check_elements(encoded, implicit=implicit, little=little, most=len(encoded) // 8 + 1)
