"""Storage SOP Classes by name, as pynetdicom and pydicom know them. PS3.4 Sections B.5 and GG.3."""

from collections.abc import Mapping
from typing import Final

from pydicom.uid import UID
from pynetdicom import sop_class

STORAGE: Final[Mapping[str, str]] = {
    str(uid): UID(uid).name
    for classes in (sop_class._STORAGE_CLASSES, sop_class._NON_PATIENT_OBJECT_CLASSES)
    for uid in classes.values()
}
"""UID to name, of patients' objects and of those that belong to no patient."""
