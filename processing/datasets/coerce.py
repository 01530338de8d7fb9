"""Changes attributes of stored Data Sets on their way out; implements ``pacs.core.forwarding.Coercer``.

Owns the copy with the changes in it and their record in Original Attributes
(PS3.3 Section C.12.1.1.9). What is not changed is copied as it lies. Refuses
what would make the object another one or its pixels unreadable (``changes``
lists it), and whatever a VR or a character set cannot hold: nothing is cut or
replaced to fit. Works in the process it is called in: it looks at headers only.
"""

import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from config.settings import Parsing
from pacs.core.errors import CoercionFailed, CoercionInterrupted
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.routing import Coercion
from processing.datasets.changes import Changes
from processing.datasets.elements import DataSetMalformed
from processing.datasets.original_attributes import ChangeRefused, Edit
from processing.datasets.source import TooLarge, encoding_of, inflated
from processing.datasets.spans import Walk
from processing.datasets.syntaxes import DEFLATED
from processing.datasets.writing import Sink

_PREFIX = "transcode-coerced-"
"""Begins as the transcoder's files do, so that its sweep takes away what a killed process left."""

_CHUNK_BYTES = 1 << 20


class FileCoercer:
    """Makes changed copies of stored Data Sets; may be used from many threads at once.

    ``modifying_system`` is what the copies name as Modifying System (0400,0563).
    ``max_inflated_bytes`` bounds what a deflated Data Set may become.
    """

    def __init__(
        self, parsing: Parsing, folder: Path, *, modifying_system: str, max_inflated_bytes: int
    ) -> None:
        self._parsing = parsing
        self._folder = folder
        self._modifying_system = modifying_system
        self._max_inflated_bytes = max_inflated_bytes

    def check(self, coercions: Sequence[Coercion]) -> None:
        """Raise ``CoercionFailed`` for what can be done to no Data Set; character sets are each one's own."""
        try:
            self._changes(coercions)
        except ChangeRefused as error:
            raise CoercionFailed(str(error)) from error

    @contextmanager
    def coerced(
        self, path: str, offset: int, syntax: TransferSyntaxUID, coercions: Sequence[Coercion]
    ) -> Iterator[str]:
        """Yield the path of a file holding only the changed Data Set, in the same syntax; removed afterwards.

        Where nothing changes its bytes are those of the stored one. Raises ``CoercionFailed``.
        """
        output = self._new_file()
        try:
            try:
                self._write(path, offset, syntax, coercions, output)
            except (ChangeRefused, DataSetMalformed, TooLarge, zlib.error) as error:
                raise CoercionFailed(str(error)) from error
            except OSError as error:
                raise CoercionInterrupted(f"cannot copy: {error.strerror}") from error
            yield output
        finally:
            Path(output).unlink(missing_ok=True)

    def _write(
        self, path: str, offset: int, syntax: str, coercions: Sequence[Coercion], output: str
    ) -> None:
        changes = self._changes(coercions)
        with ExitStack() as stack:
            stored: BinaryIO = stack.enter_context(Path(path).open("rb"))
            plain, begin = stored, offset
            if syntax == DEFLATED:
                held = inflated(stored, offset, str(self._folder), self._max_inflated_bytes)
                plain, begin = stack.enter_context(held), 0
            edits = self._edits(plain, begin, syntax, changes)
            target = stack.enter_context(Path(output).open("wb"))
            if not edits:
                _copy(stored, offset, os.fstat(stored.fileno()).st_size, target)
            elif syntax == DEFLATED:
                deflating = _Deflating(target)
                _apply(plain, begin, edits, deflating)
                deflating.finish()
            else:
                _apply(plain, begin, edits, target)

    def _changes(self, coercions: Sequence[Coercion]) -> Changes:
        return Changes(
            coercions,
            modifying_system=self._modifying_system,
            max_held_bytes=self._parsing.max_header_bytes,
        )

    def _edits(self, file: BinaryIO, begin: int, syntax: str, changes: Changes) -> list[Edit]:
        encoding = encoding_of(syntax)
        walk = Walk(
            file,
            encoding,
            begin=begin,
            end=os.fstat(file.fileno()).st_size,
            max_depth=self._parsing.max_depth,
            max_elements=self._parsing.max_elements,
        )
        return changes.edits(file, walk.find(changes.tags), encoding, datetime.now(UTC))

    def _new_file(self) -> str:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, path = tempfile.mkstemp(prefix=_PREFIX, dir=self._folder)
        except OSError as error:
            raise CoercionInterrupted("no room for the changed file") from error
        os.close(descriptor)
        return path


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


def _apply(file: BinaryIO, begin: int, edits: Sequence[Edit], target: Sink) -> None:
    """Copy from ``begin`` to the end with every edit in its place."""
    at = begin
    for edit in edits:
        _copy(file, at, edit.start, target)
        target.write(edit.data)
        at = edit.end
    _copy(file, at, os.fstat(file.fileno()).st_size, target)


def _copy(file: BinaryIO, start: int, end: int, target: Sink) -> None:
    file.seek(start)
    while start < end:
        piece = file.read(min(_CHUNK_BYTES, end - start))
        if not piece:
            raise DataSetMalformed("the file became shorter")
        target.write(piece)
        start += len(piece)
