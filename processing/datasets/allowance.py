"""How much processor time a conversion may use: some for anything, more for every pixel.

Owns the reading of how many samples an image says it has, from the top of its Data
Set, and the doubts about it: a small file that announces endless frames gets no
endless time. Refuses to touch pixels. PS3.3 Section C.7.6.3.
"""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Final

from config.settings import Retrieve
from processing.datasets.elements import EXPLICIT_LITTLE, DataSet, DataSetMalformed, Reader
from processing.datasets.source import mapped
from processing.datasets.syntaxes import DEFLATED, UNCOMPRESSED
from processing.datasets.value_representations import number

Stored = tuple[str, int, str]
"""Path, offset of the Data Set, transfer syntax UID."""

_SAMPLES_PER_BYTE: Final = 16
"""What codecs pack more closely than this is blank, and takes no time to speak of."""
_DEFLATED: Final = 20
"""The same of deflated Data Sets."""
_SAMPLES_PER_PIXEL: Final = 0x0028_0002
_NUMBER_OF_FRAMES: Final = 0x0028_0008
_ROWS: Final = 0x0028_0010
_COLUMNS: Final = 0x0028_0011
_MILLION: Final = 1e6


class Allowance:
    """The time of one task, from the settings and the size of what it works on."""

    def __init__(self, retrieve: Retrieve) -> None:
        self._base_s = retrieve.transcode_timeout_s
        self._s_per_megasample = retrieve.transcode_s_per_megapixel
        self.max_bytes = retrieve.transcode_max_bytes
        """Of an image, stored as well as decoded; a sample has at least one."""

    def cpu_s(self, *stored: Stored) -> float:
        """Give the processor time for work on these files."""
        return self.for_samples(sum(self._samples(one) for one in stored))

    def for_samples(self, samples: int) -> float:
        """Give the processor time for so many samples."""
        return self._base_s + self._s_per_megasample * samples / _MILLION

    def _samples(self, stored: Stored) -> int:
        """Count the samples at most, one to each byte of what is not compressed."""
        path, offset, syntax = stored
        try:
            size_bytes = Path(path).stat().st_size
            if syntax in UNCOMPRESSED:
                found = size_bytes * (_DEFLATED if syntax == DEFLATED else 1)
            else:
                found = min(_announced(path, offset), size_bytes * _SAMPLES_PER_BYTE)
        except (OSError, ValueError):  # whoever works on it says what is wrong with it
            found = 0
        return min(found, self.max_bytes)


def _announced(path: str, offset: int) -> int:
    """Multiply what a Data Set says of its size. Raises ``OSError``, or ``ValueError`` where it is malformed."""
    with Path(path).open("rb") as file:
        top = _Top(mapped(file)[offset:], _no_sequence).until(_COLUMNS)
    frames = top.get(_NUMBER_OF_FRAMES)
    said = b"" if frames is None else bytes(frames.value).strip(b" \0")
    sides: Iterable[int] = (number(top, tag) or 0 for tag in (_ROWS, _COLUMNS))
    return prod(sides) * (number(top, _SAMPLES_PER_PIXEL) or 1) * max(1, int(said or 1))


def _no_sequence(*_: object) -> bool:
    """Where VRs are explicit nobody has to ask which elements are sequences."""
    return False


class _Top(Reader):
    """Reads the first elements of a Data Set in Explicit VR Little Endian."""

    def until(self, last: int) -> DataSet:
        """Give the elements up to a tag. Raises ``DataSetMalformed``."""
        elements: DataSet = {}
        while self._at < len(self._buffer):
            tag = self._tag(EXPLICIT_LITTLE)
            if tag > last:
                return elements
            elements[tag] = self._element(tag, EXPLICIT_LITTLE, elements, 0)
        raise DataSetMalformed("no pixels follow")
