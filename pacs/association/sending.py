"""C-STORE out: a Data Set streamed from its file, never held in memory. PS3.7 Section 9.1.1.

Owns the command, the fragments and the reading of the response; both a C-MOVE
(we associated) and a C-GET (the peer did, PS3.4 Section C.4.3) send through
it. It refuses to choose what is sent or to convert it: a payload goes out
only where its own transfer syntax was accepted.
"""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE
from pynetdicom.pdu_primitives import P_DATA

from pacs.association.commands import FIELD_OF, WITH_DATA_SET, encode_command
from pacs.association.exchange import give_up, push, receive, require_alive
from pacs.association.message import Operation
from pacs.core.errors import InstanceNotFound, PeerRefused, PeerUnreachable
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, SendOutcome

MAX_FRAGMENT_BYTES = 131_072
"""Largest P-DATA built, whatever a peer allows: its Maximum Length may be unlimited (0)."""

PDV_OVERHEAD_BYTES = 6
"""Item length, presentation context id and message control header (PS3.8 Section 9.3.5.1, Annex E)."""

PRIORITY_MEDIUM = 0x0000

MORE_OF_DATA_SET, MORE_OF_COMMAND = b"\x00", b"\x01"
LAST_OF_DATA_SET, LAST_OF_COMMAND = b"\x02", b"\x03"
"""Message control headers, PS3.8 Section E.2."""

LAST_MESSAGE_ID = 0xFFFF
ACCEPTOR_FIRST_MESSAGE_ID = 0x8000
"""Where an acceptor starts counting, away from the small ids of the peer's own requests."""

SUCCESS = 0x0000
WARNINGS = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
"""PS3.4 Table B.2-1 and PS3.7 Annex C.4."""


class AssociationDelivery:
    """An open association as a way to a receiver; implements ``pacs.core.ports.Delivery``.

    ``reserved_message_id`` is the id of the peer's request that is being
    answered meanwhile (C-GET); no sub-operation carries it.
    """

    def __init__(
        self,
        association: Association,
        *,
        as_acceptor: bool,
        max_queued_pdus: int,
        reserved_message_id: int | None = None,
    ) -> None:
        self._association = association
        self._max_queued_pdus = max_queued_pdus
        self._reserved_message_id = reserved_message_id
        self._broken = False
        self._message_id = (ACCEPTOR_FIRST_MESSAGE_ID if as_acceptor else 1) - 1

    @property
    def broken(self) -> bool:
        """Tell whether the way is closed for good; then the association cannot be released."""
        return self._broken

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """List the accepted transfer syntaxes in which we may act as SCU, in context order."""
        found = [
            TransferSyntaxUID(str(context.transfer_syntax[0]))
            for context in self._association.accepted_contexts
            if context.as_scu and str(context.abstract_syntax) == sop_class_uid
        ]
        return tuple(dict.fromkeys(found))

    def send(self, payload: Payload, originator: Originator | None) -> SendOutcome:
        """Send one Data Set. Raises ``PeerUnreachable`` when the way is closed for good.

        A payload that cannot be read, or that no accepted context fits, is a
        failed sub-operation; the way stays open.
        """
        try:
            status = self.store(payload, originator)
        except (InstanceNotFound, PeerRefused):
            return SendOutcome.FAILURE
        if status == SUCCESS:
            return SendOutcome.SUCCESS
        return SendOutcome.WARNING if status in WARNINGS else SendOutcome.FAILURE

    def store(self, payload: Payload, originator: Originator | None) -> int:
        """Send one Data Set and give the peer's Status; raises as ``send_instance``."""
        try:
            return send_instance(
                self._association,
                payload,
                originator,
                message_id=self.next_message_id(),
                max_queued_pdus=self._max_queued_pdus,
            )
        except PeerUnreachable:
            self._broken = True
            raise

    def next_message_id(self) -> int:
        """Count message ids from 1 to 65535, over and over, leaving out the reserved one."""
        self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        if self._message_id == self._reserved_message_id:
            self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        return self._message_id


def send_instance(
    association: Association,
    payload: Payload,
    originator: Originator | None,
    *,
    message_id: int,
    max_queued_pdus: int,
) -> int:
    """Send one C-STORE request, wait for its response and give the Status.

    Raises ``PeerUnreachable`` when the association died or nothing came within
    the DIMSE timeout, ``PeerRefused`` where no context has the payload's class
    and syntax, ``InstanceNotFound`` where its file cannot be opened; the last
    two leave the association usable.
    """
    context_id = _context_id(association, payload)
    fragment_bytes = _fragment_bytes(association)
    try:
        source = Path(payload.path).open("rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as failure:
        raise InstanceNotFound(f"cannot open {payload.path}: {failure.strerror}") from failure
    with source:
        size_bytes = max(0, os.fstat(source.fileno()).st_size - payload.offset)
        source.seek(payload.offset)
        require_alive(association)
        for piece in chain(
            _command_pieces(payload, originator, message_id, fragment_bytes),
            _data_set_pieces(association, source, size_bytes, fragment_bytes),
        ):
            push(association, _p_data(context_id, piece), max_queued_pdus=max_queued_pdus)
    return _await_status(association, message_id)


def _context_id(association: Association, payload: Payload) -> int:
    for context in association.accepted_contexts:
        if (
            context.as_scu
            and str(context.abstract_syntax) == payload.sop_class_uid
            and str(context.transfer_syntax[0]) == payload.transfer_syntax_uid
        ):
            return int(context.context_id or 0)
    raise PeerRefused(
        f"the peer accepted no presentation context for {payload.sop_class_uid}"
        f" in {payload.transfer_syntax_uid}"
    )


def _fragment_bytes(association: Association) -> int:
    """Length of the Data Set fragments: even (PS3.8 Section E.1), within the peer's Maximum Length."""
    peer_bytes = association.dimse.maximum_pdu_size or MAX_FRAGMENT_BYTES
    fragment_bytes = min(peer_bytes, MAX_FRAGMENT_BYTES) - PDV_OVERHEAD_BYTES
    if fragment_bytes < 2:
        give_up(association, f"the peer's Maximum Length of {peer_bytes} bytes holds no fragment")
    return fragment_bytes - fragment_bytes % 2


def _command_pieces(
    payload: Payload, originator: Originator | None, message_id: int, fragment_bytes: int
) -> Iterator[bytes]:
    """Yield the C-STORE-RQ command set, PS3.7 Table 9.3-1, in fragments behind their headers."""
    encoded = encode_command(
        {
            "AffectedSOPClassUID": payload.sop_class_uid,
            "CommandField": FIELD_OF[Operation.C_STORE],
            "MessageID": message_id,
            "Priority": PRIORITY_MEDIUM,
            "CommandDataSetType": WITH_DATA_SET,
            "AffectedSOPInstanceUID": payload.sop_instance_uid,
            "MoveOriginatorApplicationEntityTitle": originator.ae_title if originator else None,
            "MoveOriginatorMessageID": originator.message_id if originator else None,
        }
    )
    for start in range(0, len(encoded), fragment_bytes):
        last = start + fragment_bytes >= len(encoded)
        header = LAST_OF_COMMAND if last else MORE_OF_COMMAND
        yield header + encoded[start : start + fragment_bytes]


def _data_set_pieces(
    association: Association, source: BinaryIO, size_bytes: int, fragment_bytes: int
) -> Iterator[bytes]:
    """Yield the Data Set's fragments, each behind its message control header (PS3.8 Section E.2).

    A message that was begun must be completed, so a file that ends early or
    cannot be read further costs the association.
    """
    remaining = size_bytes
    while True:
        wanted = min(remaining, fragment_bytes)
        try:
            piece = _read_exactly(source, wanted)
        except OSError as failure:
            give_up(association, f"the instance's file cannot be read: {failure}")
        if len(piece) < wanted:
            give_up(association, "the instance's file became shorter while it was sent")
        remaining -= wanted
        yield (LAST_OF_DATA_SET if remaining <= 0 else MORE_OF_DATA_SET) + piece
        if remaining <= 0:
            return


def _read_exactly(source: BinaryIO, size_bytes: int) -> bytes:
    """Read ``size_bytes``, fewer only at the end of the file."""
    piece = source.read(size_bytes)
    while len(piece) < size_bytes:
        more = source.read(size_bytes - len(piece))
        if not more:
            break
        piece += more
    return piece


def _p_data(context_id: int, value: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, value))
    return primitive


def _await_status(association: Association, message_id: int) -> int:
    """Wait for the C-STORE response to ``message_id``.

    A C-CANCEL of the C-GET under way stays where pynetdicom puts it; beyond
    the ten it keeps aside, further ones arrive here and say nothing new.
    """
    while True:
        _, message = receive(association)
        if isinstance(message, C_CANCEL):
            continue
        if (
            isinstance(message, C_STORE)
            and message.is_valid_response
            and message.MessageIDBeingRespondedTo == message_id
            and message.Status is not None
        ):
            return int(message.Status)
        give_up(association, "the peer sent something else than its C-STORE response")
