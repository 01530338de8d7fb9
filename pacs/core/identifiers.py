"""Identifiers: types that keep one kind of string from being taken for another.

Source of the UID rules: PS3.5 Section 9.1. Object ids are RFC 9562 version 7.
"""

import hashlib
import os
import re
import time
import uuid
from typing import NewType

StudyInstanceUID = NewType("StudyInstanceUID", str)
SeriesInstanceUID = NewType("SeriesInstanceUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SOPClassUID = NewType("SOPClassUID", str)
TransferSyntaxUID = NewType("TransferSyntaxUID", str)

AETitle = NewType("AETitle", str)
"""Application Entity Title, 1 to 16 characters, stripped of its padding."""

Registrant = NewType("Registrant", str)
"""The subscriber whose object it is. Identity of instances is per registrant."""

Digest = NewType("Digest", str)
"""``blake3:`` or ``sha256:`` and hex, of the Data Set as received, without File Meta."""

ObjectId = NewType("ObjectId", str)
"""Canonical text of a time-ordered UUID; names one kept file, never issued twice."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}\Z")


def is_uid(text: str) -> bool:
    """Tell whether ``text`` can serve as a UID: digits and dots, 1 to 64 characters.

    Leading zeros of a component are against PS3.5 Section 9.1 and common in
    the field, so they pass.
    """
    return len(text) <= 64 and _UID.match(text) is not None


def is_ae_title(text: str) -> bool:
    """Tell whether ``text`` is an AE title: PS3.5 Table 6.2-1, VR AE, not only spaces."""
    return bool(text.strip()) and _AE_TITLE.match(text) is not None


def new_object_id(now_ms: int | None = None) -> ObjectId:
    """Issue a time-ordered object id. Source: RFC 9562 Section 5.7 and 6.2, method 3.

    Later ids sort after earlier ones as text: the twelve bits behind the
    milliseconds count their fraction, in steps of about 244 ns.
    """
    now_ns = time.time_ns() if now_ms is None else now_ms * 1_000_000
    milliseconds, rest_ns = divmod(now_ns, 1_000_000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (rest_ns * 4096 // 1_000_000) << 64
    value |= 0b10 << 62 | int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return ObjectId(str(uuid.UUID(int=value)))


def derived_uid(*facts: str) -> str:
    """Make the UID that these facts have, every time the same and no others' (PS3.5 Section B.2).

    Source: RFC 9562 Section 5.8, a UUID whose bits are those of a hash.

    >>> derived_uid("1.2.3", "a") == derived_uid("1.2.3", "a") != derived_uid("1.2.3a", "")
    True
    """
    hashed = hashlib.sha256("\0".join(facts).encode()).digest()
    value = int.from_bytes(hashed[:16]) & ~(0xF << 76 | 0b11 << 62)
    return f"2.25.{value | 0x8 << 76 | 0b10 << 62}"


def object_id_time_ms(object_id: ObjectId) -> int:
    """Tell when an object id was issued, in milliseconds since the epoch, UTC."""
    return uuid.UUID(object_id).int >> 80
