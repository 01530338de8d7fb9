"""PDUs as they arrive: framing, length caps, and PDVs taken in place. PS3.8 Section 9.3.

Owns the rule that a PDU's length is judged before its body is read, and that
P-DATA is never gathered: each piece is handed on where it lies in the receive
buffer. Refuses to decide what a PDU means: that is the state machine's.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from config.settings import Association
from pacs.core.identifiers import is_ae_title

ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
P_DATA: Final = 0x04
LAST_TYPE: Final = 0x07
OTHER_MAX_BYTES: Final = 1_024
TOLERANCE_BYTES: Final = 64
"""Some senders count our Maximum Length without the PDV headers; so much more is let through."""

UNRECOGNIZED_PDU: Final = 1
INVALID_PARAMETER: Final = 6
"""Reasons of A-ABORT from the service provider, PS3.8 Table 9-26."""

RELEASE_RQ: Final = bytes.fromhex("05000000000400000000")
RELEASE_RP: Final = bytes.fromhex("06000000000400000000")

COMMAND: Final = 1
LAST: Final = 2
"""Bits of the message control header, PS3.8 Section E.2."""

ITEMS_AT: Final = 74
"""Where the items of an A-ASSOCIATE-RQ or -AC begin, PS3.8 Tables 9-11 and 9-17."""

TITLES_AT: Final = (10, 26)
UNREADABLE_TITLE: Final = b"UNREADABLE".ljust(16)
"""Called and calling AE title, and what stands for one that is none."""

USER_INFORMATION: Final = 0x50
ASSOCIATE_ITEMS: Final = frozenset({0x10, 0x20, 0x21})
USER_ITEMS: Final = frozenset(range(0x51, 0x5A))
"""Item types of PS3.8 Section 9.3 and Annex D, and of PS3.7 Annex D.3.3."""

_ITEM = struct.Struct(">BxH")
_PDU = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_P_DATA = struct.Struct(">BxLLBB")
PDV_OVERHEAD_BYTES: Final = _PDV.size
P_DATA_HEADER_BYTES: Final = _P_DATA.size


class PduRefused(Exception):
    """The peer's bytes are no PDU that we take; ``reason`` is the A-ABORT's."""

    def __init__(self, reason: int) -> None:
        super().__init__(f"A-ABORT reason {reason}")
        self.reason = reason


def check(pdu_type: int, length_bytes: int, bounds: Association) -> None:
    """Judge a PDU by its header. Raises ``PduRefused``."""
    if not ASSOCIATE_RQ <= pdu_type <= LAST_TYPE:
        raise PduRefused(UNRECOGNIZED_PDU)
    most = OTHER_MAX_BYTES
    if pdu_type in (ASSOCIATE_RQ, ASSOCIATE_AC):
        most = bounds.max_associate_pdu_bytes
    elif pdu_type == P_DATA:
        most = bounds.max_pdu_bytes + TOLERANCE_BYTES
    least = PDV_OVERHEAD_BYTES if pdu_type == P_DATA else 4
    if not least <= length_bytes <= most:
        raise PduRefused(INVALID_PARAMETER)


class Receiver(Protocol):
    """Who is told what arrives. Each returns whether reading shall pause."""

    def begins_data(self) -> None:
        """The header of a P-DATA-TF has arrived."""

    def takes(self, context_id: int, control: int, piece: memoryview, ended: bool) -> bool:
        """A piece of a PDV's value has arrived; it is gone when this returns."""

    def takes_pdu(self, pdu: bytearray) -> bool:
        """A whole PDU of any other type has arrived."""


class PduReader:
    """Walks PDUs in whatever pieces the transport gives."""

    def __init__(self, bounds: Association, receiver: Receiver) -> None:
        self._bounds = bounds
        self._receiver = receiver
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0
        self._gathered = bytearray()
        self._step: Callable[[memoryview], tuple[int, bool]] = self._header

    @property
    def within_pdu(self) -> bool:
        """Tell whether a PDU's header has been read and its end has not."""
        return self._step != self._header

    def read(self, view: memoryview) -> int:
        """Take what can be taken until the receiver wants a pause; tell how many bytes that was.

        Raises ``PduRefused`` as soon as a header is known to be wrong.
        """
        taken, paused = 0, False
        while not paused:
            size, paused = self._step(view[taken:])
            taken += size
            if not size:
                break
        return taken

    def _header(self, view: memoryview) -> tuple[int, bool]:
        if len(view) < _PDU.size:
            return 0, False
        pdu_type, length_bytes = _PDU.unpack_from(view)
        check(pdu_type, length_bytes, self._bounds)
        self._pdu_left = length_bytes
        if pdu_type == P_DATA:
            self._receiver.begins_data()
            self._step = self._pdv_header
        else:
            self._gathered = bytearray(view[: _PDU.size])
            self._step = self._body
        return _PDU.size, False

    def _body(self, view: memoryview) -> tuple[int, bool]:
        piece = view[: self._pdu_left]
        self._gathered += piece
        self._pdu_left -= len(piece)
        if self._pdu_left:
            return len(piece), False
        whole, self._gathered, self._step = self._gathered, bytearray(), self._header
        return len(piece), self._receiver.takes_pdu(whole)

    def _pdv_header(self, view: memoryview) -> tuple[int, bool]:
        if self._pdu_left < _PDV.size:
            raise PduRefused(INVALID_PARAMETER)
        if len(view) < _PDV.size:
            return 0, False
        length_bytes, self._context_id, self._control = _PDV.unpack_from(view)
        self._pdu_left -= _PDV.size
        self._pdv_left = length_bytes - 2
        if not 0 <= self._pdv_left <= self._pdu_left:
            raise PduRefused(INVALID_PARAMETER)
        self._step = self._value
        if self._pdv_left:
            return _PDV.size, False
        return _PDV.size, self._value(view[:0])[1]

    def _value(self, view: memoryview) -> tuple[int, bool]:
        piece = view[: self._pdv_left]
        self._pdv_left -= len(piece)
        self._pdu_left -= len(piece)
        ended = not self._pdv_left
        if ended:
            self._step = self._pdv_header if self._pdu_left else self._header
        elif not piece:
            return 0, False
        return len(piece), self._receiver.takes(self._context_id, self._control, piece, ended)


def p_data_header(context_id: int, control: int, value_bytes: int) -> bytes:
    """What stands before a value that travels alone in its P-DATA-TF. PS3.8 Tables 9-22 and 9-23."""
    return _P_DATA.pack(
        P_DATA, value_bytes + PDV_OVERHEAD_BYTES, value_bytes + 2, context_id, control
    )


def readable_titles(pdu: bytes) -> tuple[tuple[str, str], bytes]:
    """Read called and calling AE title; put others for those that are none, so that the rest can be read.

    Source: PS3.8 Tables 9-11 and 9-17. In an A-ASSOCIATE-AC they are not to be
    tested; in an -RQ they are a reason to reject, not to abort. Raises
    ``PduRefused`` where they are cut off.
    """
    if len(pdu) < ITEMS_AT:
        raise PduRefused(INVALID_PARAMETER)
    called, calling = (pdu[at : at + 16].decode("latin-1").strip(" ") for at in TITLES_AT)
    body = b"".join(
        one.ljust(16).encode("ascii") if is_ae_title(one) else UNREADABLE_TITLE
        for one in (called, calling)
    )
    return (called, calling), pdu[: TITLES_AT[0]] + body + pdu[TITLES_AT[1] + 16 :]


def without_unknown_items(pdu: bytes) -> bytes:
    """Leave out of an A-ASSOCIATE-RQ or -AC the items nobody knows. Source: PS3.8 Section 9.3.1.

    Raises ``PduRefused`` where lengths do not add up.
    """
    known = list[bytes]()
    for item in _items(pdu[ITEMS_AT:]):
        if item[0] == USER_INFORMATION:
            body = b"".join(one for one in _items(item[_ITEM.size :]) if one[0] in USER_ITEMS)
            known += (_ITEM.pack(USER_INFORMATION, len(body)), body)
        elif item[0] in ASSOCIATE_ITEMS:
            known.append(item)
    body = pdu[_PDU.size : ITEMS_AT] + b"".join(known)
    return _PDU.pack(pdu[0], len(body)) + body


def _items(encoded: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(encoded):
        if len(encoded) - at < _ITEM.size:
            raise PduRefused(INVALID_PARAMETER)
        end = at + _ITEM.size + _ITEM.unpack_from(encoded, at)[1]
        if end > len(encoded):
            raise PduRefused(INVALID_PARAMETER)
        yield encoded[at:end]
        at = end
