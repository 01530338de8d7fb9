"""JPEG-LS Lossless: 1.2.840.10008.1.2.4.80. PS3.5 Section 8.2.3, ITU-T T.87.

Written by CharLS, read back by libjpeg (T. Richter's), or by another build of
CharLS where that is not installed. Signed samples travel as patterns: the
codestream knows no sign.
"""

import imagecodecs
import jpeg_ls
import numpy as np

from processing.codecs import codestream, second
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

_UID = "1.2.840.10008.1.2.4.80"
_BY_PIXEL = 2


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.3-1 does not list."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16), stored=range(2, 17))
    check_size(form)


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame, color by pixel, without T.87's colour transforms."""
    cells = patterns(samples, form)
    bits = precision(form)
    if bits == form.bits_allocated:
        return bytes(imagecodecs.jpegls_encode(cells))
    try:
        return bytes(
            jpeg_ls.encode_buffer(
                cells.tobytes(),
                form.rows,
                form.columns,
                form.samples,
                bits,
                interleave_mode=_BY_PIXEL,
            )
        )
    except RuntimeError:
        # It leaves no room for headers where an image has a few pixels only. The other writes
        # whole cells, the repeated sign with them: a precision above Bits Stored, the same samples.
        whole = samples.view(f"u{samples.dtype.itemsize}")
        return bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(whole)))


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours."""
    decoder = second.decoder(_UID)
    if decoder is None:
        found = np.asarray(imagecodecs.jpegls_decode(stream))
    else:
        cell = f"<u{form.bits_allocated // 8}"
        found = np.frombuffer(
            decoder(stream, version=2, photometric_interpretation=form.photometric), dtype=cell
        )
    return from_patterns(found.reshape(form.shape), form)


def read(stream: bytes, form: Form) -> Samples:
    """Decode one frame of anybody's into cells. CharLS does, in a fifth of libjpeg's time.

    The end has to be there: it looks for it in what is cut off for seconds.
    """
    codestream.require_end(stream)
    return as_cells(imagecodecs.jpegls_decode(stream), form)


CODEC = Codec(check=check, encode=encode, decode=decode)
