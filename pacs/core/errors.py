"""What can go wrong, in archive words.

A class here says what happened. It never says which number a peer or a shell
gets: one fact has a different code in each DICOM service, so the translation
lives with the translator (``scp`` for peers, ``pacs.cli`` for shells).
"""

from typing import ClassVar

from pacs.core.caller import Refusal


class PacsError(Exception):
    """Base of every error this project raises on purpose.

    ``peer_comment`` is the only text that may leave the process towards a
    peer. It is fixed per class, so no patient data or file path can ride out
    in a response, and it fits Error Comment (0000,0902), VR LO, at most 64
    characters. ``offending_elements`` are tags, the answer's Offending Element
    (0000,0901); they name attributes, never values.
    """

    peer_comment: ClassVar[str] = "Processing failure"

    def __init__(self, message: str = "", *, offending_elements: tuple[int, ...] = ()) -> None:
        super().__init__(message or self.peer_comment)
        self.offending_elements = offending_elements


# --- admission and rights -------------------------------------------------


class AdmissionRefused(PacsError):
    """The peer may not associate: nobody it can be resolved to has a contract.

    The message is the cause, for the audit trail; the peer gets what ``refusal`` says.
    """

    peer_comment = "Association not permitted"

    def __init__(self, message: str = "", *, refusal: Refusal = Refusal.DEVICE) -> None:
        super().__init__(message)
        self.refusal = refusal


class NotAuthorized(PacsError):
    """The caller's contract does not grant the right this operation needs."""

    peer_comment = "Not authorized"


# --- instances arriving ---------------------------------------------------


class InstanceUnreadable(PacsError):
    """The Data Set cannot be parsed as the negotiated transfer syntax."""

    peer_comment = "Data Set cannot be parsed"


class InstanceTruncated(InstanceUnreadable):
    """The Data Set ends before its last element does."""

    peer_comment = "Data Set ends before its last element"


class InstanceTooDeep(InstanceUnreadable):
    """Sequences nest deeper, or elements are larger, than the settings allow."""

    peer_comment = "Data Set exceeds the archive's parsing limits"


class InstanceIncomplete(PacsError):
    """An identifier without which the instance could never be found is missing or malformed."""

    peer_comment = "Data Set lacks a usable UID"


class SOPClassMismatch(PacsError):
    """The Data Set's SOP Class differs from the one in the C-STORE request."""

    peer_comment = "Data Set does not match SOP Class"


class SOPInstanceMismatch(PacsError):
    """The Data Set's SOP Instance UID differs from the one in the C-STORE request."""

    peer_comment = "Data Set does not match SOP Instance"


class InstanceTooLarge(PacsError):
    """The instance is larger than the settings allow."""

    peer_comment = "Instance exceeds the size the archive accepts"


class CapacityExhausted(PacsError):
    """No room to keep the instance: disk full, reserve reached or file limit."""

    peer_comment = "Archive has no space left"


class StorageFailed(PacsError):
    """The store could not make the instance durable (a failed write or fsync)."""

    peer_comment = "Archive could not store the instance safely"


class RecordsFailed(PacsError):
    """The database could not commit the rows; nothing was acknowledged."""

    peer_comment = "Archive index is not available"


# --- questions ------------------------------------------------------------


class IdentifierInvalid(PacsError):
    """A query or retrieve identifier breaks the rules of its information model."""

    peer_comment = "Identifier does not match SOP Class"


class TooManyMatches(PacsError):
    """The query matches more than the settings allow to be answered."""

    peer_comment = "Too many matches, narrow the query"


class DestinationUnknown(PacsError):
    """Move Destination names no peer that this caller may send to."""

    peer_comment = "Move Destination unknown"


class PeerUnreachable(PacsError):
    """The peer could not be reached, or rejected the association."""

    peer_comment = "Destination could not be reached"


class PeerLeft(PeerUnreachable):
    """The association had ended before anything of what was to be sent next left here."""


class PeerRefused(PacsError):
    """The peer answered, and refused."""

    peer_comment = "Destination refused"


class ServiceNotOffered(PeerRefused):
    """The peer does not provide the service it was asked for."""

    peer_comment = "Destination does not offer the service"


class TransactionUnknown(PacsError):
    """No transaction of that UID was asked of this peer."""

    peer_comment = "No such transaction"


class ReportContradicts(PacsError):
    """The transaction was reported before, with another outcome."""

    peer_comment = "Transaction was reported otherwise before"


class EventTypeUnknown(PacsError):
    """The service class knows no event of that type."""

    peer_comment = "No such event type"


class EventInvalid(PacsError):
    """The Event Information lacks what it must have."""

    peer_comment = "Event Information lacks what it must have"


class TranscodingFailed(PacsError):
    """The stored form cannot be turned into one the receiver takes."""

    peer_comment = "Instance cannot be converted for the receiver"


class TranscodingInterrupted(TranscodingFailed):
    """No codec ran to its end: it crashed, took too long or was stopped. It says nothing about the instance."""

    peer_comment = "Instance could not be converted for now"


class NotAsReceived(TranscodingFailed):
    """What was made of a re-encoded form has another digest than what was received."""


class EncodingUnproved(TranscodingFailed):
    """What a codec wrote did not decode to what went in, so it was thrown away."""


class CoercionFailed(PacsError):
    """An attribute cannot be changed as a route says without losing something else."""

    peer_comment = "Instance cannot be changed for the receiver"


class CoercionInterrupted(CoercionFailed):
    """There was no room for the changed copy, or its source could not be read: it may work later."""

    peer_comment = "Instance could not be changed for now"


class ProcessingUnknown(PacsError):
    """There is no such operation, or it takes no such parameters."""

    peer_comment = "No such operation, or not with such parameters"


class ProcessingRefused(PacsError):
    """These images cannot be processed so: they are no volume, or not of the kind the operation takes."""

    peer_comment = "Images cannot be processed so"


class ProcessingFailed(PacsError):
    """Processing crashed, or did not end within its bounds of time and memory."""

    peer_comment = "Processing did not end within its bounds"


class InstanceNotFound(PacsError):
    """No instance is held under that key."""

    peer_comment = "No such SOP Instance"


class InstanceCorrupt(PacsError):
    """Bytes read back do not match the digest recorded when they were kept."""

    peer_comment = "Stored instance failed its integrity check"


class OutboxFull(PacsError):
    """No further event can be kept for this peer, or for any."""

    peer_comment = "Archive cannot queue more notifications"


class EventTooLarge(PacsError):
    """The Event Information is larger than the settings allow."""

    peer_comment = "Notification exceeds the size the archive sends"


class OperationUnsupported(PacsError):
    """The presentation context's service has no such operation."""

    peer_comment = "Unrecognized operation"


# --- administration -------------------------------------------------------


class SettingsInvalid(PacsError):
    """pacs.toml or an override breaks a rule; the message says where."""


class HomeInUse(PacsError):
    """Another process serves this home."""


class AddressInUse(PacsError):
    """The address to listen on is taken, or is not one of this machine's."""


class ListenerFailed(PacsError):
    """A listener process ended before it could serve."""


class NotInitialized(PacsError):
    """The home directory holds no archive yet."""


class EntryNotFound(PacsError):
    """No peer, conflict or journal entry is held under that name."""


class EntryConflicts(PacsError):
    """What is asked contradicts what is already recorded."""
