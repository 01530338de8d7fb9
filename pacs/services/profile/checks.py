"""Whether a profile makes sense before it is kept: each fault is one clear line.

What an operation takes is for the processor to say.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pacs.core.errors import DestinationUnknown, EntryConflicts
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.processing import Keep, Profile
from pacs.core.records import Peer
from pacs.services.route.checks import Ourselves

MOST_DESTINATIONS: Final = 32
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,15}\Z")
_MOST_DESCRIPTION: Final = 64


def check(profile: Profile, peers: Mapping[AETitle, Peer], ourselves: Ourselves) -> None:
    """Return when a profile can be kept. Raises ``EntryConflicts`` or ``DestinationUnknown``."""
    _check_ae_title(profile.ae_title, peers, ourselves)
    order = profile.order
    _check_destinations(order.destinations, peers, ourselves)
    if order.group and not _GROUP.match(order.group):
        raise EntryConflicts("a group has 1 to 16 letters, digits, dashes and underscores")
    text = order.series_description
    if len(text) > _MOST_DESCRIPTION or not text.isascii() or "\\" in text:
        raise EntryConflicts("a series description has at most 64 ASCII characters, no backslash")
    if text and not text.isprintable():
        raise EntryConflicts("a series description has printable characters only")
    if Keep.UNTIL_DONE in (order.keep_results, profile.keep_sources) and not (
        order.destinations or profile.asker
    ):
        raise EntryConflicts(
            "nothing is done without a destination: until-done needs --to or --to-sender"
        )


def _check_ae_title(ae_title: AETitle, peers: Mapping[AETitle, Peer], ourselves: Ourselves) -> None:
    if not is_ae_title(ae_title) or ae_title != ae_title.strip():
        raise EntryConflicts("an AE title has 1 to 16 printable characters, no backslash")
    if ae_title == ourselves.ae_title.strip():
        raise EntryConflicts(f"{ae_title} is this archive's own AE title: what goes there is held")
    if ae_title in peers:
        raise EntryConflicts(f"{ae_title} is a peer: a profile has an AE title of its own")


def _check_destinations(
    destinations: Sequence[AETitle], peers: Mapping[AETitle, Peer], ourselves: Ourselves
) -> None:
    if len(destinations) > MOST_DESTINATIONS:
        raise EntryConflicts(f"a profile has at most {MOST_DESTINATIONS} destinations")
    if len(set(destinations)) != len(destinations):
        raise EntryConflicts("a destination is named twice")
    for one in destinations:
        peer = peers.get(one)
        if peer is None:
            raise DestinationUnknown(f"no peer is named {one}")
        if ourselves.are(peer):
            raise EntryConflicts(f"{one} is this archive itself: what is made is held here anyway")
