"""In which transfer syntax a receiver gets an instance, by its policy. PS3.5 Section 10, PS3.4 Annex B.

Owns what is offered beyond the stored syntax and the order in which forms are
tried. What a lossy codec made is never compressed again: it goes as it lies or
decompressed. Refuses to convert anything.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from config.settings import Retrieve as RetrieveSettings
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import PeerEncoding
from pacs.core.sending_ports import Transcoder
from pacs.services.delivery.contexts import FALLBACKS

BIG_ENDIAN: Final = TransferSyntaxUID("1.2.840.10008.1.2.2")
DEFLATED: Final = TransferSyntaxUID("1.2.840.10008.1.2.1.99")
NATIVE: Final = frozenset((*FALLBACKS, BIG_ENDIAN))
LOSSLESS: Final = {  # names of retrieve.compressed_order; PS3.6 Table A-1
    "jpeg-ls": TransferSyntaxUID("1.2.840.10008.1.2.4.80"),
    "jpeg-2000": TransferSyntaxUID("1.2.840.10008.1.2.4.90"),
    "htj2k": TransferSyntaxUID("1.2.840.10008.1.2.4.201"),
    "jpeg-lossless": TransferSyntaxUID("1.2.840.10008.1.2.4.70"),
    "jpeg-lossless-57": TransferSyntaxUID("1.2.840.10008.1.2.4.57"),
    "rle": TransferSyntaxUID("1.2.840.10008.1.2.5"),
}
_RECODABLE: Final = NATIVE | {  # whose samples are by definition those that went in
    DEFLATED,
    TransferSyntaxUID("1.2.840.10008.1.2.4.202"),
    *LOSSLESS.values(),
}
_WITHOUT_PIXELS: Final = tuple(  # PS3.4 Table B.5-1: these families have no Pixel Data
    f"1.2.840.10008.5.1.4.1.1.{family}."
    for family in ("9", "11", "88", "104")  # waveforms, presentation states, SR, documents
)
_TRIES: Final = 3
"""So many failures without one success, and a form is not tried further for that class and source."""

Carried = tuple[SOPClassUID, TransferSyntaxUID, TransferSyntaxUID]
"""Class, stored syntax and the one converted to."""


class Choice:
    """The forms one receiver gets; for one delivery and any number of threads."""

    def __init__(
        self, encoding: PeerEncoding, transcoder: Transcoder, settings: RetrieveSettings
    ) -> None:
        self._encoding = encoding
        self._transcoder = transcoder
        self._order = tuple(LOSSLESS[name] for name in settings.compressed_order)
        self._orders: dict[
            tuple[SOPClassUID, TransferSyntaxUID, tuple[TransferSyntaxUID, ...]],
            tuple[TransferSyntaxUID, ...],
        ] = {}
        self._failures: Counter[Carried] = Counter()
        self._carried: set[Carried] = set()

    def wanted(
        self, sop_class: SOPClassUID, stored: Collection[TransferSyntaxUID]
    ) -> Sequence[TransferSyntaxUID]:
        """Syntaxes worth offering beyond the stored ones and the two every device knows, best first."""
        if self._encoding is not PeerEncoding.COMPRESSED or sop_class.startswith(_WITHOUT_PIXELS):
            return ()
        sources = [one for one in stored if one in _RECODABLE]
        convertible = self._transcoder.convertible
        return [
            target
            for target in self._order
            if any(convertible(source, target) for source in sources)
        ]

    def forms(
        self,
        sop_class: SOPClassUID,
        source: TransferSyntaxUID,
        accepted: tuple[TransferSyntaxUID, ...],
    ) -> Sequence[TransferSyntaxUID]:
        """List the accepted syntaxes in which to try it, best first; ``source`` is as it lies."""
        found = self._orders.get((sop_class, source, accepted))
        if found is None:
            found = self._ordered(source, accepted)
            if sop_class.startswith(_WITHOUT_PIXELS):
                found = tuple(one for one in found if one == source or one not in self._order)
            self._orders[sop_class, source, accepted] = found
        if self._failures:
            hopeful = [one for one in found if not self._is_hopeless((sop_class, source, one))]
            return hopeful or found
        return found

    def tried(self, carried: Carried, *, well: bool) -> None:
        """Remember whether a conversion worked: one that never does is not asked for again and again."""
        if well:
            self._carried.add(carried)
        else:
            self._failures[carried] += 1

    def _is_hopeless(self, carried: Carried) -> bool:
        """Only of forms that are for the better; what a receiver needs is tried for each instance."""
        if carried[2] not in self._order or carried in self._carried:
            return False
        return self._failures[carried] >= _TRIES

    def _ordered(
        self, source: TransferSyntaxUID, accepted: tuple[TransferSyntaxUID, ...]
    ) -> tuple[TransferSyntaxUID, ...]:
        smaller = self._order if source in _RECODABLE else ()
        others = (*FALLBACKS, DEFLATED, BIG_ENDIAN, *smaller)
        preferred: tuple[TransferSyntaxUID, ...]
        if self._encoding is PeerEncoding.COMPRESSED:
            preferred = (*smaller, source) if source in NATIVE else (source, *smaller)
        elif self._encoding is PeerEncoding.UNCOMPRESSED and source not in NATIVE:
            preferred = (*FALLBACKS, source)
        elif source in accepted:
            return (source,)
        else:
            preferred = ()
        return tuple(one for one in dict.fromkeys((*preferred, *others)) if one in accepted)
