"""Finds the decoders that plug-ins of pylibjpeg bring, for proofs by a second implementation.

Some of them are not imported by name on purpose (README, Licence), and may be
missing: who asks has to have another way.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from pylibjpeg.utils import get_pixel_data_decoders

Decoder = Callable[..., bytearray]
"""Takes a codestream, ``version=2`` and ``photometric_interpretation``."""


@cache
def decoder(transfer_syntax_uid: str) -> Decoder | None:
    """Give a decoder of this syntax, ``None`` where no plug-in has one."""
    found: Any = get_pixel_data_decoders(version=2).get(transfer_syntax_uid, {})
    chosen: Decoder | None = next(iter(found.values()), None)
    return chosen
