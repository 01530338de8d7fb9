"""PDUs as they arrive: framing, length caps, and the PDVs of a P-DATA-TF. PS3.8 Section 9.3.

Owns the rule that a PDU's length is judged before its body is read. Refuses to
decide what a PDU means: that is the state machine's.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEADER_BYTES = 6
READ_BYTES = 65_536
ASSOCIATE_RQ = 0x01
P_DATA = 0x04
LAST_TYPE = 0x07
OTHER_MAX_BYTES = 1_024
TOLERANCE_BYTES = 64
"""Some senders count our Maximum Length without the PDV headers; so much more is let through."""

UNRECOGNIZED_PDU = 1
INVALID_PARAMETER = 6
"""Reasons of A-ABORT from the service provider, PS3.8 Table 9-26."""


class PduRefused(Exception):
    """The peer's bytes are no PDU that we take; ``reason`` is the A-ABORT's."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"A-ABORT reason {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PduBounds:
    """Largest PDU length fields accepted, by type."""

    associate_bytes: int
    data_bytes: int

    def check(self, pdu_type: int, length_bytes: int) -> None:
        """Judge a PDU by its header. Raises ``PduRefused``."""
        if not ASSOCIATE_RQ <= pdu_type <= LAST_TYPE:
            raise PduRefused(UNRECOGNIZED_PDU)
        most = OTHER_MAX_BYTES
        if pdu_type == ASSOCIATE_RQ:
            most = self.associate_bytes
        elif pdu_type == P_DATA:
            most = self.data_bytes + TOLERANCE_BYTES
        least = 6 if pdu_type == P_DATA else 4
        if not least <= length_bytes <= most:
            raise PduRefused(INVALID_PARAMETER)


class PduReader:
    """Collects one PDU at a time from whatever pieces the transport gives."""

    def __init__(self, bounds: PduBounds) -> None:
        self._bounds = bounds
        self._buffer = bytearray()
        self._whole_bytes = HEADER_BYTES

    @property
    def partial(self) -> bool:
        """Tell whether a PDU has begun and not ended."""
        return bool(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        """How many bytes to read next: never past the PDU's end."""
        return min(READ_BYTES, self._whole_bytes - len(self._buffer))

    def feed(self, piece: bytes) -> bytes | None:
        """Take a piece of at most ``wanted_bytes``; give the PDU when it is whole.

        Raises ``PduRefused`` as soon as the header is known to be wrong.
        """
        self._buffer += piece
        if self._whole_bytes == HEADER_BYTES and len(self._buffer) == HEADER_BYTES:
            pdu_type, length_bytes = struct.unpack(">BxL", self._buffer)
            self._bounds.check(pdu_type, length_bytes)
            self._whole_bytes += length_bytes
        if len(self._buffer) < self._whole_bytes:
            return None
        whole = bytes(self._buffer)
        self._buffer.clear()
        self._whole_bytes = HEADER_BYTES
        return whole


@dataclass(frozen=True, slots=True)
class Pdv:
    """One Presentation Data Value, PS3.8 Section 9.3.5.1 and Annex E.2."""

    context_id: int
    is_command: bool
    is_last: bool
    value: memoryview


class ReceivedData:
    """A P-DATA-TF for pynetdicom's state machine, which asks a PDU for its primitive."""

    def __init__(self, pdu: bytes) -> None:
        self.pdvs = tuple(split_pdvs(pdu))

    def to_primitive(self) -> "ReceivedData":
        """Give the indication: it is the PDU itself, nothing is copied."""
        return self


def split_pdvs(pdu: bytes) -> Iterator[Pdv]:
    """Walk the PDVs of a whole P-DATA-TF. Raises ``PduRefused``."""
    view = memoryview(pdu)
    offset = HEADER_BYTES
    while offset < len(view):
        if len(view) - offset < 6:
            raise PduRefused(INVALID_PARAMETER)
        (length_bytes,) = struct.unpack_from(">L", view, offset)
        end = offset + 4 + length_bytes
        if length_bytes < 2 or end > len(view):
            raise PduRefused(INVALID_PARAMETER)
        header = view[offset + 5]
        yield Pdv(view[offset + 4], bool(header & 1), bool(header & 2), view[offset + 6 : end])
        offset = end
