"""Objects that belong to no patient and so have no study and series of their own.

Source: PS3.4 Annex GG, Non-Patient Object Storage Service Class, Table GG.3-1.
The index has four levels all the same: such an object is found in a synthetic
study and series, made from its own identifiers. They stand in the index only,
never in what is stored or delivered.
"""

import uuid
from typing import Final

NON_PATIENT_SOP_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol Storage
        "1.2.840.10008.5.1.4.39.1",  # Color Palette Storage
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template Storage
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template Storage
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group Storage
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval Storage
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol Storage
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory Storage
    }
)


def synthetic_uid(role: str, sop_class_uid: str, sop_instance_uid: str) -> str:
    """Derive the UID (PS3.5 Section B.2) of the synthetic study or series ``role`` names.

    Examples
    --------
    >>> synthetic_uid("study", "1.2.840.10008.5.1.4.38.1", "1.2.3")[:5]
    '2.25.'
    """
    name = f"{role}\\{sop_class_uid}\\{sop_instance_uid}"
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"
