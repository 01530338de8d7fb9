"""The Data Set of a query as far as it may be told: its keys, without values that could be a patient's.

PS3.15 Table A.5.3.10-1 asks for the query's Data Set. This one has its keys,
empty but for Query/Retrieve Level and Study Instance UID.
"""

from collections.abc import Sequence

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag

_KEPT = frozenset({0x00080052, 0x0020000D})


def query_of(level: str, studies: Sequence[str], keys: Sequence[str]) -> bytes:
    """Encode it in Explicit VR Little Endian; ``keys`` are tags in hexadecimal."""
    query = Dataset()
    if level:
        query.QueryRetrieveLevel = level
    if studies:
        query.StudyInstanceUID = list(studies)
    for key in keys:
        tag = BaseTag(int(key, 16))
        if tag not in _KEPT:
            query.add(DataElement(tag, _vr(tag), None))
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, False
    write_dataset(written, query)
    return bytes(written.getvalue())


def _vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag).split()[0]
    except KeyError:
        return "UN"
