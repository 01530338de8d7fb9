"""What becomes of decoded samples that lie beyond Bits Stored, or do not reach Bits Allocated.

Owns the difference between lossless codestreams, whose cells come out as they
went in, and lossy ones, whose codecs overshoot: nothing is cut off, because a
value that overshoots by one would come out black instead of white. Refuses what
could be read in two ways. PS3.5 Sections 8.1.1 and 8.2.
"""

from typing import Any

import numpy as np

from processing.codecs.frame import Form
from processing.datasets.image_pixel import PixelsUndecodable


def lossless(samples: Any, precision: int, form: Form) -> tuple[Any, int]:
    """Give the cells that were encoded, with all their bits where the codestream has them, and Bits Stored.

    Where it has fewer, the sign repeats above them. Raises ``PixelsUndecodable``.
    """
    samples = _extended(samples, precision, form)
    if not _within(samples, max(precision, form.bits_stored), signed=form.signed):
        raise PixelsUndecodable("samples beyond the precision of the codestream")
    return samples, form.bits_stored


def lossy(samples: Any, precision: int, form: Form, *, signed_stream: bool) -> tuple[Any, int]:
    """Give decoded samples as numbers, and the Bits Stored that hold them.

    Those are more than the Data Set says where the codec overshot within a
    wider precision. Raises ``PixelsUndecodable`` for signed samples that do so
    in a codestream without signs: patterns whose sign is not repeated look the same.
    """
    samples = _extended(samples, precision, form)
    if _within(samples, form.bits_stored, signed=form.signed):
        return samples, form.bits_stored
    if form.signed != signed_stream or not _within(samples, precision, signed=form.signed):
        raise PixelsUndecodable("codestream holds values beyond Bits Stored")
    return samples, precision


def _extended(samples: Any, precision: int, form: Form) -> Any:
    """Repeat the sign above the codestream's bits, which know none in JPEG and JPEG-LS."""
    unused = samples.dtype.itemsize * 8 - precision
    if not form.signed or unused <= 0 or precision < form.bits_stored:
        return samples
    return np.right_shift(np.left_shift(samples, unused), unused)


def _within(samples: Any, bits: int, *, signed: bool) -> bool:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return samples.size == 0 or low <= int(samples.min()) <= int(samples.max()) <= high


class Packed:
    """Cells of one bit, eight to a byte, the first one lowest, frames without a gap. PS3.5 Section 8.1.1."""

    def __init__(self) -> None:
        self._left = np.empty(0, dtype="u1")

    def add(self, cells: Any) -> bytes:
        """Give the bytes that are full. Raises ``PixelsUndecodable`` for what is more than a bit."""
        if int(cells.max()) > 1:
            raise PixelsUndecodable("cells of more than one bit")
        bits = np.concatenate((self._left, cells.ravel()))
        whole = bits.size - bits.size % 8
        self._left = bits[whole:]
        return np.packbits(bits[:whole], bitorder="little").tobytes()

    def rest(self) -> bytes:
        """Give the byte that is not."""
        return np.packbits(self._left, bitorder="little").tobytes()
