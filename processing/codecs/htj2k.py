"""High-Throughput JPEG 2000 Lossless: 1.2.840.10008.1.2.4.201 and .202. PS3.5 Section 8.2.4, ITU-T T.814.

Written by OpenJPH, read back by OpenJPEG. OpenJPH is told whole cells only;
the codestream is made to say Bits Stored, see ``_state_precision``.
"""

import imagecodecs
import numpy as np

from processing.codecs.frame import (
    Codec,
    Form,
    Samples,
    check_bits,
    check_photometric,
    check_size,
)

_SIZ = b"\xff\x51"
_COMPONENTS_AT = 38
"""Where SIZ says Csiz, counted from its marker; three bytes per component follow. T.800 Table A.9."""
_BYTES_PER_COMPONENT = 3
_SIGNED = 0x80
_LEAST_DECOMPOSITIONS = 5
_LOWEST_SIDE = 64
_TILE_PART_PER_RESOLUTION = 1


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.4-1 does not list, or no second decoder reads."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16), stored=range(1, 17))
    check_size(form)


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame, reversible, without a multiple component transformation."""
    stream = imagecodecs.htj2k_encode(_centered(samples, form), reversible=True, rgb=False)
    return _state_precision(bytearray(stream), form)


def encode_rpcl(samples: Samples, form: Form) -> bytes:
    """Encode one frame for .202: by resolution, with Tile-part Lengths, down to 64 pixels a side."""
    side = max(form.rows, form.columns)
    stream = imagecodecs.htj2k_encode(
        _centered(samples, form),
        reversible=True,
        rgb=False,
        resolutions=max(_LEAST_DECOMPOSITIONS, (-(-side // _LOWEST_SIDE) - 1).bit_length()),
        tlm=True,
        tilepart=_TILE_PART_PER_RESOLUTION,
    )
    return _state_precision(bytearray(stream), form)


def _centered(samples: Samples, form: Form) -> Samples:
    """Move unsigned samples so that the level shift of whole cells does what that of Bits Stored would.

    T.800 Annex G.1: an encoder subtracts half of the range, a decoder adds it.
    """
    if form.signed or form.bits_stored == form.bits_allocated:
        return samples
    shift = (1 << form.bits_allocated - 1) - (1 << form.bits_stored - 1)
    centered: Samples = samples + samples.dtype.type(shift)
    return centered


def _state_precision(stream: bytearray, form: Form) -> bytes:
    """Let SIZ say Bits Stored, as PS3.5 Section 8.2.4 wants them to agree.

    Nothing else in the codestream depends on it: the bit planes that are coded
    are counted by QCD, which stays.
    """
    at = stream.find(_SIZ) + _COMPONENTS_AT
    if int.from_bytes(stream[at : at + 2], "big") != form.samples:
        raise ValueError("codestream without the components")
    precision = form.bits_stored - 1 | (_SIGNED if form.signed else 0)
    for component in range(form.samples):
        stream[at + 2 + _BYTES_PER_COMPONENT * component] = precision
    return bytes(stream)


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours."""
    return np.asarray(imagecodecs.jpeg2k_decode(stream, numthreads=1)).reshape(form.shape)


CODEC = Codec(check=check, encode=encode, decode=decode)
RPCL_CODEC = Codec(check=check, encode=encode_rpcl, decode=decode)
