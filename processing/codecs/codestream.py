"""What a codestream says of itself, read without decoding: size, precision, loss, where it ends.

Owns the walk to the frame header, and the refusal of a codestream whose header
announces another size than the Data Set: a decoder believes the header, and
would make room for it. ITU-T T.81 Annex B.2, T.87 Annex C, T.800 Annexes A.5
and A.6; PS3.5 Annex G for RLE, whose streams have no header to believe.
"""

import struct

from processing.codecs.frame import Form

_RLE = "1.2.840.10008.1.2.5"
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{last}" for last in (90, 91, 201, 202, 203))

_FRAME_HEADERS = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), 0xF7))
"""SOF of the processes of DICOM and SOF55 of JPEG-LS; not DHT, JPG, DAC."""
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_SOI = b"\xff\xd8\xff"
_EOI = b"\xff\xd9"
"""End of image, and of a codestream of JPEG 2000 (EOC)."""
_END_BYTES = 64
"""Where an end is looked for: some writers pad with whatever was there."""
_SOF3 = 0xC3
_SOS = 0xDA
_SOF55 = 0xF7
_SOC_SIZ = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_BOX_BYTES = 8
_CODESTREAM_BOX = b"jp2c"
_COD = b"\xff\x52"
_PRECISION_AT = 42
"""Ssiz of the first component, counted from SOC. T.800 Table A.9."""
_SIGNED = 0x80
_TRANSFORMATION_AT = 13
"""Counted from COD; 0 is the irreversible wavelet. T.800 Tables A.13 and A.20."""


class SizeContradicted(ValueError):
    """A codestream announces another size than its Data Set, or has no header that says one."""


class CutOff(ValueError):
    """A codestream has no end mark."""


def require_size(stream: bytes, syntax: str, form: Form) -> None:
    """Refuse a codestream of another size. Raises ``SizeContradicted``."""
    if syntax == _RLE:
        return
    found = _jpeg_2000(stream) if syntax in _JPEG_2000 else _jpeg(stream)
    if found[:2] != (form.rows, form.columns) or found[2] != form.samples:
        raise SizeContradicted("codestream and Data Set differ in size")


def begins(fragment: memoryview, syntax: str) -> bool:
    """Tell whether a codestream begins with this fragment; nothing tells it of RLE."""
    if syntax in _JPEG_2000:
        return fragment[:4] == _SOC_SIZ or fragment[:8] == _JP2_SIGNATURE
    return syntax != _RLE and fragment[:3] == _SOI


def ends(fragment: memoryview, syntax: str) -> bool:
    """Tell whether a codestream ends with this fragment, but for padding of zeros."""
    return syntax != _RLE and bytes(fragment).rstrip(b"\0").endswith(_EOI)


def require_end(stream: bytes) -> None:
    """Refuse a JPEG or JPEG-LS stream without its end, zeros behind it aside. Raises ``CutOff``.

    Decoders fill in what is missing, or look for it at great length.
    """
    if _EOI not in stream.rstrip(b"\0")[-_END_BYTES:]:
        raise CutOff("codestream is cut off")


def precision(stream: bytes, syntax: str) -> int:
    """Give the bits of a sample, by the first component. Raises ``SizeContradicted``; not for RLE."""
    try:
        if syntax in _JPEG_2000:
            return (stream[_start_of_codestream(stream) + _PRECISION_AT] & ~_SIGNED) + 1
        return stream[_frame_header(stream) + 4]
    except IndexError as error:
        raise SizeContradicted("codestream ends before its precision") from error


def is_signed(stream: bytes, syntax: str) -> bool:
    """Tell whether samples have a sign; those of JPEG and JPEG-LS have none. Not before ``precision``."""
    if syntax not in _JPEG_2000:
        return False
    return stream[_start_of_codestream(stream) + _PRECISION_AT] >= _SIGNED


def is_lossy(stream: bytes, syntax: str) -> bool:
    """Tell whether the codestream itself says that samples were changed.

    A reversible one may be cut short all the same, which cannot be seen.
    """
    if syntax in _JPEG_2000:
        at = stream.find(_COD, _start_of_codestream(stream))
        return at >= 0 and stream[at + _TRANSFORMATION_AT : at + _TRANSFORMATION_AT + 1] == b"\0"
    at = _frame_header(stream)
    if stream[at + 1] != _SOF55:
        return stream[at + 1] != _SOF3
    return _near(stream, at) > 0


def _near(stream: bytes, at: int) -> int:
    """Give NEAR of the first scan of JPEG-LS. T.87 Section C.2.3."""
    try:
        while stream[at + 1] != _SOS:
            at += _step(stream, at, stream[at + 1])
        return stream[at + 5 + 2 * stream[at + 4]]
    except (IndexError, struct.error) as error:
        raise SizeContradicted("codestream ends before its scan") from error


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
    at = _start_of_codestream(stream)
    try:
        right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
        (components,) = struct.unpack_from(">H", stream, at + 40)
    except struct.error as error:
        raise SizeContradicted("codestream ends before its size") from error
    return bottom - top, right - left, components


def _start_of_codestream(stream: bytes) -> int:
    """Find SOC where the decoder will: at the beginning, or in the box of a JP2 file. T.800 Annex I."""
    at = 0
    if stream.startswith(_JP2_SIGNATURE):
        while stream[at + 4 : at + _BOX_BYTES] != _CODESTREAM_BOX:
            at += _box_bytes(stream, at)
        at += _BOX_BYTES
    if stream[at : at + 4] != _SOC_SIZ:
        raise SizeContradicted("no codestream of JPEG 2000")
    return at


def _box_bytes(stream: bytes, at: int) -> int:
    length = int.from_bytes(stream[at : at + 4], "big")
    if length < _BOX_BYTES or at + length > len(stream):
        raise SizeContradicted("no codestream of JPEG 2000 in the file's boxes")
    return length
