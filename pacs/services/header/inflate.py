"""Inflating the start of a deflated Data Set, piece by piece, up to a bound. PS3.5 Section A.5.

What lies behind the bound stays deflated: a small file can hold any amount of
zeros (a "zip bomb"), and the header of a real one ends long before.
"""

import io
import zlib
from typing import BinaryIO, Final

from pacs.core.errors import InstanceTruncated, InstanceUnreadable
from pacs.services.header.window import Window

_PIECE_BYTES: Final = 65_536
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_ZLIB_WRAPPED: Final = zlib.MAX_WBITS


def inflated(file: BinaryIO, size_bytes: int, *, max_bytes: int) -> Window:
    """Inflate at most ``max_bytes``; the window is ``cut`` when there was more.

    Raises ``InstanceTruncated`` where the stream ends early and
    ``InstanceUnreadable`` where it is no deflate stream. PS3.5 demands RFC
    1951; some senders write RFC 1950, whose two bytes around it are no harm.
    """
    origin = file.tell()
    try:
        return _inflated(file, size_bytes, max_bytes, _RAW_DEFLATE)
    except zlib.error:
        file.seek(origin)
    try:
        return _inflated(file, size_bytes, max_bytes, _ZLIB_WRAPPED)
    except zlib.error:
        raise InstanceUnreadable("the Data Set is no deflate stream") from None


def _inflated(file: BinaryIO, size_bytes: int, max_bytes: int, window_bits: int) -> Window:
    machine = zlib.decompressobj(window_bits)
    out = bytearray()
    left = size_bytes
    while not machine.eof and len(out) < max_bytes:
        piece = machine.unconsumed_tail
        if not piece:
            piece = file.read(min(_PIECE_BYTES, left))
            left -= len(piece)
        if not piece:
            raise InstanceTruncated("the deflated stream ends early")
        out += machine.decompress(piece, max_bytes - len(out))
    return Window(io.BytesIO(out), len(out), cut=not machine.eof)
