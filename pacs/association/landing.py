"""Where C-STOREs that a peer sends us during our C-GET land: Part 10 files in a folder. PS3.10 Section 7.1.

Owns the temporary file, its bound and its final name, and the DIMSE provider
that writes into it while P-DATA arrives, so that no object is held in memory.
It refuses to judge the Data Set; that is left to whoever asked for it. The
archive's own store has stricter rules and its own way in.
"""

import queue
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from pacs.core.errors import CapacityExhausted, InstanceIncomplete, InstanceTooLarge, PacsError
from pacs.core.identifiers import is_uid

TEMPORARY_PREFIX = ".receiving-"
UNBOUNDED = 1 << 62
INVALID_PDU = "Evt19"
"""PS3.8 Table 9-8: unrecognized or invalid PDU received; the state machine aborts."""


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
    ``keep``, so that the message can be drained and answered.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        max_bytes: int,
    ) -> None:
        self._folder = folder
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

    @property
    def file(self) -> "Landing":
        """Ourselves: pynetdicom flushes the ``file`` of what it writes to after every fragment."""
        return self

    def flush(self) -> None:
        """Do nothing: ``keep`` flushes once."""

    def write(self, piece: bytes) -> int:
        """Append a fragment of the Data Set."""
        self._room_bytes -= len(piece)
        if self._failure is None and self._room_bytes < 0:
            self._failure = InstanceTooLarge()
        if self._failure is None:
            try:
                self._handle.write(piece)
            except OSError as failure:
                self._failure = CapacityExhausted(f"{self._folder}: {failure.strerror}")
        return len(piece)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingPlace:
    """The folder instances may land in now, and how large each may be."""

    folder: Path
    max_bytes: int


class MessageQueue(queue.Queue[Any]):
    """Messages read and not yet looked at, bounded: a full queue stops the reading thread.

    The peer then feels TCP's back-pressure instead of filling our memory.
    """

    def unbind(self) -> None:
        """Let the reading thread go on, before the association is ended."""
        with self.mutex:
            self.maxsize = UNBOUNDED
            self.not_full.notify_all()


class LandingProvider(DIMSEServiceProvider):
    """pynetdicom's DIMSE provider, with bounds, and with files for C-STORE requests.

    ``place`` is ``None`` outside a C-GET; then a C-STORE request is bounded
    like any other message.
    """

    def __init__(
        self, association: Association, *, max_queued_messages: int, max_message_bytes: int
    ) -> None:
        super().__init__(association)
        self.msg_queue: MessageQueue = MessageQueue(max_queued_messages)
        self.place: LandingPlace | None = None
        self._landing: Landing | None = None
        self._max_message_bytes = max_message_bytes
        self._held_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take one P-DATA, fragment by fragment."""
        for context_id, value in primitive.presentation_data_value_list:
            if not self._within_bounds(value):
                self.dul.event_queue.put(INVALID_PDU)
                return
            single = P_DATA()
            single.presentation_data_value_list.append((context_id, value))
            super().receive_primitive(single)
            self._follow(context_id)

    def abandon(self) -> None:
        """Remove the file of a C-STORE that will never be completed."""
        if self._landing is not None:
            self._landing.discard()

    def _within_bounds(self, value: bytes) -> bool:
        if not value:
            return False
        is_data_set = not value[0] & 1
        if not (is_data_set and self._landing is not None):
            self._held_bytes += len(value)
        return self._held_bytes <= self._max_message_bytes

    def _follow(self, context_id: int) -> None:
        """Open a file once a C-STORE command is complete; forget it once the message is."""
        message = self.message
        if message is None:
            self._landing, self._held_bytes = None, 0
        elif isinstance(message, C_STORE_RQ) and self._landing is None and self.place is not None:
            command, context = message.command_set, self.assoc._accepted_cx.get(context_id)
            self._landing = Landing(
                self.place.folder,
                sop_class_uid=str(command.get("AffectedSOPClassUID", "")),
                sop_instance_uid=str(command.get("AffectedSOPInstanceUID", "")),
                transfer_syntax_uid=str(context.transfer_syntax[0]) if context else "",
                max_bytes=self.place.max_bytes,
            )
            message._data_set_file = self._landing  # type: ignore[assignment]  # typed as a temporary file


def _part10_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and File Meta Information. Raises ``InstanceIncomplete``."""
    if not all(map(is_uid, (sop_class_uid, sop_instance_uid, transfer_syntax_uid))):
        raise InstanceIncomplete
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = PYNETDICOM_IMPLEMENTATION_UID
    head = DicomBytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, meta)
    return head.getvalue()
