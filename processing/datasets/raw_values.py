"""Values of a head that are read often and of many images, without making objects of them first.

Owns nothing but the short way: an element that pydicom has not looked at yet is
read from its bytes; any other is taken as it is. PS3.5 Section 6.2.
"""

from collections.abc import Sequence
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_PADDING = b" \0"


def text_of(head: Dataset, tag: int) -> str:
    """Give a value of the default repertoire, a UID or a code, empty where there is none."""
    element = _element(head, tag)
    if element is None or element.value is None:
        return ""
    if isinstance(element, RawDataElement) and element.value is not None:
        return element.value.strip(_PADDING).decode("latin-1")
    return str(element.value)


def numbers_of(head: Dataset, tag: int) -> Sequence[float]:
    """Give the numbers of a decimal string, none where there is none. Raises ``ValueError`` or ``TypeError``."""
    element = _element(head, tag)
    if element is None or not element.value:
        return ()
    if isinstance(element, RawDataElement) and element.VR == "DS":
        return [float(one.strip(_PADDING)) for one in element.value.split(b"\\")]
    value: Any = head[tag].value
    if isinstance(value, (str, int, float)):
        return [float(value)]
    return [float(one) for one in value or ()]


def _element(head: Dataset, tag: int) -> DataElement | RawDataElement | None:
    key = BaseTag(tag)
    return head.get_item(key) if key in head else None
