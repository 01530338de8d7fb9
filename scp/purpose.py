"""The purpose a request states for itself: a private element of its identifier. PS3.5 Section 7.8.1.

Reads it, once, before the gate is asked; what it grants the gate decides. Only
queries and retrieves have one: every other operation is done for the purpose
the contract names.
"""

from pydicom.dataset import Dataset

from pacs.association.message import Operation, Request
from pacs.services.find.identifiers import stated_purpose

_WITH_PURPOSE = frozenset({Operation.C_FIND, Operation.C_MOVE, Operation.C_GET})


def stated(request: Request) -> str:
    """Give the purpose a request names, empty where it names none. Raises ``IdentifierInvalid``."""
    if request.operation not in _WITH_PURPOSE:
        return ""
    identifier: Dataset | None = request.identifier
    return "" if identifier is None else stated_purpose(identifier)
