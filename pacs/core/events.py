"""What a peer is told without having asked: N-EVENT-REPORT on its way. PS3.7 Section 10.1.1."""

from dataclasses import dataclass, field
from datetime import datetime

from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import (
    AETitle,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    is_ae_title,
    is_uid,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """Who shall be told: an AE of one subscriber. Another's that claims the AE title is not meant."""

    ae_title: AETitle
    registrant: Registrant


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One N-EVENT-REPORT (PS3.7 Section 10.1.1) to be delivered at least once.

    ``information`` is the Data Set in Explicit VR Little Endian, empty where
    there is none. ``context_uid`` is the SOP Class whose presentation context
    carries it where that is another one (Meta SOP Classes; UPS Event for
    UPS Push, PS3.4 Section CC.2.4). ``expires_s`` counts from when it was asked
    for; ``None`` takes the setting. Raises ``EntryConflicts`` for what could
    never be sent.
    """

    addressee: Addressee
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    event_type_id: int
    information: bytes = field(default=b"", repr=False)
    context_uid: SOPClassUID | None = None
    expires_s: float | None = None

    def __post_init__(self) -> None:
        if not is_ae_title(self.addressee.ae_title) or not self.addressee.registrant:
            raise EntryConflicts("an event needs the AE title and the subscriber it is for")
        if not all(map(is_uid, (self.sop_class_uid, self.sop_instance_uid, self.carried_by))):
            raise EntryConflicts("an event needs the UIDs of a SOP Class and a SOP Instance")
        if not 0 <= self.event_type_id <= 0xFFFF:
            raise EntryConflicts("an Event Type ID is a number from 0 to 65535")
        if self.expires_s is not None and self.expires_s <= 0:
            raise EntryConflicts("an event that expires at once is not sent")

    @property
    def carried_by(self) -> SOPClassUID:
        """The abstract syntax of the presentation context it travels in."""
        return self.context_uid or self.sop_class_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedEvent:
    """An event that one process may send now. ``attempts`` counts this one."""

    id: int
    event: Event
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedEvent:
    """An event as the admin sees it. ``state`` is waiting, sending or dead."""

    id: int
    state: str
    ae_title: AETitle
    registrant: Registrant
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    event_type_id: int
    size_bytes: int
    asked_utc: datetime
    expires_utc: datetime
    due_utc: datetime
    attempts: int
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingEvents:
    """Events for one addressee on one kind of presentation context that may be sent now.

    ``callable`` is ``False`` while somebody calls the peer, or shall not yet call it again.
    """

    addressee: Addressee
    context_uid: SOPClassUID
    waiting_s: float
    callable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """What became of an event that was handed to an association.

    ``status`` is the peer's. ``None``: the association ended, or the message
    could not be made, before the peer said anything; ``unsent``: it had not
    even begun to leave, so nothing speaks against sending it at once.
    """

    status: int | None = None
    unsent: bool = False

    @property
    def delivered(self) -> bool:
        """Tell whether the peer took it: success or warning (PS3.7 Annex C)."""
        if self.status is None:
            return False
        return self.status in (0x0000, 0x0001, 0x0107, 0x0116) or self.status >> 12 == 0xB
