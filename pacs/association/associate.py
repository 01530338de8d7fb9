"""A-ASSOCIATE PDUs of peers decoded. PS3.8 Sections 9.3.2 to 9.3.4.

Owns what is tolerated in them before pynetdicom reads them, and what is
refused afterwards. Refuses to decide who may associate.
"""

import logging
from dataclasses import dataclass
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from pacs.association.pdu import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    INVALID_PARAMETER,
    PduRefused,
    readable_titles,
    without_unknown_items,
)

LOGGER = logging.getLogger("pacs.association")

DECODERS: Final[dict[int, type[A_ASSOCIATE_RQ | A_ASSOCIATE_AC | A_ASSOCIATE_RJ]]] = {
    ASSOCIATE_RQ: A_ASSOCIATE_RQ,
    ASSOCIATE_AC: A_ASSOCIATE_AC,
    ASSOCIATE_RJ: A_ASSOCIATE_RJ,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Associate:
    """One A-ASSOCIATE PDU; ``titles`` are called and calling as written, padding aside."""

    primitive: A_ASSOCIATE
    titles: tuple[str, str] = ("", "")
    version_supported: bool = True


def decode_associate(encoded: bytes) -> Associate:
    """Decode an A-ASSOCIATE PDU. Raises ``PduRefused``."""
    decoded, titles = DECODERS[encoded[0]](), ("", "")
    try:
        if encoded[0] != ASSOCIATE_RJ:
            titles, encoded = readable_titles(encoded)
        decoded.decode(without_unknown_items(encoded))
        primitive: A_ASSOCIATE = decoded.to_primitive()
        ids = [one.context_id for one in primitive.presentation_context_definition_list]
        if len(set(ids)) < len(ids):  # nobody would know in which syntax a Data Set comes
            raise ValueError("two presentation contexts have the same id")
    except Exception as failure:  # noqa: BLE001 - pynetdicom raises whatever the bytes provoke
        LOGGER.info("pdu-undecodable kind=%s", type(failure).__name__)
        raise PduRefused(INVALID_PARAMETER) from None
    version = decoded.protocol_version & 1 if isinstance(decoded, A_ASSOCIATE_RQ) else 1
    return Associate(primitive=primitive, titles=titles, version_supported=bool(version))
