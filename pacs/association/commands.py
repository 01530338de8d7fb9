"""DIMSE command sets as mappings from keyword to value. PS3.7 Sections 6.3 and 9.3, Annex E.

Owns their encoding, which is always Implicit VR Little Endian. It is our own
because a command set is small, has six VRs and comes from strangers: every
length is checked, and nothing is evaluated later. Refuses to decide what a
command means.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from pacs.association.message import Operation

COMMAND_FIELDS: Final[Mapping[int, Operation]] = {  # PS3.7 Table E.1-1
    0x0001: Operation.C_STORE,
    0x0010: Operation.C_GET,
    0x0020: Operation.C_FIND,
    0x0021: Operation.C_MOVE,
    0x0030: Operation.C_ECHO,
    0x0100: Operation.N_EVENT_REPORT,
    0x0110: Operation.N_GET,
    0x0120: Operation.N_SET,
    0x0130: Operation.N_ACTION,
    0x0140: Operation.N_CREATE,
    0x0150: Operation.N_DELETE,
}
FIELD_OF: Final[Mapping[Operation, int]] = {one: field for field, one in COMMAND_FIELDS.items()}
C_CANCEL: Final = 0x0FFF
RESPONSE_BIT: Final = 0x8000
NO_DATA_SET: Final = 0x0101
WITH_DATA_SET: Final = 0x0001
LAST_MESSAGE_ID: Final = 0xFFFF
NAMED_AS_REQUESTED: Final = frozenset(
    {Operation.N_GET, Operation.N_SET, Operation.N_ACTION, Operation.N_DELETE}
)
"""Operations on an instance that exists: its class is Requested, not Affected. PS3.7 Section 10.3."""

_HOUSEKEEPING = frozenset({"CommandGroupLength", "CommandField", "CommandDataSetType"})
_NUMBERS = {"US": "H", "UL": "L"}
_ELEMENT = struct.Struct("<HHL")
_LONGEST_TABLE = 1_024


@lru_cache(_LONGEST_TABLE)
def _known(element: int) -> tuple[str, str]:
    """Keyword and VR of a command element; no keyword where PS3.7 does not name it."""
    keyword = keyword_for_tag(element)
    return keyword, dictionary_VR(element) if keyword else ""


@lru_cache(_LONGEST_TABLE)
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None or tag >> 16:
        raise ValueError(f"{keyword} is no command element")
    return tag


class CommandRefused(Exception):
    """The bytes are no command set."""


def decode_command(encoded: bytes) -> dict[str, object]:
    """Read a command set. Source: PS3.7 Section 6.3.1. Raises ``CommandRefused``.

    UI, AE, LO and the like are text without padding; US and UL are ``int``, or
    a tuple where there are several; AT is always a tuple of tags. Elements of
    zero length and those PS3.7 does not name are left out.
    """
    command: dict[str, object] = {}
    offset = 0
    while offset < len(encoded):
        if len(encoded) - offset < 8:
            raise CommandRefused("element header cut off")
        group, element, length_bytes = _ELEMENT.unpack_from(encoded, offset)
        offset += 8
        if group != 0 or offset + length_bytes > len(encoded):
            raise CommandRefused("element outside the command group, or longer than its set")
        value = encoded[offset : offset + length_bytes]
        offset += length_bytes
        keyword, vr = _known(element)
        if keyword and value:
            command[keyword] = _decoded(vr, value)
    if not isinstance(command.get("CommandField"), int):
        raise CommandRefused("no Command Field")
    if not isinstance(command.get("CommandDataSetType"), int):
        raise CommandRefused("no Command Data Set Type")
    return command


def _decoded(vr: str, value: bytes) -> object:
    if vr in _NUMBERS:
        size = 2 if vr == "US" else 4
        numbers = struct.unpack(f"<{_whole(value, size)}{_NUMBERS[vr]}", value)
        return numbers[0] if len(numbers) == 1 else numbers
    if vr == "AT":
        words = struct.unpack(f"<{2 * _whole(value, 4)}H", value)
        pairs = zip(words[::2], words[1::2], strict=True)
        return tuple(group << 16 | element for group, element in pairs)
    return value.decode("latin-1").strip(" \0")


def _whole(value: bytes, size: int) -> int:
    if len(value) % size:
        raise CommandRefused("number cut off")
    return len(value) // size


def encode_command(command: Mapping[str, object]) -> bytes:
    """Write a command set, Command Group Length first. Values of ``None`` are left out."""
    elements: dict[int, bytes] = {}
    for keyword, value in command.items():
        tag = _tag(keyword)
        if value is not None and tag:
            elements[tag] = _encoded(_known(tag)[1], value)
    body = b"".join(
        _ELEMENT.pack(0, tag, len(value)) + value for tag, value in sorted(elements.items())
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _encoded(vr: str, value: object) -> bytes:
    if vr in _NUMBERS:
        return struct.pack(f"<{_NUMBERS[vr]}", value)
    if vr == "AT":
        tags = value if isinstance(value, (tuple, list)) else (value,)
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in map(int, tags))
    text = str(value).encode("ascii", "replace")
    padding = b"\0" if vr == "UI" else b" "
    return text + padding * (len(text) % 2)


def encode_request(
    operation: Operation,
    sop_class_uid: str,
    *,
    message_id: int,
    fields: Mapping[str, object],
    with_data_set: bool,
) -> bytes:
    """Write the command set of a request of ours."""
    named = "Requested" if operation in NAMED_AS_REQUESTED else "Affected"
    return encode_command(
        {
            "CommandField": FIELD_OF[operation],
            f"{named}SOPClassUID": sop_class_uid,
            "MessageID": message_id,
            "CommandDataSetType": WITH_DATA_SET if with_data_set else NO_DATA_SET,
            **fields,
        }
    )


def operation_of(command: Mapping[str, object]) -> Operation | None:
    """Name the operation a request asks for; ``None`` for one that PS3.7 does not know."""
    return COMMAND_FIELDS.get(number(command, "CommandField", default=-1))


def number(command: Mapping[str, object], keyword: str, *, default: int = 0) -> int:
    """Read a number that the peer may have left out or written as a list."""
    value = command.get(keyword, default)
    return value if isinstance(value, int) else default


def text(command: Mapping[str, object], *keywords: str) -> str:
    """Read the first of several text elements that is there; empty when none is."""
    for keyword in keywords:
        value = command.get(keyword)
        if isinstance(value, str) and value:
            return value
    return ""


def fields_of(command: Mapping[str, object]) -> dict[str, object]:
    """Leave out what only describes the message itself."""
    return {key: value for key, value in command.items() if key not in _HOUSEKEEPING}
