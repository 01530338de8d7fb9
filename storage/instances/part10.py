"""File Meta Information of kept files: written before the first byte of a Data Set, read back by reindex.

PS3.10 Section 7.1. Provenance that the standard has no element for is JSON in
Private Information (0002,0102). Decides nothing about where files are.
"""

import json
import struct
from datetime import datetime
from functools import lru_cache
from typing import Any

from pacs.core.errors import InstanceCorrupt
from pacs.core.forms import FormMeta
from pacs.core.identifiers import (
    AETitle,
    Digest,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.core.records import IncomingMeta, Provenance

PRIVATE_INFORMATION_CREATOR_UID = "2.25.323588020922014984990903540343249068651"

_PREAMBLE = bytes(128) + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sHL")
MAX_META_BYTES = 1 << 20
_REMEMBERED_ROUTES = 256


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """Encode one element of group 0002, Explicit VR Little Endian, padded to even length."""
    padding = b"\0" if vr in (b"UI", b"OB") else b" "
    padded = value + padding if len(value) % 2 else value
    if vr == b"OB":
        return _LONG.pack(0x0002, number, vr, 0, len(padded)) + padded
    return _SHORT.pack(0x0002, number, vr, len(padded)) + padded


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")


_VERSION = _element(0x0001, b"OB", b"\0\1")


def encode(meta: IncomingMeta) -> bytes:
    """Make preamble, prefix and File Meta Information. Their length is the Data Set's offset."""
    origin = meta.provenance
    private: dict[str, object] = {
        "registrant": origin.registrant,
        "issuer": origin.issuer_of_patient_id,
        "received": origin.received_utc.isoformat(),
        "association": origin.association,
    }
    if meta.form is not None:
        private["original"] = _original(meta.form)
    body = b"".join(
        (
            _VERSION,
            _element(0x0002, b"UI", _ascii(meta.sop_class_uid)),
            _element(0x0003, b"UI", _ascii(meta.sop_instance_uid)),
            _route(meta.transfer_syntax_uid, origin.source_ae_title, origin.receiving_ae_title),
            _element(0x0102, b"OB", json.dumps(private).encode()),
        )
    )
    return _PREAMBLE + _SHORT.pack(0x0002, 0, b"UL", 4) + struct.pack("<L", len(body)) + body


def _original(form: FormMeta) -> dict[str, object]:
    """Say of a re-encoded form what was received instead of it."""
    return {
        "digest": form.original_digest,
        "syntax": form.original_syntax_uid,
        "bytes": form.original_bytes,
        "recipe": form.recipe,
    }


def _form(original: dict[str, Any] | None) -> FormMeta | None:
    """Read back what ``_original`` said."""
    if original is None:
        return None
    return FormMeta(
        original_digest=Digest(original["digest"]),
        original_syntax_uid=TransferSyntaxUID(original["syntax"]),
        original_bytes=int(original["bytes"]),
        recipe=str(original["recipe"]),
    )


@lru_cache(_REMEMBERED_ROUTES)
def _route(transfer_syntax_uid: str, source_ae_title: str, receiving_ae_title: str) -> bytes:
    """Make what is the same for all instances of one presentation context."""
    return b"".join(
        (
            _element(0x0010, b"UI", _ascii(transfer_syntax_uid)),
            _element(0x0012, b"UI", _ascii(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", _ascii(IMPLEMENTATION_VERSION_NAME)),
            _element(0x0016, b"AE", _ascii(source_ae_title)),
            _element(0x0017, b"AE", _ascii(source_ae_title)),
            _element(0x0018, b"AE", _ascii(receiving_ae_title)),
            _element(0x0100, b"UI", _ascii(PRIVATE_INFORMATION_CREATOR_UID)),
        )
    )


def data_set_offset(start: bytes) -> int:
    """Tell where the Data Set begins, from a file's first 144 bytes. Raises ``InstanceCorrupt``."""
    if len(start) < 144 or start[128:132] != b"DICM" or start[132:138] != b"\2\0\0\0UL":
        raise InstanceCorrupt("not a file of this archive: no File Meta Information")
    (length,) = struct.unpack_from("<L", start, 140)
    if length > MAX_META_BYTES:
        raise InstanceCorrupt("File Meta Information is damaged: its length is out of bounds")
    return 144 + int(length)


def decode(file_meta: bytes) -> IncomingMeta:
    """Read back what ``encode`` wrote. Raises ``InstanceCorrupt``."""
    try:
        end = data_set_offset(file_meta)
        if len(file_meta) < end:
            raise InstanceCorrupt("File Meta Information is cut off")
        values = dict(_elements(file_meta, end))
        private = json.loads(values[0x0102].rstrip(b"\0"))
        return IncomingMeta(
            sop_class_uid=SOPClassUID(_text(values[0x0002])),
            sop_instance_uid=SOPInstanceUID(_text(values[0x0003])),
            transfer_syntax_uid=TransferSyntaxUID(_text(values[0x0010])),
            provenance=Provenance(
                registrant=Registrant(private["registrant"]),
                issuer_of_patient_id=private["issuer"],
                received_utc=datetime.fromisoformat(private["received"]),
                association=private["association"],
                source_ae_title=AETitle(_text(values[0x0016])),
                receiving_ae_title=AETitle(_text(values[0x0018])),
            ),
            form=_form(private.get("original")),
        )
    except (KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise InstanceCorrupt("File Meta Information is damaged") from error


def _text(value: bytes) -> str:
    return value.decode("ascii").rstrip("\0 ")


def _elements(file_meta: bytes, end: int) -> list[tuple[int, bytes]]:
    found = []
    position = 144
    while position < end:
        _, number, vr, length = _SHORT.unpack_from(file_meta, position)
        position += _SHORT.size
        if vr == b"OB":
            (length,) = struct.unpack_from("<L", file_meta, position)
            position += 4
        found.append((number, file_meta[position : position + length]))
        position += length
    return found
