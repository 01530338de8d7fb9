"""Where C-STOREs that a peer sends us during our C-GET land: Part 10 files in a folder. PS3.10 Section 7.1.

Owns the temporary file, its bound and its final name. It refuses to judge the
Data Set; that is left to whoever asked for it. The archive's own store has
stricter rules and a receiver of its own.
"""

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.core.errors import CapacityExhausted, InstanceIncomplete, InstanceTooLarge, PacsError
from pacs.core.identifiers import SOPClassUID, SOPInstanceUID, TransferSyntaxUID, is_uid
from pacs.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

TEMPORARY_PREFIX = ".receiving-"
_PREAMBLE = bytes(128) + b"DICM"
_ELEMENT = struct.Struct("<HH2sH")
_VERSION = struct.pack("<HH2sHL2s", 2, 0x0001, b"OB", 0, 2, b"\0\1")
"""File Meta Information Version (0002,0001)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One instance that arrived, complete, under its final name."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


class Landing:
    """One Part 10 file while it arrives.

    ``write`` never raises: the first failure is remembered and raised by
    ``keep``, so that the message can be drained and answered. ``received`` is
    told of it once it has its name.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        max_bytes: int,
        received: Callable[[Received], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._received = received
        self._uids = (sop_class_uid, sop_instance_uid, transfer_syntax_uid)
        self._room_bytes = max_bytes
        self._failure: PacsError | None = None
        self._handle: Any = None
        try:
            head = _part10_head(*self._uids)
            self._handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 - lives until keep or discard
                dir=folder, prefix=TEMPORARY_PREFIX, delete=False
            )
            self._handle.write(head)
        except PacsError as failure:
            self._failure = failure
        except OSError as failure:
            self._failure = CapacityExhausted(f"{folder}: {failure.strerror}")

    def write(self, piece: bytes | memoryview) -> None:
        """Append a fragment of the Data Set."""
        self._room_bytes -= len(piece)
        if self._failure is None and self._room_bytes < 0:
            self._failure = InstanceTooLarge()
        if self._failure is None:
            try:
                self._handle.write(piece)
            except OSError as failure:
                self._failure = CapacityExhausted(f"{self._folder}: {failure.strerror}")

    def take(self) -> None:
        """Keep it and say so."""
        self._received(self.keep())

    def keep(self) -> Received:
        """Give the file its final name, made of the validated SOP Instance UID alone.

        Raises what went wrong while writing; then nothing is left in the folder.
        """
        if self._failure is not None:
            self.discard()
            raise self._failure
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = self._uids
        path = self._folder / f"{sop_instance_uid}.dcm"
        try:
            self._handle.close()
            Path(self._handle.name).replace(path)
        except OSError as failure:
            self.discard()
            raise CapacityExhausted(f"{self._folder}: {failure.strerror}") from failure
        self._handle = None
        return Received(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            path=path,
        )

    def discard(self) -> None:
        """Remove the temporary file, if there is one."""
        if self._handle is not None:
            try:
                self._handle.close()
            finally:
                Path(self._handle.name).unlink(missing_ok=True)
                self._handle = None

    def __exit__(self, *exc_info: object) -> None:
        self.discard()


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingPlace:
    """A folder as ``pacs.core.ports.Receiver``, and how large each instance may be."""

    folder: Path
    max_bytes: int
    received: Callable[[Received], None]

    def __call__(
        self,
        sop_class_uid: SOPClassUID,
        sop_instance_uid: SOPInstanceUID,
        transfer_syntax_uid: TransferSyntaxUID,
    ) -> Landing:
        """Begin the file of one C-STORE."""
        return Landing(
            self.folder,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            max_bytes=self.max_bytes,
            received=self.received,
        )


def _part10_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information. Raises ``InstanceIncomplete``."""
    if not all(map(is_uid, (sop_class_uid, sop_instance_uid, transfer_syntax_uid))):
        raise InstanceIncomplete
    body = _VERSION + b"".join(
        _element(element, vr, value)
        for element, vr, value in (
            (0x0002, b"UI", sop_class_uid),
            (0x0003, b"UI", sop_instance_uid),
            (0x0010, b"UI", transfer_syntax_uid),
            (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    return _PREAMBLE + _ELEMENT.pack(2, 0x0000, b"UL", 4) + struct.pack("<L", len(body)) + body


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return _ELEMENT.pack(2, element, vr, len(value)) + value
