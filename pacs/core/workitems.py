"""Unified Procedure Step, its words: SOP Classes, states and well-known instances. PS3.4 Annex CC.

Facts only. What may follow what is decided in ``pacs.services.workitems``.
"""

import enum
from typing import Final, NewType

from pacs.core.identifiers import SOPClassUID, SOPInstanceUID

WorkitemUID = NewType("WorkitemUID", str)
"""SOP Instance UID of a workitem: that of UPS Push, whichever SOP Class it is asked for under (CC.3.1)."""

UPS_PUSH: Final = SOPClassUID("1.2.840.10008.5.1.4.34.6.1")
UPS_WATCH: Final = SOPClassUID("1.2.840.10008.5.1.4.34.6.2")
UPS_PULL: Final = SOPClassUID("1.2.840.10008.5.1.4.34.6.3")
UPS_EVENT: Final = SOPClassUID("1.2.840.10008.5.1.4.34.6.4")
UPS_QUERY: Final = SOPClassUID("1.2.840.10008.5.1.4.34.6.5")

GLOBAL_SUBSCRIPTION: Final = SOPInstanceUID("1.2.840.10008.5.1.4.34.5")
FILTERED_SUBSCRIPTION: Final = SOPInstanceUID("1.2.840.10008.5.1.4.34.5.1")


class WorkitemState(enum.Enum):
    """Procedure Step State (0074,1000). The last two are final. PS3.4 Table CC.1.1-1."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


FINAL_STATES: Final = (WorkitemState.COMPLETED, WorkitemState.CANCELED)
