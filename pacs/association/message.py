"""What a handler sees of the wire: a Request comes in, Responses go out. PS3.7 Sections 9 and 10.

Handlers never meet pynetdicom. The loop underneath may change; these two do not.
"""

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pydicom.dataset import Dataset

from pacs.core.caller import Caller
from pacs.core.event_ports import EventWay
from pacs.core.events import EventOutcome
from pacs.core.identifiers import AETitle, TransferSyntaxUID
from pacs.core.ports import Incoming
from pacs.core.sending_ports import Delivery


class Operation(enum.Enum):
    """DIMSE operations, PS3.7 Table 7.5-1."""

    C_ECHO = "C-ECHO"
    C_STORE = "C-STORE"
    C_FIND = "C-FIND"
    C_MOVE = "C-MOVE"
    C_GET = "C-GET"
    N_EVENT_REPORT = "N-EVENT-REPORT"
    N_GET = "N-GET"
    N_SET = "N-SET"
    N_ACTION = "N-ACTION"
    N_CREATE = "N-CREATE"
    N_DELETE = "N-DELETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What we accept for one or more SOP Classes.

    ``sop_classes`` maps UID to name. ``transfer_syntaxes`` empty means every
    syntax a peer may offer. ``scu_role`` is for peers that turn the roles
    around with SCP/SCU Role Selection (C-GET, PS3.7 D.3.3.4): we then act as
    SCU. ``any_other_class`` extends the offer to SOP Classes nobody listed.
    ``preferred`` names the syntaxes, best first, in which a caller is to get a
    SOP Class from us where it turns the roles around and leaves us the choice.
    ``extended`` answers SOP Class Extended Negotiation (PS3.7 D.3.3.5): the
    peer's application information in, ours out.
    """

    sop_classes: Mapping[str, str]
    transfer_syntaxes: tuple[str, ...] = ()
    scu_role: bool = False
    any_other_class: bool = False
    preferred: Callable[[Caller, str], Sequence[str]] | None = None
    extended: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request of ours to a peer that has not asked for it (N-EVENT-REPORT).

    ``context_uid`` is the SOP Class whose presentation context carries it,
    where that is not ``sop_class_uid``.
    """

    operation: Operation
    sop_class_uid: str
    fields: Mapping[str, object]
    data_set: Dataset | None = None
    context_uid: str | None = None


Answered = Callable[[EventOutcome], None]
"""Told once what became of a message of ours."""


class OpenAssociation(Protocol):
    """The association a request came on, as far as a handler may touch it."""

    @property
    def id(self) -> str:
        """Its id in logs, audit and provenance."""
        ...

    @property
    def max_pdu_bytes(self) -> int:
        """The peer's Maximum Length Received (PS3.8 Annex D.1); 0 is unlimited."""
        ...

    @property
    def session(self) -> object:
        """What the service class's ``session`` yielded for this association, or ``None``."""
        ...

    def negotiated(self, sop_class_uid: str) -> bytes:
        """Service Class Application Information we accepted for a SOP Class (PS3.7 D.3.3.5); empty if none."""
        ...

    def delivery(self) -> Delivery:
        """Send C-STORE sub-operations on this association, where the peer took the SCP role (C-GET)."""
        ...

    def post(self, message: Message) -> None:
        """Send a message the peer did not ask for, as soon as the association is free for it.

        It is lost with the association; ``Unit.post`` keeps it until the peer has it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One DIMSE request, its sender resolved.

    ``fields`` holds the command set's elements by DICOM keyword, Data Set and
    command group housekeeping left out. ``identifier`` is the decoded Data Set
    of every operation but C-STORE, whose Data Set is ``incoming``. ``context_uid`` is the
    abstract syntax it came under, which an N- operation may differ from (PS3.4 Section CC.3.1).
    """

    operation: Operation
    sop_class_uid: str
    transfer_syntax_uid: TransferSyntaxUID
    message_id: int
    fields: Mapping[str, object]
    caller: Caller
    called_ae_title: AETitle
    association: OpenAssociation
    cancelled: Callable[[], bool]
    identifier: Dataset | None = field(default=None, repr=False)
    incoming: Incoming | None = None
    context_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One DIMSE response.

    ``comment`` is Error Comment (0000,0902), ``offending_elements`` the tags
    of (0000,0901). The four counters are those of C-MOVE and C-GET; ``None``
    leaves one out. ``fields`` adds further command elements by keyword.
    ``study_instance_uid`` names the study for the audit trail and does not travel.
    ``more_at_once`` says of a match, which has nothing but a status and an
    identifier, that another response is at hand: it may leave with that one.
    """

    status: int
    identifier: Dataset | None = None
    comment: str = ""
    offending_elements: tuple[int, ...] = ()
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    more_at_once: bool = False
    study_instance_uid: str = ""


class Services(Protocol):
    """What the association layer serves; ``scp.server`` implements it."""

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Everything that may be negotiated."""
        ...

    def open(
        self, caller: Caller, sop_class_uids: frozenset[str]
    ) -> AbstractContextManager[Callable[[Request], Iterator[Response]]]:
        """Enter the sessions of what was negotiated and give the door every request walks through.

        Left exactly once: on release, abort or loss.
        """
        ...

    def opened(self, caller: Caller, way: EventWay) -> AbstractContextManager[None]:
        """Tell who has events for peers of an association, from its acceptance to its end."""
        ...
