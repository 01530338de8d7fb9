"""Which files can be sent: Part 10 files, told by their File Meta Information. PS3.10 Section 7.1.

Owns the walk over files and folders and the reading of group 0002. It never
reads further than SOP Instance UID (0008,0018) and refuses to judge a Data Set.
"""

import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import read_partial

from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, TransferSyntaxUID, is_uid
from pacs.core.records import Payload

PREAMBLE_BYTES = 128
PREFIX = b"DICM"
MAX_META_BYTES = 1_048_576
"""Private Information (0002,0102) can be long; a File Meta beyond this is taken for damage."""

LONG_FORM = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
"""VRs with a four-byte length, PS3.5 Section 7.1.2."""

MEDIA_STORAGE_SOP_CLASS_UID = 0x0002
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0003
TRANSFER_SYNTAX_UID = 0x0010
SOP_INSTANCE_UID_TAG = 0x00080018
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsendable:
    """A file that is not sent, and why."""

    path: Path
    reason: str


def walk(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files as given, and those of folders recursively in the order of their names."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        yield from sorted(one for one in path.rglob("*") if one.is_file())


def read(paths: Iterable[Path]) -> Iterator[Payload | Unsendable]:
    """Yield for each file under ``paths`` what would be sent, or why it cannot be."""
    for path in walk(paths):
        try:
            yield _payload(path)
        except OSError as failure:
            yield Unsendable(path=path, reason=failure.strerror or "cannot be read")
        except ValueError as failure:
            yield Unsendable(path=path, reason=str(failure))


def _payload(path: Path) -> Payload:
    """Read one file's File Meta. Raises ``ValueError`` in words, or ``OSError``."""
    with path.open("rb") as source:
        if source.read(PREAMBLE_BYTES + len(PREFIX))[PREAMBLE_BYTES:] != PREFIX:
            raise ValueError("not a DICOM Part 10 file")
        meta, offset = _file_meta(source)
    syntax = meta.get(TRANSFER_SYNTAX_UID, "")
    sop_class = meta.get(MEDIA_STORAGE_SOP_CLASS_UID, "")
    sop_instance = meta.get(MEDIA_STORAGE_SOP_INSTANCE_UID, "")
    if sop_class == MEDIA_STORAGE_DIRECTORY:
        raise ValueError("a DICOMDIR, not an instance")
    if syntax != DEFLATED:
        sop_class, sop_instance = _data_set_uids(path, sop_class, sop_instance)
    for name, value in (
        ("Transfer Syntax UID", syntax),
        ("SOP Class UID", sop_class),
        ("SOP Instance UID", sop_instance),
    ):
        if not is_uid(value):
            raise ValueError(f"no usable {name}")
    return Payload(
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(sop_instance),
        transfer_syntax_uid=TransferSyntaxUID(syntax),
        path=str(path),
        offset=offset,
    )


def _file_meta(source: BinaryIO) -> tuple[dict[int, str], int]:
    """Read group 0002, Explicit VR Little Endian; give its UIDs and where the Data Set begins.

    The group's own length (0002,0000) is not trusted: it is wrong in the field.
    """
    found: dict[int, str] = {}
    while True:
        start = source.tell()
        head = source.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return found, start
        element, vr, length = struct.unpack("<2xH2sH", head)
        if vr in LONG_FORM:
            (length,) = struct.unpack("<I", source.read(4).ljust(4, b"\xff"))
        if source.tell() + length > MAX_META_BYTES or not vr.isalpha():
            raise ValueError("damaged File Meta Information")
        value = source.read(length)
        if vr == b"UI":
            found[element] = value.decode("latin-1").strip("\x00 ")


def _past_sop_instance_uid(tag: int, _vr: str | None, _length: int) -> bool:
    return tag > SOP_INSTANCE_UID_TAG


def _data_set_uids(path: Path, sop_class: str, sop_instance: str) -> tuple[str, str]:
    """Prefer the Data Set's own UIDs, which a receiver checks, to those of the File Meta.

    A Data Set that pydicom cannot start to read is still the receiver's to judge.
    """
    try:
        with path.open("rb") as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd UID is told as such, not by pydicom
            data_set = read_partial(source, stop_when=_past_sop_instance_uid)
            return (
                str(data_set.get("SOPClassUID") or sop_class),
                str(data_set.get("SOPInstanceUID") or sop_instance),
            )
    except Exception:  # noqa: BLE001 - pydicom's parser names no common base
        return sop_class, sop_instance
