"""Common statuses and the way from an error to its number. PS3.7 Annex C.

Owns the numbers every service class shares. A service class's own stand beside
its handlers and are looked up first.
"""

from collections.abc import Mapping
from typing import Final

from pacs.core import errors
from scp.service_class import ServiceClass

SUCCESS: Final = 0x0000
CANCEL: Final = 0xFE00
PENDING: Final = 0xFF00
PENDING_WARNING: Final = 0xFF01
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_SOP_CLASS: Final = 0x0118
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
NOT_AUTHORIZED: Final = 0x0124
UNRECOGNIZED_OPERATION: Final = 0x0211

COMMON: Final[Mapping[int, str]] = {  # PS3.7 Annex C, section by section
    0x0000: "Success",  # C.1.1
    0xFF00: "Pending",  # C.2
    0xFE00: "Cancel",  # C.3.1
    0x0001: "Warning",  # C.4
    0x0107: "Attribute list error",  # C.4.2
    0x0116: "Attribute value out of range",  # C.4.3
    0x0122: "SOP Class not supported",  # C.5.6
    0x0119: "Class-instance conflict",  # C.5.7
    0x0111: "Duplicate SOP Instance",  # C.5.8
    0x0210: "Duplicate invocation",  # C.5.9
    0x0115: "Invalid argument value",  # C.5.10
    0x0106: "Invalid attribute value",  # C.5.11
    0x0117: "Invalid SOP Instance",  # C.5.12
    0x0120: "Missing attribute",  # C.5.13
    0x0121: "Missing attribute value",  # C.5.14
    0x0212: "Mistyped argument",  # C.5.15
    0x0114: "No such argument",  # C.5.16
    0x0105: "No such attribute",  # C.5.17
    0x0113: "No such event type",  # C.5.18
    0x0112: "No such SOP Instance",  # C.5.19
    0x0118: "No such SOP Class",  # C.5.20
    0x0110: "Processing failure",  # C.5.21
    0x0213: "Resource limitation",  # C.5.22
    0x0211: "Unrecognized operation",  # C.5.23
    0x0123: "No such action type",  # C.5.24
    0x0124: "Refused: not authorized",  # C.5.25
}

STATUSES: Final[Mapping[type[errors.PacsError], int]] = {
    errors.NotAuthorized: NOT_AUTHORIZED,
    errors.OperationUnsupported: UNRECOGNIZED_OPERATION,
}
"""What an error means where its service class says nothing of its own."""


def status_of(error: errors.PacsError, service_class: ServiceClass) -> int:
    """Translate an error: nearest class first, the service class's table before the common one."""
    for table in (service_class.statuses, STATUSES):
        for kind in type(error).__mro__:
            if kind in table:
                return table[kind]
    return PROCESSING_FAILURE


def category(status: int) -> str:
    """Name the category of a status. Source: PS3.7 Annex C, and the ranges of PS3.4."""
    if status == SUCCESS:
        return "success"
    if status in (PENDING, PENDING_WARNING):
        return "pending"
    if status == CANCEL:
        return "cancel"
    if status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB:
        return "warning"
    return "failure"
