"""References from a derived image to its sources, and the codes that say what they are.

Owns how a source is named, in Data Sets and encoded at once where there are thousands.
PS3.3 Sections C.7.6.1.1.4 and C.7.6.16.2.6.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items

from processing.datasets.elements import SHORT_VRS
from processing.datasets.raw_values import text_of

_OF_PROCESSING = ("121322", "Source image for image processing operation")
_ITEM = struct.Struct("<HHI")
_TAG = struct.Struct("<HH")
_SHORT = struct.Struct("<H")
_LONG = struct.Struct("<HI")
_MAX_SHORT_BYTES = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One source; ``frames`` counted from 1, empty for all."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frames: tuple[int, ...] = ()


def references_of(
    heads: Sequence[Dataset], frames: Sequence[tuple[int, ...]]
) -> tuple[Reference, ...]:
    """Refer to sources, to those frames of each."""
    return tuple(
        Reference(
            sop_class_uid=text_of(one, 0x0008_0016),
            sop_instance_uid=text_of(one, 0x0008_0018),
            series_instance_uid=text_of(one, 0x0020_000E),
            frames=some,
        )
        for one, some in zip(heads, frames, strict=True)
    )


@lru_cache(maxsize=4)
def source_images(references: tuple[Reference, ...]) -> bytes:
    """Encode a Source Image Sequence. Many results of one volume have the same, and it is long."""
    items = b"".join(map(_encoded_source, references))
    return _element(0x0008_2112, b"SQ", items)


def _encoded_source(one: Reference) -> bytes:
    """Encode an item by hand: there may be thousands, and a Dataset each would take most of the time."""
    said = _element(0x0008_1150, b"UI", one.sop_class_uid.encode("ascii", "replace"))
    said += _element(0x0008_1155, b"UI", one.sop_instance_uid.encode("ascii", "replace"))
    if one.frames:
        said += _element(0x0008_1160, b"IS", "\\".join(map(str, one.frames)).encode())
    said += _purpose()
    return _ITEM.pack(0xFFFE, 0xE000, len(said)) + said


@lru_cache(maxsize=1)
def _purpose() -> bytes:
    holder, encoded = Dataset(), BytesIO()
    holder.PurposeOfReferenceCodeSequence = Items([code_item(*_OF_PROCESSING)])
    buffer = DicomIO(encoded)
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, holder)
    return encoded.getvalue()


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian. PS3.5 Section 7.1.2."""
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    head = _TAG.pack(tag >> 16, tag & 0xFFFF) + vr
    if vr in SHORT_VRS and len(value) <= _MAX_SHORT_BYTES:
        return head + _SHORT.pack(len(value)) + value
    return (head if vr == b"SQ" else head[:-2] + b"UN") + _LONG.pack(0, len(value)) + value


def by_series(references: Sequence[Reference], keyword: str) -> Iterator[Dataset]:
    """Name sources by series; the sequence of a series has another name in each module."""
    for uid in dict.fromkeys(one.series_instance_uid for one in references):
        series = Dataset()
        series.SeriesInstanceUID = uid
        images = [_referenced(one) for one in references if one.series_instance_uid == uid]
        setattr(series, keyword, Items(images))
        yield series


def source_item(reference: Reference) -> Dataset:
    """Make an item of a Source Image Sequence."""
    item = _referenced(reference)
    if reference.frames:
        item.ReferencedFrameNumber = list(reference.frames)
    item.PurposeOfReferenceCodeSequence = Items([code_item(*_OF_PROCESSING)])
    return item


def _referenced(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def code_item(value: str, meaning: str) -> Dataset:
    """Make an item of a code sequence."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item
