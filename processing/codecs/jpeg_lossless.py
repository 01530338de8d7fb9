"""JPEG Lossless, Process 14: 1.2.840.10008.1.2.4.57 and .70. PS3.5 Section 8.2.1, ITU-T T.81 Annex H.

Written here (docs/adr/0017-own-lossless-jpeg-writer.md), read back by libjpeg-turbo. Both
syntaxes get prediction from the left (Selection Value 1), which .70 demands
and .57 allows: what it costs in size is little, and every reader knows it.
Components share one table; they are never converted.
"""

import struct

import imagecodecs

from processing.codecs import codestream, huffman
from processing.codecs.frame import (
    Codec,
    Form,
    Samples,
    as_cells,
    check_bits,
    check_photometric,
    check_size,
    from_patterns,
    patterns,
    precision,
)

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF3, _DHT, _SOS, _APP14 = 0xFFC3, 0xFFC4, 0xFFDA, 0xFFEE
_ADOBE_RGB = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
"""Transform 0: the components are what they are called."""
_NOT_SUBSAMPLED, _FIRST_TABLE = 0x11, 0
_LEFT = 1


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.1-1 does not list."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16), stored=range(1, 17))
    check_size(form)


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame; colours are components, never converted."""
    cells = patterns(samples, form).reshape(form.rows, form.columns, form.samples)
    differences = huffman.differences_of(cells, precision(form))
    code = huffman.code_of(differences)
    components = b"RGB" if form.photometric == "RGB" else bytes(range(1, form.samples + 1))
    frame = struct.pack(">BHHB", precision(form), form.rows, form.columns, form.samples)
    frame += b"".join(bytes((one, _NOT_SUBSAMPLED, 0)) for one in components)
    scan = b"".join(bytes((one, _FIRST_TABLE)) for one in components)
    return b"".join(
        (
            _SOI,
            _segment(_APP14, _ADOBE_RGB) if form.photometric == "RGB" else b"",
            _segment(_SOF3, frame),
            _segment(_DHT, bytes((_FIRST_TABLE,)) + code.table()),
            _segment(_SOS, bytes((form.samples,)) + scan + bytes((_LEFT, 0, 0))),
            huffman.packed(differences, code),
            _EOI,
        )
    )


def _segment(marker: int, content: bytes) -> bytes:
    """A marker segment, T.81 Section B.1.1.4."""
    return struct.pack(">HH", marker, len(content) + 2) + content


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours."""
    return from_patterns(read(stream, form), form)


def read(stream: bytes, form: Form) -> Samples:
    """Decode one frame of anybody's into cells, its components untouched, whatever markers call them.

    libjpeg-turbo does, in a tenth of the time of the decoder that pydicom would
    choose. Like that one it fills in what a cut stream lacks, so the end has to be there.
    """
    codestream.require_end(stream)
    colors = "RGB" if form.samples > 1 else None
    begun = stream[max(0, stream.find(_SOI)) :]  # fill bytes may stand before a marker
    found = imagecodecs.jpeg8_decode(begun, colorspace=colors, outcolorspace=colors)
    return as_cells(found, form)


CODEC = Codec(check=check, encode=encode, decode=decode)
