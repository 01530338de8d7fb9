"""Query SCU. PS3.4 Section C.4.1.

Sends an identifier and passes the answers on as they come; it refuses to
complete or check the identifier, which is the caller's.
"""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from config import settings
from pacs.association.requestor import Proposal, associate
from pacs.core.records import Peer
from scu.models import STUDY_ROOT_FIND, UNCOMPRESSED


def find(
    peer: Peer,
    identifier: Dataset,
    *,
    ae_title: str,
    bounds: settings.Association,
    sop_class_uid: str = STUDY_ROOT_FIND,
    cancel_after: int | None = None,
) -> Iterator[tuple[int, Dataset | None]]:
    """Yield the Status and identifier of each C-FIND response; the last one is not pending.

    After ``cancel_after`` matches the query is cancelled (PS3.4 Section
    C.4.1.2.3). Raises ``PeerUnreachable`` or ``PeerRefused``.
    """
    proposal = Proposal(sop_class_uid=sop_class_uid, transfer_syntax_uids=UNCOMPRESSED)
    with associate(peer, [proposal], ae_title=ae_title, bounds=bounds) as requested:
        yield from requested.find(sop_class_uid, identifier, cancel_after=cancel_after)
