"""Taking turns on an established association: P-DATA out with back-pressure, DIMSE messages in.

Owns the answer to "is this association still good?" and what happens when it
is not. Refuses to know which operation is under way. PS3.7 Section 6.3, PS3.8
Section 9.2.

Both sides use it. An acceptor's handler runs in the association's own thread,
so it may read messages directly; a requestor's association must have been
opened by ``pacs.association.requestor``, which keeps pynetdicom's reactor from
reading them first.
"""

import time
from typing import Any, NoReturn

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from pacs.core.errors import PeerUnreachable

LIVENESS_CHECK_S = 0.05
"""How often a wait for room in the outgoing queue looks whether the association still lives."""


def alive(association: Association) -> bool:
    """Tell whether messages can still be exchanged.

    Whatever waits for the ACSE (an abort by either side, a lost connection, a
    release request) ends the exchange, even where pynetdicom's reactor has
    not taken notice yet.
    """
    return bool(
        association.is_established
        and association.dul.is_alive()
        and association.dul.peek_next_pdu() is None
    )


def require_alive(association: Association) -> None:
    """Return when messages can still be exchanged. Raises ``PeerUnreachable``."""
    if not alive(association):
        raise PeerUnreachable("the association has ended")


def give_up(association: Association, reason: str) -> NoReturn:
    """Abort without waiting, and raise ``PeerUnreachable``."""
    association.abort(block=False)
    raise PeerUnreachable(reason)


def push(association: Association, fragment: P_DATA, *, max_queued_pdus: int) -> None:
    """Hand over one P-DATA, waiting while ``max_queued_pdus`` are still to be sent.

    The wait is bounded by the association's DIMSE timeout without progress:
    a peer that no longer reads is cut off.
    """
    outgoing = association.dul.to_provider_queue
    stalled_since, seen = time.monotonic(), -1
    with outgoing.not_full:
        while len(outgoing.queue) >= max_queued_pdus:
            require_alive(association)
            if len(outgoing.queue) != seen:
                stalled_since, seen = time.monotonic(), len(outgoing.queue)
            elif _expired(stalled_since, association.dimse_timeout):
                _cut_off(association)
            outgoing.not_full.wait(LIVENESS_CHECK_S)
    require_alive(association)
    association.dul.send_pdu(fragment)


def receive(association: Association) -> tuple[int, Any]:
    """Wait for the next DIMSE message: its presentation context id and pynetdicom's primitive.

    C-CANCEL never shows here: pynetdicom keeps those aside for the handler.
    Raises ``PeerUnreachable`` when the association ended or the DIMSE timeout
    passed; then the association is aborted.
    """
    context_id, message = association.dimse.get_msg(block=True)
    if message is not None and context_id is not None:
        return context_id, message
    require_alive(association)
    give_up(association, f"no response within {association.dimse_timeout} s")


def _expired(since_s: float, timeout_s: float | None) -> bool:
    return timeout_s is not None and time.monotonic() - since_s > timeout_s


def _cut_off(association: Association) -> NoReturn:
    """End an association whose peer takes no more bytes.

    An A-ABORT could not be written either, so the socket is shut down, which
    also frees the thread that is stuck writing to it.
    """
    transport = association.dul.socket
    if transport is not None:
        transport._shutdown_socket()
    raise PeerUnreachable("the peer stopped reading")
