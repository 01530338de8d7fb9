"""Opens a stored Data Set for conversion: mapped, inflated, read as a tree.

Owns the way from a Part 10 file and the offset of its Data Set to elements.
Refuses what is larger than its bound, inflated as well as stored, so that a
small file cannot become an endless one. PS3.5 Annex A, A.5 for deflate.
"""

import mmap
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from processing.datasets.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DataSet,
    Encoding,
    Reader,
)
from processing.datasets.syntaxes import DEFLATED, EXPLICIT_BIG_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from processing.datasets.value_representations import dictionary_vr

_CHUNK_BYTES = 1 << 20


class TooLarge(ValueError):
    """More bytes than this archive converts."""


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """Give the encoding of the elements in a transfer syntax; all others are explicit little."""
    if transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN:
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN else EXPLICIT_LITTLE


@contextmanager
def opened(
    path: str, offset: int, syntax: str, *, folder: str, max_bytes: int
) -> Iterator[DataSet]:
    """Yield the elements of a stored Data Set; their values are valid within the block.

    Raises ``TooLarge`` or ``DataSetMalformed``.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(Path(path).open("rb"))
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise TooLarge("stored file")
        if syntax == DEFLATED:
            file, offset = stack.enter_context(inflated(file, offset, folder, max_bytes)), 0
        yield read(mapped(file)[offset:], encoding_of(syntax))


def read(buffer: memoryview, encoding: Encoding) -> DataSet:
    """Read an encoded Data Set. Raises ``DataSetMalformed``."""
    return Reader(buffer, _is_sequence).read(encoding)


def mapped(file: BinaryIO) -> memoryview:
    """Map a file into memory; the mapping lives as long as a view on it."""
    if os.fstat(file.fileno()).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _is_sequence(tag: int, siblings: DataSet) -> bool:
    return dictionary_vr(tag, siblings) == "SQ"


@contextmanager
def inflated(file: BinaryIO, offset: int, folder: str, max_bytes: int) -> Iterator[BinaryIO]:
    """Yield a file of the inflated Data Set. Raises ``TooLarge`` or ``zlib.error``."""
    with tempfile.TemporaryFile(dir=folder) as plain:
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        file.seek(offset)
        while not inflater.eof and (data := inflater.unconsumed_tail or file.read(_CHUNK_BYTES)):
            plain.write(inflater.decompress(data, _CHUNK_BYTES))
            if plain.tell() > max_bytes:
                raise TooLarge("inflated Data Set")
        plain.write(inflater.flush())
        if not inflater.eof:
            raise zlib.error("deflated Data Set ends before its end mark")
        plain.flush()
        yield plain
