"""How a transfer syntax lays out elements, and what to try when the bytes say otherwise.

Source: PS3.5 Annex A. Every encapsulated syntax is explicit little endian
(Section A.4), Deflated Image Frame Compression among them; only the syntaxes
named here deflate the whole Data Set.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Encoding:
    """One of the ways PS3.5 Section 7.1 writes elements."""

    explicit: bool
    little: bool


EXPLICIT_LITTLE: Final = Encoding(explicit=True, little=True)
IMPLICIT_LITTLE: Final = Encoding(explicit=False, little=True)
EXPLICIT_BIG: Final = Encoding(explicit=True, little=False)

_DEFLATED: Final = frozenset(
    {
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian, PS3.5 A.5
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate, PS3.5 A.7
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate, PS3.5 A.7
    }
)
_IMPLICIT: Final = frozenset(
    {
        "1.2.840.10008.1.2",  # Implicit VR Little Endian, PS3.5 A.1
        "1.2.840.113619.5.2",  # private of GE: implicit little endian, pixels big endian
    }
)
_BIG: Final = "1.2.840.10008.1.2.2"  # Explicit VR Big Endian, retired, PS3.5-2016b A.3


def is_deflated(transfer_syntax_uid: str) -> bool:
    """Tell whether the Data Set as a whole is a deflate stream."""
    return transfer_syntax_uid in _DEFLATED


def encodings_of(transfer_syntax_uid: str) -> tuple[Encoding, ...]:
    """List what to try: what the syntax says first, then what senders get wrong."""
    if transfer_syntax_uid in _IMPLICIT:
        return (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
    if transfer_syntax_uid == _BIG:
        return (EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    return (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)
