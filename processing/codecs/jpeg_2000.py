"""JPEG 2000 Lossless: 1.2.840.10008.1.2.4.90. PS3.5 Section 8.2.4, ITU-T T.800.

Written by OpenJPEG, read back by another build of OpenJPEG: no second
implementation is installed. Colours stay what they are: without a multiple
component transformation RGB is RGB and YBR_FULL is YBR_FULL, so no Photometric
Interpretation changes and no reader can undo a transform twice.
"""

import imagecodecs
import numpy as np
from openjpeg.utils import decode as decode_stream

from processing.codecs.frame import (
    Codec,
    Form,
    Samples,
    check_bits,
    check_photometric,
    check_size,
)

_MAX_BITS = 24
"""What OpenJPEG carries without loss, with room for the growth of its wavelet."""

_MAX_RESOLUTIONS = 6


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.4-1, or OpenJPEG, does not carry."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16, 32), stored=range(1, _MAX_BITS + 1))
    check_size(form)


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame with the reversible wavelet."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            _narrow(samples, form),
            level=0,
            codecformat="j2k",
            reversible=True,
            mct=False,
            bitspersample=form.bits_stored,
            resolutions=resolutions(form),
            numthreads=1,
        )
    )


def _narrow(samples: Samples, form: Form) -> Samples:
    """Give samples in the smallest cells: in wider ones the library states a wider precision."""
    size = 1 if form.bits_stored <= 8 else 2 if form.bits_stored <= 16 else 4
    return np.ascontiguousarray(samples, dtype=f"{samples.dtype.kind}{size}")


def resolutions(form: Form) -> int:
    """Choose as many resolutions as the smaller side can be halved, six at most."""
    return min(_MAX_RESOLUTIONS, min(form.rows, form.columns).bit_length())


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours."""
    return np.asarray(decode_stream(stream)).reshape(form.shape)


CODEC = Codec(check=check, encode=encode, decode=decode)
