"""What a codestream says of its own size, read without decoding.

Owns the walk to the frame header, and the refusal of a codestream whose header
announces another size than the Data Set: a decoder believes the header, and
would make room for it. ITU-T T.81 Annex B.2, T.87 Annex C, T.800 Annex A.5.1;
PS3.5 Annex G for RLE, whose streams have no header to believe.
"""

import struct

from processing.codecs.frame import Form

_RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (90, 91, 201, 202, 203))

_FRAME_HEADERS = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7))
"""SOF of the processes of DICOM and SOF55 of JPEG-LS; not DHT, JPG, DAC."""
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SOC_SIZ = b"\xff\x4f\xff\x51"


class SizeContradicted(ValueError):
    """A codestream announces another size than its Data Set, or has no header that says one."""


def require_size(stream: bytes, syntax: str, form: Form) -> None:
    """Refuse a codestream of another size. Raises ``SizeContradicted``."""
    if syntax == _RLE:
        return
    found = _jpeg_2000(stream) if syntax in _JPEG_2000 else _jpeg(stream)
    if found[:2] != (form.rows, form.columns) or found[2] != form.samples:
        raise SizeContradicted("codestream and Data Set differ in size")


def jpeg_colors(stream: bytes) -> str:
    """Tell what a JPEG stream calls its three components: "RGB", "YBR", or nothing.

    Component identifiers R, G, B mean RGB, a JFIF marker without them YBR.
    """
    start = _frame_header(stream)
    identifiers = stream[start + 10 : start + 19 : 3]
    if identifiers.upper() == b"RGB":
        return "RGB"
    return "YBR" if b"JFIF\0" in stream[:start] else ""


def _jpeg(stream: bytes) -> tuple[int, int, int]:
    """Give rows, columns and components of the first frame header."""
    try:
        rows, columns, components = struct.unpack_from(">HHB", stream, _frame_header(stream) + 5)
    except struct.error as error:
        raise SizeContradicted("codestream ends in its frame header") from error
    return rows, columns, components


def _frame_header(stream: bytes) -> int:
    """Find the marker of the first frame header. Raises ``SizeContradicted``."""
    at = stream.find(b"\xff\xd8") + 2  # some writers put something before
    try:
        while at >= 2:
            if stream[at] != 0xFF:
                break
            marker = stream[at + 1]
            if marker in _FRAME_HEADERS:
                return at
            at += _step(stream, at, marker)
    except (IndexError, struct.error) as error:
        raise SizeContradicted("codestream ends before its frame header") from error
    raise SizeContradicted("no frame header")


def _step(stream: bytes, at: int, marker: int) -> int:
    if marker == 0xFF:  # fill byte
        return 1
    if marker in _WITHOUT_LENGTH:
        return 2
    return 2 + max(2, int(struct.unpack_from(">H", stream, at + 2)[0]))


def _jpeg_2000(stream: bytes) -> tuple[int, int, int]:
    """Give rows, columns and components of SIZ, of a bare codestream or in a JP2 file."""
    at = stream.find(_SOC_SIZ)
    if at < 0:
        raise SizeContradicted("no codestream of JPEG 2000")
    try:
        right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
        (components,) = struct.unpack_from(">H", stream, at + 40)
    except struct.error as error:
        raise SizeContradicted("codestream ends before its size") from error
    return bottom - top, right - left, components
