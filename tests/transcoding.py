"""What the tests of conversions share: samples, Part 10 files around Data Sets, foreign readers."""

import os
import struct
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.sending_ports import Transcoder
from processing.datasets.syntaxes import LOSSLESS, LOSSY

ARC = "1.2.840.10008.1.2.4."
IMPLICIT = TransferSyntaxUID("1.2.840.10008.1.2")
EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
DEFLATED = TransferSyntaxUID("1.2.840.10008.1.2.1.99")
BIG = TransferSyntaxUID("1.2.840.10008.1.2.2")
RLE = TransferSyntaxUID("1.2.840.10008.1.2.5")
PLAIN = (IMPLICIT, EXPLICIT, DEFLATED, BIG)
SAMPLES = Path(os.environ.get("PACS_SAMPLES", Path(__file__).parents[1] / "../shared/samples"))
OUTSIDE = {
    "RLE is of bytes, not of single bits": ("liver_rle.dcm",),
    "frames differ from Rows and Columns": ("multiframe.dcm",),
    "codestream is damaged": ("JPEG-lossy.dcm",),
    "Data Set is not in the syntax its file says": ("SC_rgb_jpeg.dcm",),
    "codestream and Photometric Interpretation name other colours": ("GH195.dcm",),
    "cells wider than a word in big endian": ("rtdose_expb_1frame.dcm",),
}
"""Samples that are refused, by cause."""

UNSAID = frozenset(
    (
        "HasFragmentSequence.dcm",
        "HTJ2K_08_RGB.dcm",
        "JPEGLSNearLossless_08.dcm",
        "JPEGLSNearLossless_16.dcm",
        "SC_rgb_jls_lossy_line.dcm",
    )
)
"""Samples whose codestreams are lossy and whose Data Sets do not say so."""
OVERSHOT = {"jpeg2000-multiframe-multifragments.dcm": 16}
"""Samples with values beyond Bits Stored, and the precision of their codestreams."""

Stored = tuple[str, int, TransferSyntaxUID]


def part10(folder: Path, data_set: bytes, syntax: str, name: str = "stored.dcm") -> Stored:
    """Write a Part 10 file around an encoded Data Set."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    head = bytes(128) + b"DICM" + buffer.getvalue()
    path = folder / name
    path.write_bytes(head + data_set)
    return str(path), len(head), TransferSyntaxUID(syntax)


def stored(path: Path) -> Stored | None:
    """Find the Data Set in a Part 10 file."""
    with path.open("rb") as file:
        start = file.read(144)
        if start[128:132] != b"DICM" or start[132:140] != b"\2\0\0\0UL\4\0":
            return None
    (length,) = struct.unpack("<I", start[140:144])
    syntax = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID
    return str(path), 144 + length, TransferSyntaxUID(str(syntax))


def samples() -> list[Stored]:
    paths = [p for p in sorted(SAMPLES.rglob("*")) if p.is_file() and "malformed" not in p.parts]
    found = (stored(p) for p in paths if p.suffix != ".csv")
    return [s for s in found if s is not None and s[2] in {*PLAIN, *LOSSLESS, *LOSSY}]


def converted(transcoder: Transcoder, source: Stored, target: TransferSyntaxUID) -> bytes:
    with transcoder.convert(*source, target) as path:
        return Path(path).read_bytes()


def read_back(data_set: bytes, target: str) -> Dataset:
    """Let pydicom read what came out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(target)
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return dcmread(BytesIO(bytes(128) + b"DICM" + buffer.getvalue() + data_set))


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """Encode in Explicit VR Little Endian, independently of the code under test."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"OD", b"OF", b"UN", b"SQ", b"UT", b"OL", b"OV", b"SV", b"UV")
    return (
        head
        + struct.pack("<HI" if long else "<H", *((0, len(value)) if long else [len(value)]))
        + value
    )


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def encoded(ds: Dataset) -> bytes:
    """Encode in Explicit VR Little Endian with pydicom, without File Meta Information."""
    bare = Dataset(ds)
    buffer = BytesIO()
    bare.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()
