"""Computes derived images in the sandbox: ``pacs.core.processing.Processor``.

Owns the folder the results lie in until they are taken, and what a failure is
called. What is computed is decided in ``process_tasks`` and below.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Process
from pacs.core.errors import ProcessingFailed, ProcessingRefused, ProcessingUnknown
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.processing import (
    DerivedImage,
    OperationFact,
    Parameter,
    ProcessingRequest,
    Takes,
)
from processing.datasets.syntaxes import EXPLICIT_LITTLE_ENDIAN
from processing.operations.catalogue import Catalogue, Offered, OperationUnknown
from processing.operations.operation import Kind, Operation
from processing.operations.parameters import ParameterRefused, read, rules, told
from processing.sandbox import Bounds, Sandbox, TaskFailed

_TASK = "processing.datasets.process_tasks:process"
_PREFIX = "process-"
_TAKES = {Kind.IMAGE: Takes.IMAGE, Kind.VOLUME: Takes.SERIES, Kind.SET: Takes.STUDY}


class SandboxedProcessor:
    """Computes in worker processes; may be used from many threads at once."""

    def __init__(
        self,
        settings: Process,
        work_folder: Path,
        *,
        catalogue: Catalogue | None = None,
        workers: int = 0,
        threads: int = 0,
    ) -> None:
        """``workers`` at most, and ``threads`` in each; 0 is one per core. Only our operations unless given."""
        self._max_bytes = settings.max_image_bytes
        self._catalogue = catalogue or Catalogue()
        self._threads = threads or os.cpu_count() or 1
        self._folder = work_folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sandbox = Sandbox(
            Bounds(
                timeout_s=settings.timeout_s,
                memory_bytes=settings.memory_bytes,
                file_bytes=settings.memory_bytes,
            ),
            workers=workers,
        )

    def checked(
        self, operation: str, parameters: Mapping[str, str], version: str = ""
    ) -> OperationFact:
        """Give the operation. Raises ``ProcessingUnknown``."""
        return _fact(self._asked(operation, parameters, version).operation)

    def _asked(self, name: str, parameters: Mapping[str, str], version: str) -> Offered:
        try:
            found = self._catalogue.find(name, version)
            read(found.operation.parameters, parameters)
        except (OperationUnknown, ParameterRefused) as error:
            raise ProcessingUnknown(str(error)) from error
        return found

    @contextmanager
    def process(self, request: ProcessingRequest) -> Iterator[Sequence[DerivedImage]]:
        """Yield the results. Raises ``ProcessingRefused``, ``ProcessingFailed`` or ``ProcessingUnknown``."""
        offered = self._asked(request.operation, request.parameters, request.version)
        _require_part(offered.operation, request)
        with self._scratch() as folder:
            yield [
                DerivedImage(
                    path=f"{folder}/{name}",
                    sop_class_uid=SOPClassUID(sop_class_uid),
                    sop_instance_uid=SOPInstanceUID(sop_instance_uid),
                    transfer_syntax_uid=TransferSyntaxUID(EXPLICIT_LITTLE_ENDIAN),
                )
                for name, sop_class_uid, sop_instance_uid in self._made(request, offered, folder)
            ]

    def worker_pids(self) -> frozenset[int]:
        """List the worker processes that run now."""
        return self._sandbox.worker_pids()

    def close(self) -> None:
        """End the workers. Work under way fails."""
        self._sandbox.close()

    def _made(
        self, request: ProcessingRequest, offered: Offered, folder: str
    ) -> Sequence[tuple[str, str, str]]:
        asked = {
            "operation": offered.place,
            "parameters": dict(request.parameters),
            "series_instance_uid": request.series_instance_uid,
            "series_description": request.series_description,
            "part": request.part,
            "parts": request.parts,
            "uid_root": request.uid_root,
            "made": (request.made or datetime.now(UTC)).astimezone(UTC).isoformat(),
            "sources": [(one.path, one.offset, one.transfer_syntax_uid) for one in request.sources],
            "folder": folder,
            "max_bytes": self._max_bytes,
            "threads": self._threads,
        }
        try:
            answer = self._sandbox.run(_TASK, asked)
        except TaskFailed as error:
            raise ProcessingFailed(f"processing was not done: {error}") from error
        if not isinstance(answer, dict) or not answer.keys() & {"made", "refused"}:
            raise ProcessingFailed("processing gave no answer")
        if "refused" in answer:
            raise ProcessingRefused(str(answer["refused"]))
        made: Sequence[tuple[str, str, str]] = answer["made"]
        return made

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        """Yield a folder for one request, and remove it, as well as those of processes that were killed."""
        with ExitStack() as stack:
            with _alone(self._folder):  # a folder that nobody holds yet is not swept
                _sweep(self._folder)
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._folder)
                )
                stack.enter_context(_alone(Path(folder)))
            yield folder


def _sweep(work: Path) -> None:
    for leftover in work.glob(_PREFIX + "*"):
        with suppress(OSError), _alone(leftover, wait=False):
            shutil.rmtree(leftover)


@contextmanager
def _alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder for as long as this process lives. Raises ``OSError`` where it is not to ``wait``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def facts(catalogue: Catalogue) -> Sequence[OperationFact]:
    """List what can be asked for."""
    return [_fact(one) for one in catalogue.operations]


def _require_part(operation: Operation, request: ProcessingRequest) -> None:
    """Hold a request to the parts there are. Raises ``ProcessingRefused``."""
    if not 0 <= request.part < request.parts:
        raise ProcessingRefused(f"there is no part {request.part} of {request.parts}")
    if request.parts > 1 and not operation.divisible:
        raise ProcessingRefused(f"{operation.name} is not computed in parts")


def _fact(operation: Operation) -> OperationFact:
    defaults = dict(told(operation.parameters()))
    return OperationFact(
        name=operation.name,
        version=operation.version,
        takes=_TAKES[operation.kind],
        summary=operation.summary,
        code="" if operation.code is None else operation.code.value,
        parameters=[
            Parameter(
                name=name,
                default=defaults[name],
                bounds=rule.bounds,
                says=rule.says,
                is_length=rule.is_length,
            )
            for name, rule in rules(operation.parameters).items()
        ],
        divisible=operation.divisible,
    )
