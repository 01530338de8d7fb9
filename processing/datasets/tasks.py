"""What a sandboxed worker does with stored Data Sets: convert one, compare two.

Runs only in the worker, called by name with plain arguments. Raises whatever
goes wrong; the sandbox turns that into a refusal.
"""

import sys
import zlib
from pathlib import Path
from typing import BinaryIO

from pacs.core.errors import EncodingUnproved
from processing.codecs.registry import CODECS
from processing.datasets import compare, compress, decoders, pixels, source, writing
from processing.datasets.elements import DataSet
from processing.datasets.syntaxes import COMPRESSED, DEFLATED, LOSSLESS, LOSSY, UNCOMPRESSED

__all__ = ["available_syntaxes", "convert", "same_content"]

Stored = tuple[str, int, str]
"""Path, offset of the Data Set, transfer syntax UID."""


def available_syntaxes() -> dict[str, list[str]]:
    """List the compressed transfer syntaxes that can be decoded and those that can be encoded here."""
    return {"decoded": decoders.available(), "encoded": sorted(CODECS)}


def convert(stored: Stored, target: str, output: str, folder: str, max_bytes: int) -> None:
    """Write the Data Set of ``stored`` to ``output``, encoded in ``target``.

    What was compressed is read back and compared before this returns.
    """
    path, offset, syntax = stored
    if target not in UNCOMPRESSED and (target not in CODECS or syntax in LOSSY):
        raise ValueError("target is no transfer syntax that is encoded")
    with source.opened(path, offset, syntax, folder=folder, max_bytes=max_bytes) as elements:
        if syntax in COMPRESSED:
            pixels.decompress(elements, syntax, folder=folder, max_bytes=max_bytes)
        result = elements
        if target in CODECS:
            result = compress.compressed(elements, target, folder=folder)
        with Path(output).open("wb") as file:
            _write(result, target, file)
        if target in CODECS or target == DEFLATED:
            _prove(elements, target, output, folder)


def _prove(elements: DataSet, target: str, output: str, folder: str) -> None:
    """Read ``output`` and compare. Raises ``EncodingUnproved``."""
    with source.opened(output, 0, target, folder=folder, max_bytes=sys.maxsize) as written:
        if target in CODECS:
            compress.prove(written, elements, target)
        elif not compare.equal(written, elements):
            raise EncodingUnproved("elements differ")


def same_content(left: Stored, right: Stored, folder: str, max_bytes: int) -> bool:
    """Tell whether two stored Data Sets hold the same elements and pixels.

    Pixels behind a lossy codec are the same only where their codestreams are:
    decoders may differ in rounding, so decoded values prove nothing.
    """
    with (
        source.opened(*left, folder=folder, max_bytes=max_bytes) as one,
        source.opened(*right, folder=folder, max_bytes=max_bytes) as other,
    ):
        if left[2] == right[2] and compare.equal(one, other):
            return True
        if not all(stored[2] in LOSSLESS | UNCOMPRESSED for stored in (left, right)):
            return False
        for elements, syntax in ((one, left[2]), (other, right[2])):
            if syntax in COMPRESSED:
                pixels.decompress(elements, syntax, folder=folder, max_bytes=max_bytes)
            compare.color_by_pixel(elements)
        return compare.equal(one, other)


class _Deflating:
    """A sink that deflates into a file, without zlib's header. PS3.5 Section A.5."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    def write(self, data: bytes, /) -> None:
        self._file.write(self._deflater.compress(data))

    def finish(self) -> None:
        self._file.write(self._deflater.flush())
        if self._file.tell() % 2:
            self._file.write(b"\0")


def _write(elements: DataSet, target: str, file: BinaryIO) -> None:
    encoding = source.encoding_of(target)
    if target != DEFLATED:
        writing.Writer(file, encoding, encapsulating=target in CODECS).write(elements)
        return
    sink = _Deflating(file)
    writing.Writer(sink, encoding).write(elements)
    sink.finish()
