"""Verification SCP: C-ECHO. DICOM PS3.4 Annex A, PS3.7 Section 9.1.5.

Answers success to whoever was admitted. It decides nothing.
"""

from collections.abc import Iterator

from pacs.association.message import Offer, Operation, Request, Response
from pacs.core.caller import Right
from scp.service_class import ServiceClass
from scp.status import SUCCESS

SOP_CLASSES = {"1.2.840.10008.1.1": "Verification SOP Class"}
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)


def echo(_request: Request) -> Iterator[Response]:
    """Answer one C-ECHO."""
    yield Response(status=SUCCESS)


def verification() -> ServiceClass:
    """Describe the service class."""
    return ServiceClass(
        name="Verification",
        standard="PS3.4 Annex A",
        offers=(Offer(sop_classes=SOP_CLASSES, transfer_syntaxes=TRANSFER_SYNTAXES),),
        operations={Operation.C_ECHO: echo},
        rights={Operation.C_ECHO: Right.CONNECT},
    )
