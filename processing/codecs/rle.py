"""RLE Lossless: 1.2.840.10008.1.2.5. PS3.5 Section 8.2.2 and Annex G.

Written here over a PackBits that ends its runs with each row, read back by
pylibjpeg-rle. It packs bytes and knows no samples, so whatever a cell holds
above Bits Stored travels too.
"""

import struct

import imagecodecs
import numpy as np
from rle.rle import decode_frame

from processing.codecs.frame import Codec, Form, Samples, check_bits, check_photometric

_MAX_SEGMENTS = 15
_HEADER = struct.Struct(f"<{1 + _MAX_SEGMENTS}I")


def check(form: Form) -> None:
    """Raise ``NotEncodable`` for what PS3.5 Table 8.2.2-1 does not list."""
    check_photometric(form)
    check_bits(form, allocated=(8, 16, 32), stored=range(1, 33))


def encode(samples: Samples, form: Form) -> bytes:
    """Encode one frame: a segment per byte of each sample, the most significant first. Annex G.2."""
    size = form.bits_allocated // 8
    planes = np.ascontiguousarray(samples, dtype=form.cell).view("u1")
    planes = planes.reshape(form.rows, form.columns, form.samples, size)
    segments = [
        _packed(planes[:, :, sample, byte])
        for sample in range(form.samples)
        for byte in reversed(range(size))
    ]
    offsets = [_HEADER.size] * len(segments)
    for place in range(1, len(segments)):
        offsets[place] = offsets[place - 1] + len(segments[place - 1])
    unused = [0] * (_MAX_SEGMENTS - len(segments))
    return b"".join((_HEADER.pack(len(segments), *offsets, *unused), *segments))


def _packed(plane: Samples) -> bytes:
    """Pack the bytes of one plane row by row, to an even length. Annex G.3.1."""
    # A copy whose strides are plain: of a single column they need not be, and then it is refused.
    rows = np.frombuffer(plane.tobytes(), dtype="u1").reshape(plane.shape)
    segment = bytes(imagecodecs.packbits_encode(rows, axis=-1))
    return segment + b"\0" * (len(segment) % 2)


def decode(stream: bytes, form: Form) -> Samples:
    """Decode one frame of ours; the library gives color by plane, little endian where it is asked."""
    found = np.frombuffer(
        decode_frame(stream, form.rows * form.columns, form.bits_allocated, "<"), dtype=form.cell
    )
    planes = found.reshape(form.samples, form.rows, form.columns)
    return np.moveaxis(planes, 0, -1).reshape(form.shape)


CODEC = Codec(check=check, encode=encode, decode=decode, whole_cells=True)
