"""The transfer syntaxes that can be converted, by what a conversion needs of them.

Lists UIDs of PS3.6 Table A-1. Refuses to say which of them a decoder is
installed for: the worker that holds the codecs is asked.
"""

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = frozenset(
    (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED, EXPLICIT_BIG_ENDIAN)
)

_ARC = "1.2.840.10008.1.2.4."
JPEG_LOSSY = frozenset((_ARC + "50", _ARC + "51"))
JPEG_LOSSLESS = frozenset((_ARC + "57", _ARC + "70"))
RLE = "1.2.840.10008.1.2.5"
JPEG_2000 = frozenset(_ARC + last for last in ("90", "91", "201", "202", "203"))
LOSSLESS = frozenset((RLE, *(_ARC + last for last in ("57", "70", "80", "90", "201", "202"))))
"""Compressed syntaxes whose pixels are by definition those that went in."""

LOSSY = JPEG_LOSSY | {_ARC + "81", _ARC + "91", _ARC + "203"}
COMPRESSED = LOSSLESS | LOSSY
