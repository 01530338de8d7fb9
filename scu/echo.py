"""Verification SCU. PS3.4 Annex A.

Asks a peer whether it is there and says what it answered; decides nothing.
"""

from config import settings
from pacs.association.requested import VERIFICATION
from pacs.association.requestor import Proposal, associate
from pacs.core.records import Peer
from scu.models import IMPLICIT_VR_LITTLE_ENDIAN


def echo(peer: Peer, *, ae_title: str, bounds: settings.Association) -> int:
    """Send one C-ECHO on an association of its own and give its Status.

    Raises ``PeerUnreachable`` or ``PeerRefused``.
    """
    proposal = Proposal(
        sop_class_uid=VERIFICATION, transfer_syntax_uids=(IMPLICIT_VR_LITTLE_ENDIAN,)
    )
    with associate(peer, [proposal], ae_title=ae_title, bounds=bounds) as requested:
        return requested.echo()
