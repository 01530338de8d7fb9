"""Whether a route makes sense before it is kept: each fault is one clear line.

Owns what may be changed on the way out: never a UID, never what says how the
Data Set is to be read, nothing that is no text or number.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from pacs.core.attributes import Level
from pacs.core.errors import DestinationUnknown, EntryConflicts
from pacs.core.identifiers import AETitle, is_ae_title
from pacs.core.records import Peer
from pacs.core.routing import Coercion, CoercionKind, Route
from pacs.services.find.matching import ONE_TEXT
from pacs.services.route.keys import element_of_keyword

LARGEST_PRIORITY: Final = 1_000
MOST_PRIORS: Final = 100
_LONGEST_DAYS: Final = 36_500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_OTHER_STRINGS = frozenset({"AS", "DA", "DS", "DT", "IS", "TM", "UR"})
_WHOLE_NUMBERS: Mapping[str, tuple[int, int]] = {
    "US": (0, 0xFFFF),
    "SS": (-0x8000, 0x7FFF),
    "UL": (0, 0xFFFF_FFFF),
    "SL": (-0x8000_0000, 0x7FFF_FFFF),
    "UV": (0, (1 << 64) - 1),
    "SV": (-(1 << 63), (1 << 63) - 1),
}
_REALS = frozenset({"FL", "FD"})
_SETTABLE = _TEXTS | _OTHER_STRINGS | _WHOLE_NUMBERS.keys() | _REALS
_READS_THE_REST = {
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
}
"""What other values, and the pixels, cannot be read without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """How we are reached, to tell a destination that is ourselves."""

    ae_title: AETitle
    host: str
    port: int

    def are(self, peer: Peer) -> bool:
        """Tell whether that peer is this archive, as far as its address says so."""
        here = {self.host, "localhost", "127.0.0.1", "::1"}
        return peer.port == self.port and peer.host in here


def check(route: Route, peers: Mapping[AETitle, Peer], ourselves: Ourselves) -> None:
    """Return when a route can be kept. Raises ``EntryConflicts`` or ``DestinationUnknown``."""
    if not _NAME.match(route.name):
        raise EntryConflicts(
            "a route's name has 1 to 64 letters, digits, points, dashes and underscores"
        )
    _check_destinations(route.destinations, peers, ourselves)
    if route.level is Level.PATIENT:
        raise EntryConflicts("a route waits for an instance, a series or a study")
    if not all(route.registrants):
        raise EntryConflicts("a registrant has a name")
    if abs(route.priority) > LARGEST_PRIORITY:
        raise EntryConflicts(f"a priority lies between -{LARGEST_PRIORITY} and {LARGEST_PRIORITY}")
    _check_priors(route)
    _check_coercions(route.coercions)


def _check_destinations(
    destinations: Sequence[AETitle], peers: Mapping[AETitle, Peer], ourselves: Ourselves
) -> None:
    if not destinations:
        raise EntryConflicts("a route needs a destination")
    if len(set(destinations)) != len(destinations):
        raise EntryConflicts("a destination is named twice")
    for one in destinations:
        peer = peers.get(one)
        if not is_ae_title(one) or peer is None:
            raise DestinationUnknown(f"no peer is named {one}")
        if ourselves.are(peer):
            raise EntryConflicts(f"{one} is this archive itself: a route leads elsewhere")


def _check_priors(route: Route) -> None:
    if route.priors is None:
        return
    if not 1 <= route.priors.latest <= MOST_PRIORS:
        raise EntryConflicts(f"1 to {MOST_PRIORS} prior studies go along")
    within = route.priors.within_days
    if within is not None and not 1 <= within <= _LONGEST_DAYS:
        raise EntryConflicts(f"prior studies lie within 1 to {_LONGEST_DAYS} days")


# --- coercions -------------------------------------------------------------------------


def _check_coercions(coercions: Sequence[Coercion]) -> None:
    keywords = [one.keyword for one in coercions]
    for one in coercions:
        _check_coercion(one)
        if keywords.count(one.keyword) > 1:
            raise EntryConflicts(f"{one.keyword} is changed in more than one way")


def _check_coercion(coercion: Coercion) -> None:
    keyword = coercion.keyword
    tag, vr = element_of_keyword(keyword)
    if tag >> 16 <= 2:
        raise EntryConflicts(f"{keyword} is no attribute of a Data Set: it cannot be changed")
    if vr == "UI":
        raise EntryConflicts(f"{keyword} is a UID: UIDs are never changed on their way")
    if keyword in _READS_THE_REST:
        raise EntryConflicts(f"{keyword} says how other values are read: it cannot be changed")
    if coercion.kind is not CoercionKind.DELETE:
        _check_given(coercion, vr)


def _check_given(coercion: Coercion, vr: str) -> None:
    keyword, kind = coercion.keyword, coercion.kind
    if vr not in (_TEXTS if kind is CoercionKind.PREFIX else _SETTABLE):
        raise EntryConflicts(f"{keyword} cannot be given a {kind.value}: its values are {vr}")
    if kind is CoercionKind.PREFIX and not coercion.value:
        raise EntryConflicts(f"{keyword}: a prefix has at least one character")
    if kind is CoercionKind.MAP and not coercion.mapping:
        raise EntryConflicts(f"{keyword}: a map has at least one pair OLD=NEW")
    for text in _texts(coercion):
        _check_text(keyword, vr, text)


def _texts(coercion: Coercion) -> Iterator[str]:
    if coercion.kind is CoercionKind.MAP:
        yield from coercion.mapping.values()
    else:
        yield coercion.value


def _check_text(keyword: str, vr: str, text: str) -> None:
    """Refuse a text that its VR does not allow, PS3.5 Section 6.2. Empty is no value."""
    for one in (text,) if vr in ONE_TEXT else text.split("\\"):
        if one and not _is_allowed(vr, one):
            raise EntryConflicts(f"{keyword} cannot be {one!r}: its values are {vr}")


def _is_allowed(vr: str, text: str) -> bool:
    try:
        if vr in _WHOLE_NUMBERS:
            least, most = _WHOLE_NUMBERS[vr]
            return least <= int(text) <= most
        if vr in _REALS:
            return abs(float(text)) < float("inf")
        validate_value(vr, text, RAISE)
    except ValueError:
        return False
    return text.isprintable() or vr in ("LT", "ST", "UT")
