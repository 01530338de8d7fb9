"""Reporting events on an association of our own, with the SCP's role. PS3.7 Section 10.1.1 and Annex D.3.3.4.

A peer that is not connected is called, and asked by SCP/SCU Role Selection to
stay the SCU although we are the requestor, as PS3.4 Section J.3.3 has it for
Storage Commitment. Decides nothing about what is reported or how often.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from config import settings
from pacs.association.requestor import MAX_CONTEXTS, Proposal, associate
from pacs.core.event_ports import EventDelivery
from pacs.core.identifiers import SOPClassUID
from pacs.core.records import Peer
from scu.models import UNCOMPRESSED


class EventReportSCU:
    """Opens associations to report events; implements ``pacs.core.ports.EventSender``."""

    def __init__(self, *, ae_title: str, bounds: settings.Association) -> None:
        self._ae_title = ae_title
        self._bounds = bounds

    def open(
        self, peer: Peer, context_uids: Sequence[SOPClassUID]
    ) -> AbstractContextManager[EventDelivery]:
        """Associate with ``peer`` and ask for the SCP role. Raises ``PeerUnreachable`` or ``PeerRefused``."""
        return self._open(peer, context_uids)

    @contextmanager
    def _open(self, peer: Peer, context_uids: Sequence[SOPClassUID]) -> Iterator[EventDelivery]:
        proposals = [
            Proposal(sop_class_uid=uid, transfer_syntax_uids=UNCOMPRESSED, scp_role=True)
            for uid in context_uids[:MAX_CONTEXTS]
        ]
        with associate(peer, proposals, ae_title=self._ae_title, bounds=self._bounds) as requested:
            yield requested.reporting()
