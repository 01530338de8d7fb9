"""JPEG Lossless, Process 14: 1.2.840.10008.1.2.4.57 and .70. PS3.5 Section 8.2.1, ITU-T T.81 Annex H.

Written by libjpeg-turbo. Read back by liblj92, which is quick but takes any
component for the first one's kin, so colour is read back by T. Richter's
libjpeg, where that is installed. Both syntaxes get prediction from the left
(Selection Value 1), which .70 demands and .57 allows: what it costs in size is
little, and every reader knows it.
"""

import struct

import imagecodecs
import numpy as np

from processing.codecs import second
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

_UID = "1.2.840.10008.1.2.4.70"
_EOI = b"\xff\xd9"
_END_BYTES = 64
"""Where an end of image is looked for: some writers pad, with zeros or whatever was there."""

_ADOBE, _SOF, _SOS = b"\xff\xee", b"\xff\xc3", b"\xff\xda"
_SOF_COMPONENTS_AT, _SOF_STEP = 10, 3
_SOS_COMPONENTS_AT, _SOS_STEP = 5, 2


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.1-1 does not list."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16), stored=range(1, 17))
    check_size(form)


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame; colours are components, never converted."""
    # Called RGB on both sides, libjpeg leaves components alone. Called YCbCr it writes
    # scans that name one Huffman table and use two.
    colors = "RGB" if form.samples > 1 else None
    stream = imagecodecs.jpeg8_encode(
        patterns(samples, form),
        lossless=True,
        predictor=1,
        bitspersample=precision(form),
        colorspace=colors,
        outcolorspace=colors,
        subsampling="444" if colors else None,
    )
    if form.samples > 1 and form.photometric != "RGB":
        return _without_colors(bytearray(stream), form)
    return bytes(stream)


def _without_colors(stream: bytearray, form: Form) -> bytes:
    """Number the components 1, 2, 3 and drop Adobe's marker: both say RGB, which these are not."""
    frame, scan = stream.find(_SOF), stream.find(_SOS)
    for component in range(form.samples):
        stream[frame + _SOF_COMPONENTS_AT + _SOF_STEP * component] = component + 1
        stream[scan + _SOS_COMPONENTS_AT + _SOS_STEP * component] = component + 1
    start = stream.find(_ADOBE, 0, frame)
    (length,) = struct.unpack_from(">H", stream, start + 2)
    del stream[start : start + 2 + length]
    return bytes(stream)


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours."""
    if form.samples > 1 and (decoder := second.decoder(_UID)):
        cell = f"<u{form.bits_allocated // 8}"
        found = np.frombuffer(
            decoder(stream, version=2, photometric_interpretation=form.photometric), dtype=cell
        )
    else:
        found = np.asarray(imagecodecs.ljpeg_decode(stream))
    return from_patterns(found.reshape(form.shape), form)


def read(stream: bytes, form: Form) -> Samples:
    """Decode one frame of anybody's into cells, its components untouched, whatever markers call them.

    libjpeg-turbo does, in a tenth of the time of the decoder that pydicom would
    choose. Like that one it fills in what a cut stream lacks, so the end has to be there.
    """
    if _EOI not in stream[-_END_BYTES:]:
        raise ValueError("codestream is cut off")
    colors = "RGB" if form.samples > 1 else None
    found = imagecodecs.jpeg8_decode(stream, colorspace=colors, outcolorspace=colors)
    return as_cells(found, form)


CODEC = Codec(check=check, encode=encode, decode=decode)
