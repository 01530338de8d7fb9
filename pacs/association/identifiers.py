"""Data Sets of messages other than C-STORE: decoded from and encoded to a transfer syntax. PS3.5.

Owns the encoding and the bound on what a deflated one may become. Refuses to
look at what is in them.
"""

import zlib
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from pacs.core.errors import InstanceUnreadable

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"


def decode_identifier(encoded: bytes, transfer_syntax: str, *, most_bytes: int) -> Dataset:
    """Read a Data Set. Raises ``InstanceUnreadable``, also where it inflates past ``most_bytes``."""
    try:
        if transfer_syntax == DEFLATED:
            encoded = _inflated(encoded, most_bytes)
        data_set = read_dataset(
            BytesIO(encoded),
            transfer_syntax == IMPLICIT_LITTLE,
            transfer_syntax != EXPLICIT_BIG,
        )
    except InstanceUnreadable:
        raise
    except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the bytes provoke
        raise InstanceUnreadable(type(failure).__name__) from None
    return data_set


def _inflated(encoded: bytes, most_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(encoded, most_bytes)
    if inflater.unconsumed_tail:
        raise InstanceUnreadable("deflated identifier is too large")
    return inflated


def encode_identifier(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Write a Data Set, of even length. Raises whatever pydicom makes of values that do not fit."""
    stream = DicomBytesIO()
    stream.is_implicit_VR = transfer_syntax == IMPLICIT_LITTLE
    stream.is_little_endian = transfer_syntax != EXPLICIT_BIG
    write_dataset(stream, data_set)
    encoded: bytes = stream.getvalue()
    if transfer_syntax != DEFLATED:
        return encoded
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encoded) + deflater.flush()
    return deflated + b"\0" * (len(deflated) % 2)
