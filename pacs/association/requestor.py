"""Opening and closing associations with peers, as requestor. PS3.8 Section 7, PS3.7 Annex D.

Owns the proposal, the connection's options and the end of the association on
every path. It refuses to know what is asked on it (``requested``) and which
transfer syntaxes are worth proposing (``scu``).
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext

from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation, AssociationSocket

from config import settings
from pacs.association.entity import ours
from pacs.association.landing import LandingProvider
from pacs.association.requested import Requested
from pacs.core.errors import PacsError, PeerRefused, PeerUnreachable
from pacs.core.records import Peer

MAX_CONTEXTS = 128
"""Presentation context ids are the odd numbers from 1 to 255 (PS3.8 Table 9-13)."""

_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
# Identifiers and command sets hold patient data; pynetdicom would log them.

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
    """One presentation context. ``scp_role`` offers to take C-STOREs of this class (C-GET)."""

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]
    scp_role: bool = False


class _Entity(AE):
    """pynetdicom's AE, keeping the socket: a connection that failed is left open there."""

    connection: socket.socket | None = None

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[SSLContext, str] | None,
    ) -> AssociationSocket:
        transport = super()._create_socket(assoc, address, tls_args)
        self.connection = transport.socket
        return transport

    def close(self) -> None:
        """Close the socket, open or not."""
        if self.connection is not None:
            self.connection.close()


class _Connection:
    """What pynetdicom's notifications tell while an association is being opened."""

    def __init__(self, bounds: settings.Association) -> None:
        self.connected = False
        self._bounds = bounds

    def opened(self, event: evt.Event) -> None:
        """Set the socket's options: small messages leave at once, no read or write waits for ever."""
        self.connected = True
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(self._bounds.network_timeout_s)

    def established(self, event: evt.Event) -> None:
        """Keep pynetdicom's reactor from ever reading a message that is ours.

        It is held before its thread starts and let go only when the
        association ends; pausing it for each request, as pynetdicom does,
        leaves an instant in which it can take the response.
        """
        event.assoc._reactor_checkpoint.clear()
        event.assoc.dimse = LandingProvider(
            event.assoc,
            max_queued_messages=self._bounds.max_queued_messages,
            max_message_bytes=self._bounds.max_identifier_bytes + self._bounds.max_command_bytes,
        )


@contextmanager
def associate(
    peer: Peer,
    proposals: Sequence[Proposal],
    *,
    ae_title: str,
    bounds: settings.Association,
) -> Iterator[Requested]:
    """Open an association with ``peer``; it is released at the end of the block.

    It is aborted instead where the block raises or leaves a response
    outstanding. Raises ``PeerUnreachable`` where no association service
    answers, ``PeerRefused`` where it says no, ``NothingAccepted`` where it
    accepted none of the ``proposals``.
    """
    if not 1 <= len(proposals) <= MAX_CONTEXTS:
        raise ValueError(f"1 to {MAX_CONTEXTS} presentation contexts, not {len(proposals)}")
    entity = _entity(ae_title, bounds)
    try:
        association = _request(entity, peer, proposals, bounds)
    except PacsError:
        entity.close()
        raise
    provider = association.dimse
    if not isinstance(provider, LandingProvider):
        raise PeerUnreachable(f"{_named(peer)} ended the association at once")
    requested = Requested(association, provider, bounds)
    completed = False
    try:
        yield requested
        completed = not requested.in_the_middle
    finally:
        provider.msg_queue.unbind()
        _end(association, release=completed, timeout_s=bounds.artim_timeout_s)
        provider.abandon()
        entity.close()


def _entity(ae_title: str, bounds: settings.Association) -> _Entity:
    entity = ours(_Entity(ae_title=ae_title))
    entity.acse_timeout = bounds.artim_timeout_s
    entity.dimse_timeout = bounds.dimse_timeout_s
    entity.connection_timeout = bounds.connect_timeout_s
    # Silence of ours between two requests is no fault; silence of the peer is
    # bounded by the DIMSE timeout and by the socket's own.
    entity.network_timeout = None
    return entity


def _request(
    entity: _Entity, peer: Peer, proposals: Sequence[Proposal], bounds: settings.Association
) -> Association:
    """Connect and negotiate. Raises as ``associate``."""
    connection = _Connection(bounds)
    roles = {one.sop_class_uid for one in proposals if one.scp_role}
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            contexts=[
                build_context(one.sop_class_uid, list(one.transfer_syntax_uids))
                for one in proposals
            ],
            ae_title=peer.ae_title,
            max_pdu=bounds.max_pdu_bytes,
            ext_neg=[build_role(uid, scp_role=True) for uid in sorted(roles)],
            evt_handlers=[
                (evt.EVT_CONN_OPEN, connection.opened),
                (evt.EVT_ESTABLISHED, connection.established),
            ],
        )
    except socket.gaierror as failure:
        raise PeerUnreachable(
            f"{_named(peer)}: the host name cannot be resolved ({failure.strerror})"
        ) from failure
    if not association.is_established:
        raise _refusal(association, peer, connected=connection.connected)
    return association


def _refusal(
    association: Association, peer: Peer, *, connected: bool
) -> PeerUnreachable | PeerRefused:
    """Say in words why there is no association."""
    answer = _answer(association)
    if not connected:
        return PeerUnreachable(f"{_named(peer)}: no connection could be made")
    if answer is not None and answer.result in REJECTED:
        source = SOURCES.get(answer.result_source or 0, "the peer")
        reason = REASONS.get((answer.result_source or 0, answer.diagnostic or 0), "no reason given")
        how = REJECTED[answer.result]
        return PeerRefused(f"{_named(peer)}: rejected {how} by {source}: {reason}")
    if answer is not None and answer.result == 0 and not association.accepted_contexts:
        return NothingAccepted(f"{_named(peer)}: none of the presentation contexts was accepted")
    return PeerUnreachable(f"{_named(peer)}: connected, but no association was made")


def _answer(association: Association) -> A_ASSOCIATE | None:
    """Give the peer's A-ASSOCIATE response, if there was one.

    Where a rejection arrives before pynetdicom looks whether it is connected,
    it takes the closed connection for one that never was and leaves the
    rejection unread.
    """
    answer = association.acceptor.primitive or association.dul.peek_next_pdu()
    return answer if isinstance(answer, A_ASSOCIATE) else None


def _end(association: Association, *, release: bool, timeout_s: float) -> None:
    """Release or abort, and see the association's threads end."""
    if release and association.dul.peek_next_pdu() is None:
        association.release()
    elif association.dul.peek_next_pdu() is None:
        association.abort()
    # Whatever the peer did first (abort, release, loss) pynetdicom's reactor finishes.
    association._reactor_checkpoint.set()
    association.join(timeout_s)


def _named(peer: Peer) -> str:
    return f"{peer.ae_title} at {peer.host}:{peer.port}"
