"""Storage SCU. PS3.4 Annex B.

Owns the presentation contexts offered for what is to be sent and the way each
file takes: as it lies, else converted, else not at all. It refuses to choose
the files (``scu.files``) and to convert them (a ``Transcoder`` does).
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from config import settings
from pacs.association.requested import Requested
from pacs.association.requestor import MAX_CONTEXTS, NothingAccepted, Proposal, associate
from pacs.association.sending import SUCCESS, WARNINGS
from pacs.core.errors import (
    InstanceNotFound,
    PeerRefused,
    PeerUnreachable,
    TranscodingFailed,
)
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, Peer, SendOutcome
from pacs.core.sending_ports import Delivery, Transcoder
from scu.models import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

Offers = Sequence[tuple[SOPClassUID, tuple[TransferSyntaxUID, ...]]]


class NothingTaken:
    """The way to a peer that accepted none of the offered contexts: no instance passes."""

    last_status = None

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """Nothing is accepted."""
        return ()

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Callable[[], Payload | None] | None = None,
    ) -> SendOutcome:
        """Every Data Set fails."""
        return SendOutcome.FAILURE

    def close(self) -> None:
        """Nothing is ever opened ahead."""

    def abort(self) -> None:
        """Nothing is under way."""


class StoreSCU:
    """Opens ways to peers; implements ``pacs.core.sending_ports.Sender``."""

    def __init__(self, *, ae_title: str, bounds: settings.Association) -> None:
        self._ae_title = ae_title
        self._bounds = bounds

    def open(self, peer: Peer, offers: Offers) -> AbstractContextManager[Delivery]:
        """Associate with ``peer``, one presentation context per offer, at most 128.

        A rejection, too, raises ``PeerUnreachable``: nothing can be sent.
        """
        return self._open(peer, offers)

    @contextmanager
    def _open(self, peer: Peer, offers: Offers) -> Iterator[Delivery]:
        proposals = [
            Proposal(sop_class_uid=sop_class, transfer_syntax_uids=syntaxes)
            for sop_class, syntaxes in offers
        ]
        opening = associate(peer, proposals, ae_title=self._ae_title, bounds=self._bounds)
        with ExitStack() as opened:
            delivery: Delivery
            try:
                delivery = opened.enter_context(opening).delivery()
            except NothingAccepted:
                delivery = NothingTaken()
            except PeerRefused as failure:
                raise PeerUnreachable(str(failure)) from failure
            yield delivery


class SentAs(enum.Enum):
    """What became of one file."""

    SENT = "sent"
    WARNING = "sent, with a warning"
    REFUSED = "refused by the peer"
    UNSUPPORTED = "not supported by the peer"
    UNCONVERTED = "could not be converted for the peer"
    LOST = "lost with the association"
    UNREADABLE = "cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutcome:
    """One file's fate; ``status`` is the peer's, where it gave one."""

    payload: Payload
    sent_as: SentAs
    status: int | None = None


def send_files(
    peer: Peer,
    payloads: Iterable[Payload],
    *,
    ae_title: str,
    bounds: settings.Association,
    transcoder: Transcoder | None = None,
) -> Iterator[FileOutcome]:
    """Send each file and yield what became of it, as soon as that is known.

    An association that breaks costs the file it broke at; the rest goes over
    a new one. Raises ``PeerUnreachable`` or ``PeerRefused`` when an
    association cannot be opened; files without an outcome were not sent.
    """
    for batch in batches(payloads):
        waiting = list(reversed(batch))
        while waiting:
            opening = associate(peer, _proposals(batch), ae_title=ae_title, bounds=bounds)
            try:
                with opening as requested:
                    yield from _send_waiting(requested, waiting, transcoder)
            except NothingAccepted:
                while waiting:
                    yield FileOutcome(payload=waiting.pop(), sent_as=SentAs.UNSUPPORTED)


def batches(payloads: Iterable[Payload]) -> list[list[Payload]]:
    """Group files into associations of at most 128 presentation contexts, class by class."""
    ordered = sorted(payloads, key=lambda one: (one.sop_class_uid, one.transfer_syntax_uid))
    found: list[list[Payload]] = []
    taken: set[tuple[str, str]] = set()
    for payload in ordered:
        wanted = _contexts_for(payload)
        if not found or len(taken | set(wanted)) > MAX_CONTEXTS:
            found.append([])
            taken = set()
        taken.update(wanted)
        found[-1].append(payload)
    return found


def _contexts_for(payload: Payload) -> list[tuple[str, str]]:
    """The stored syntax in a context of its own, and the two every archive can convert to."""
    syntaxes = (payload.transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    return [(payload.sop_class_uid, syntax) for syntax in dict.fromkeys(syntaxes)]


def _proposals(batch: Sequence[Payload]) -> list[Proposal]:
    contexts = dict.fromkeys(context for one in batch for context in _contexts_for(one))
    return [
        Proposal(sop_class_uid=sop_class, transfer_syntax_uids=(syntax,))
        for sop_class, syntax in contexts
    ]


def _send_waiting(
    requested: Requested, waiting: list[Payload], transcoder: Transcoder | None
) -> Iterator[FileOutcome]:
    """Send from the end of ``waiting`` until it is empty or the association breaks."""
    while waiting:
        payload = waiting.pop()
        try:
            outcome = _send_one(requested, payload, transcoder, waiting)
        except PeerUnreachable:
            yield FileOutcome(payload=payload, sent_as=SentAs.LOST)
            return
        yield outcome


def _send_one(
    requested: Requested,
    payload: Payload,
    transcoder: Transcoder | None,
    waiting: Sequence[Payload],
) -> FileOutcome:
    accepted = requested.accepted(payload.sop_class_uid)
    source = payload.transfer_syntax_uid
    try:
        if source in accepted:
            status = requested.store(payload, following=lambda: waiting[-1] if waiting else None)
            return _outcome(payload, status)
        targets = [one for one in accepted if transcoder and transcoder.convertible(source, one)]
        if transcoder is None or not targets:
            return FileOutcome(payload=payload, sent_as=SentAs.UNSUPPORTED)
        with transcoder.convert(payload.path, payload.offset, source, targets[0]) as path:
            converted = Payload(
                sop_class_uid=payload.sop_class_uid,
                sop_instance_uid=payload.sop_instance_uid,
                transfer_syntax_uid=targets[0],
                path=path,
                offset=0,
            )
            return _outcome(payload, requested.store(converted))
    except TranscodingFailed:
        return FileOutcome(payload=payload, sent_as=SentAs.UNCONVERTED)
    except InstanceNotFound:
        return FileOutcome(payload=payload, sent_as=SentAs.UNREADABLE)


def _outcome(payload: Payload, status: int) -> FileOutcome:
    if status == SUCCESS:
        sent_as = SentAs.SENT
    else:
        sent_as = SentAs.WARNING if status in WARNINGS else SentAs.REFUSED
    return FileOutcome(payload=payload, sent_as=sent_as, status=status)
