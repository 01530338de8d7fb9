"""Opening and closing associations with peers, as requestor. PS3.8 Section 7, PS3.7 Annex D.

Owns the proposal, the connection's options and the end of the association on
every path. It refuses to know what is asked on it (``requested``) and which
transfer syntaxes are worth proposing (``scu``).
"""

import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from config import settings
from pacs.association.acceptance import max_length, ourselves, role_item, roles_of
from pacs.association.admission import APPLICATION_CONTEXT
from pacs.association.answering import Landings, OnRequest
from pacs.association.connection import Connection
from pacs.association.exchange import Exchange
from pacs.association.negotiation import ACCEPTED, Agreed, Roles
from pacs.association.overrides import silence
from pacs.association.rate import RATES
from pacs.association.requested import Requested
from pacs.association.tls import CALLS
from pacs.association.upper_layer import AWAITING_ANSWER, UpperLayer
from pacs.core.errors import PeerRefused, PeerUnreachable, SettingsInvalid
from pacs.core.records import Peer

LOGGER = logging.getLogger("pacs.association")

MAX_CONTEXTS = 128
"""Presentation context ids are the odd numbers from 1 to 255 (PS3.8 Table 9-13)."""

REJECTED = {1: "permanently", 2: "for now"}  # PS3.8 Table 9-21, Result
SOURCES = {  # PS3.8 Table 9-21, Source
    1: "the peer's application",
    2: "the peer's association service",
    3: "the peer's presentation service",
}
REASONS = {  # PS3.8 Table 9-21, (Source, Reason/Diag.)
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class NothingAccepted(PeerRefused):
    """The peer took the association, and none of the proposed presentation contexts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One presentation context.

    ``scp_role`` asks to be the SCP of this class although we are the requestor:
    to take its C-STOREs (C-GET), or to report its events.
    """

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]
    scp_role: bool = False


@contextmanager
def associate(
    peer: Peer,
    proposals: Sequence[Proposal],
    *,
    ae_title: str,
    bounds: settings.Association,
    on_request: OnRequest | None = None,
) -> Iterator[Requested]:
    """Open an association with ``peer``; it is released at the end of the block.

    It is aborted instead where the block raises or leaves a response
    outstanding; a release the peer asked for is answered. ``on_request``
    answers what the peer asks while we wait; without it nothing of that is
    supported, and the association goes on. A peer entered with TLS is
    called as ``CALLS`` says. Raises ``PeerUnreachable`` where no association service
    answers, ``PeerRefused`` where it says no, ``NothingAccepted`` where it
    accepted none of the ``proposals``.
    """
    if not 1 <= len(proposals) <= MAX_CONTEXTS:
        raise ValueError(f"1 to {MAX_CONTEXTS} presentation contexts, not {len(proposals)}")
    silence()
    connection = _connected(peer, bounds)
    upper_layer = UpperLayer(connection, requestor=True, bounds=bounds)
    try:
        request = _proposed(peer, proposals, ae_title, bounds)
        answer = _associated(upper_layer, request, bounds.artim_timeout_s)
        if answer is None:
            why = f"TLS: {connection.cause}" if connection.cause else "no association was made"
            raise PeerUnreachable(f"{_named(peer)}: connected, but {why}")
        _require_accepted(peer, answer)
        landings = Landings()
        exchange = Exchange(
            upper_layer,
            _contexts(peer, proposals, answer),
            bounds=bounds,
            begin_store=landings,
            peer_max_bytes=max_length(answer),
        )
        requested = Requested(
            exchange,
            landings=landings,
            on_request=on_request,
            identifier_bytes=bounds.max_identifier_bytes,
            rate=RATES.of(peer),
        )
        try:
            yield requested
            if not requested.in_the_middle:
                _release(upper_layer, requested)
        finally:
            requested.close()
            exchange.close()
    finally:
        _end(upper_layer)


def _connected(peer: Peer, bounds: settings.Association) -> Connection:
    """Connect, encrypted where the peer is entered so. Raises ``PeerUnreachable``."""
    if not peer.tls:
        return Connection(_connect(peer, bounds))
    connected = _connect(peer, bounds)
    try:
        connection = CALLS.connect(connected, peer.certificate_fingerprint)
    except SettingsInvalid as error:
        connected.close()
        raise PeerUnreachable(f"{_named(peer)}: {error}") from error
    try:
        connection.secure(bounds.artim_timeout_s)
    except OSError as failure:
        connection.close()
        why = connection.cause or str(failure)
        raise PeerUnreachable(f"{_named(peer)}: TLS: {why}") from failure
    return connection


def _connect(peer: Peer, bounds: settings.Association) -> socket.socket:
    try:
        return socket.create_connection((peer.host, peer.port), timeout=bounds.connect_timeout_s)
    except socket.gaierror as failure:
        raise PeerUnreachable(
            f"{_named(peer)}: the host name cannot be resolved ({failure.strerror})"
        ) from failure
    except OSError as failure:
        raise PeerUnreachable(f"{_named(peer)}: no connection could be made") from failure


def _proposed(
    peer: Peer, proposals: Sequence[Proposal], ae_title: str, bounds: settings.Association
) -> bytes:
    """Encode the A-ASSOCIATE-RQ. PS3.8 Section 9.3.2."""
    request = A_ASSOCIATE()
    request.application_context_name = APPLICATION_CONTEXT
    request.calling_ae_title, request.called_ae_title = ae_title, peer.ae_title
    contexts = []
    for number, one in enumerate(proposals):
        context = build_context(one.sop_class_uid, list(one.transfer_syntax_uids))
        context.context_id = 2 * number + 1
        contexts.append(context)
    request.presentation_context_definition_list = contexts
    turned = sorted({one.sop_class_uid for one in proposals if one.scp_role})
    request.user_information = [
        *ourselves(bounds.max_pdu_bytes),
        *(role_item(uid, Roles(scu=False, scp=True)) for uid in turned),
    ]
    return bytes(A_ASSOCIATE_RQ(request).encode())


def _associated(upper_layer: UpperLayer, request: bytes, timeout_s: float) -> A_ASSOCIATE | None:
    """Ask for the association and give the answer, if there is one."""
    try:
        upper_layer.request(request)
        while upper_layer.state == AWAITING_ANSWER:
            if not upper_layer.receive(timeout_s):
                upper_layer.abort()
    except PeerUnreachable:
        return None
    return upper_layer.associate


def _require_accepted(peer: Peer, answer: A_ASSOCIATE) -> None:
    """Return where the association was accepted. Raises ``PeerRefused``."""
    if answer.result in REJECTED:
        source = SOURCES.get(answer.result_source or 0, "the peer")
        reason = REASONS.get((answer.result_source or 0, answer.diagnostic or 0), "no reason given")
        how = REJECTED[answer.result]
        raise PeerRefused(f"{_named(peer)}: rejected {how} by {source}: {reason}")


def _contexts(
    peer: Peer, proposals: Sequence[Proposal], answer: A_ASSOCIATE
) -> Mapping[int, Agreed]:
    """List what the peer accepted. Without its word on roles they are the usual ones (PS3.7 D.3.3.4)."""
    turned = {uid for uid, roles in roles_of(answer).items() if roles.scp}
    contexts = {}
    for one in answer.presentation_context_definition_results_list:
        place, odd = divmod(int(one.context_id or 0), 2)
        if one.result != ACCEPTED or not odd or place >= len(proposals) or not one.transfer_syntax:
            continue
        proposal = proposals[place]
        as_scp = proposal.scp_role and proposal.sop_class_uid in turned
        contexts[2 * place + 1] = Agreed(
            context_id=2 * place + 1,
            abstract_syntax=proposal.sop_class_uid,
            result=ACCEPTED,
            transfer_syntax=str(one.transfer_syntax[0]),
            as_scp=as_scp,
            as_scu=not as_scp,
        )
    if not contexts:
        raise NothingAccepted(f"{_named(peer)}: none of the presentation contexts was accepted")
    return contexts


def _release(upper_layer: UpperLayer, requested: Requested) -> None:
    """Release, unless the peer was quicker to end the association; that is its right."""
    try:
        if upper_layer.established:
            requested.answer_all()
            upper_layer.release()
    except PeerUnreachable:
        upper_layer.abort()


def _end(upper_layer: UpperLayer) -> None:
    """Leave nothing open, on whatever path: a peer that asked for a release gets its answer."""
    try:
        upper_layer.answer_release()
    except PeerUnreachable as gone:
        LOGGER.debug("release-unanswered why=%s", gone)
    upper_layer.abort()
    upper_layer.linger()


def _named(peer: Peer) -> str:
    return f"{peer.ae_title} at {peer.host}:{peer.port}"
