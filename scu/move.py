"""Retrieve SCU, C-MOVE. PS3.4 Section C.4.2.

Tells a peer to send to a third AE and passes its responses on; the instances
never come this way.
"""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from config import settings
from pacs.association.requested import RetrieveResponse
from pacs.association.requestor import Proposal, associate
from pacs.core.records import Peer
from scu.models import STUDY_ROOT_MOVE, UNCOMPRESSED


def move(
    peer: Peer,
    identifier: Dataset,
    destination: str,
    *,
    ae_title: str,
    bounds: settings.Association,
    sop_class_uid: str = STUDY_ROOT_MOVE,
) -> Iterator[RetrieveResponse]:
    """Yield each C-MOVE response with its counters; the last one is not pending.

    Raises ``PeerUnreachable`` or ``PeerRefused``.
    """
    proposal = Proposal(sop_class_uid=sop_class_uid, transfer_syntax_uids=UNCOMPRESSED)
    with associate(peer, [proposal], ae_title=ae_title, bounds=bounds) as requested:
        yield from requested.move(sop_class_uid, identifier, destination)
