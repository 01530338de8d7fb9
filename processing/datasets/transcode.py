"""Converts stored instances for receivers, without decoding anything in this process.

Implements ``pacs.core.sending_ports.Transcoder``. Owns the temporary files and the
bounds; what a conversion does to a Data Set is decided in ``tasks`` and below,
which run in the sandbox. PS3.5 Annex A.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import Retrieve
from pacs.core.errors import EncodingUnproved, TranscodingFailed, TranscodingInterrupted
from pacs.core.identifiers import TransferSyntaxUID
from processing.datasets.allowance import Allowance, Stored
from processing.datasets.restorer import SandboxedRestorer, as_pacs_error
from processing.datasets.syntaxes import COMPRESSED, LOSSLESS, UNCOMPRESSED
from processing.sandbox import Bounds, Sandbox, TaskFailed

_LOG = logging.getLogger("pacs.codecs")
_TASKS = "processing.datasets.tasks"
_PREFIX = "transcode-"
_BASE_MEMORY_BYTES = 1 << 30
"""Address space of an idle worker: the interpreter, numpy and the codecs."""

_MEMORY_PER_SOURCE_BYTE = 4
"""Source and result are mapped, a frame may be the whole image and exist twice."""

_HEADERS_BYTES = 1 << 26
"""What a converted Data Set may be larger than its pixels."""


class SandboxedTranscoder:
    """Makes other encodings of stored instances; may be used from many threads at once."""

    def __init__(self, retrieve: Retrieve, work_folder: Path) -> None:
        self._max_bytes = retrieve.transcode_max_bytes
        self._folder = work_folder
        self._decoded: frozenset[str] = frozenset()
        self._encoded: frozenset[str] = frozenset()
        self._asked = False
        self._sandbox = Sandbox(
            Bounds(
                timeout_s=retrieve.transcode_timeout_s,
                memory_bytes=_BASE_MEMORY_BYTES + _MEMORY_PER_SOURCE_BYTE * self._max_bytes,
                file_bytes=2 * self._max_bytes + _HEADERS_BYTES,
            ),
            workers=retrieve.converters,
        )
        self._allowance = Allowance(retrieve)
        self.restorer = SandboxedRestorer(
            self._sandbox, work_folder, prefix=_PREFIX, allowance=self._allowance
        )

    def sweep(self) -> None:
        """Remove what a killed process left behind. Only while nobody else uses the folder or one in it."""
        for leftover in self._folder.rglob(_PREFIX + "*"):
            leftover.unlink(missing_ok=True)

    def convertible(self, source: TransferSyntaxUID, target: TransferSyntaxUID) -> bool:
        """Tell whether ``convert`` may be tried between these syntaxes; asks the worker once ever.

        What a lossy codec made is decoded, never encoded anew: it would look like an original.
        """
        self._ask()
        if target in UNCOMPRESSED:
            return source in UNCOMPRESSED or source in self._decoded
        if target not in self._encoded or source == target:
            return False
        return source in UNCOMPRESSED or source in LOSSLESS & self._decoded

    @contextmanager
    def convert(
        self, path: str, offset: int, source: TransferSyntaxUID, target: TransferSyntaxUID
    ) -> Iterator[str]:
        """Yield the path of a file holding only the Data Set in ``target``; removed afterwards.

        Raises ``TranscodingFailed``, ``EncodingUnproved`` where a codec's result was not what went in.
        """
        if not self.convertible(source, target):
            raise TranscodingFailed(f"no conversion from {source} to {target}")
        output = self._new_file()
        try:
            self._convert((path, offset, source), target, output)
            yield output
        finally:
            Path(output).unlink(missing_ok=True)

    def same_content(
        self,
        left: tuple[str, int, TransferSyntaxUID],
        right: tuple[str, int, TransferSyntaxUID],
    ) -> bool:
        """Tell whether two files (path, Data Set offset, syntax) hold the same elements and pixels.

        ``False`` whenever it cannot be proved within the bounds.
        """
        if not {left[2], right[2]} <= UNCOMPRESSED | COMPRESSED:
            return False
        try:
            arguments = (left, right, self._prepared(), self._max_bytes)
            return self._run("same_content", *arguments, works_on=(left, right)) is True
        except (TaskFailed, OSError):
            return False

    def close(self) -> None:
        """End the workers. Conversions under way fail."""
        self._sandbox.close()

    def _convert(self, stored: Stored, target: str, output: str) -> None:
        arguments = (stored, target, output, str(self._folder), self._max_bytes)
        try:
            self._run("convert", *arguments, works_on=(stored,))
        except TaskFailed as error:
            failure = as_pacs_error(error)
            if isinstance(failure, EncodingUnproved):
                # Whoever sends goes on with another form, so nobody would hear of a codec that errs.
                _LOG.error("encoding-unproved source=%s target=%s", stored[2], target)
            raise failure from error

    def _ask(self) -> None:
        """Learn from the worker which syntaxes it has codecs for, until it has answered once."""
        if self._asked:
            return
        try:
            answer = self._run("available_syntaxes")
        except TaskFailed:
            return
        if isinstance(answer, dict):
            self._decoded = COMPRESSED & set(answer["decoded"])
            self._encoded = LOSSLESS & set(answer["encoded"])
            self._asked = True

    def _new_file(self) -> str:
        try:
            descriptor, path = tempfile.mkstemp(prefix=_PREFIX, dir=self._prepared())
        except OSError as error:
            raise TranscodingInterrupted("no room for the converted file") from error
        os.close(descriptor)
        return path

    def _prepared(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return str(self._folder)

    def _run(self, task: str, *arguments: object, works_on: tuple[Stored, ...] = ()) -> object:
        cpu_s = self._allowance.cpu_s(*works_on)
        return self._sandbox.run(f"{_TASKS}:{task}", *arguments, cpu_s=cpu_s)
