"""What a value of a text VR may be. DICOM PS3.5 Table 6.2-1 and Section 6.4.

Owns the form, the lengths and the padding of values that are written anew.
Refuses to judge values that are there already: they stay as they came.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

_MAX_NAME_GROUPS: Final = 3
_MAX_NAME_COMPONENTS: Final = 5
_MAX_NAME_GROUP_CHARACTERS: Final = 64
_MAX_INTEGER: Final = 2**31

MAX_VALUE_BYTES: Final = 65_534
"""What a 16-bit length holds; a change on the way out needs no more in any VR."""

IN_REPERTOIRE: Final = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])
"""VRs whose values are in the Specific Character Set; all others are ASCII."""

ONE_VALUE: Final = frozenset(["LT", "ST", "UR", "UT"])
"""VRs in which a backslash is a character."""

_FORMS: Final[Mapping[str, str]] = {
    "AE": r"[ -~]{1,16}",
    "AS": r"\d{3}[DWMY]",
    "CS": r"[A-Z0-9 _]{1,16}",
    "DA": r"\d{8}",
    "DS": r"(?=.{1,16}$) *[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)? *",
    "DT": r"(?=.{4,26}$)\d{4}(\d\d(\d\d(\d\d(\d\d(\d\d(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?",
    "IS": r"(?=.{1,12}$) *[+-]?\d+ *",
    "LO": r".{1,64}",
    "LT": r"(?s:.{1,10240})",
    "PN": r".+",
    "SH": r".{1,16}",
    "ST": r"(?s:.{1,1024})",
    "TM": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?|235960(\.\d{1,6})?",
    "UC": r".+",
    "UR": r"[!-~]+",
    "UT": r"(?s:.+)",
}
TEXT_VRS: Final = frozenset(_FORMS)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_OF_TEXTS: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class ValueUnfit(ValueError):
    """The VR does not allow the value."""


def values_of(text: str, vr: str) -> list[str]:
    """Take a text apart into its values."""
    return [text] if vr in ONE_VALUE else text.split("\\")


def bare(value: str, vr: str) -> str:
    """Take off padding: leading spaces are content of the long texts only."""
    value = value.rstrip(" \0")
    return value if vr in ONE_VALUE or vr == "UC" else value.lstrip(" ")


def check(value: str, vr: str) -> None:
    """Raise ``ValueUnfit`` where one value is not in the form of its VR; empty is always."""
    if value == "":
        return
    control = _CONTROL_OF_TEXTS if vr in ("LT", "ST", "UT") else _CONTROL
    if control.search(value):
        raise ValueUnfit(f"a control character in {vr}")
    if re.fullmatch(_FORMS[vr], value) is None:
        raise ValueUnfit(f"a value that is not a {vr}")
    if (further := _FURTHER.get(vr)) is not None:
        further(value)


def check_multiplicity(count: int, multiplicity: str) -> None:
    """Raise ``ValueUnfit`` unless ``count`` keeps a Value Multiplicity of PS3.6, such as ``1``, ``2-n`` or ``3-3n``."""
    for choice in multiplicity.split(" or "):
        least, _, most = choice.partition("-")
        step = int(most[:-1] or 1) if most.endswith("n") else 1
        upper = count if most.endswith("n") else int(most or least)
        if int(least) <= count <= upper and (count - int(least)) % step == 0:
            return
    raise ValueUnfit(f"{count} values where {multiplicity} may be")


def padded(data: bytes) -> bytes:
    """Pad to an even length. PS3.5 Section 6.2: text with a space."""
    return data + b" " * (len(data) % 2)


def _date(value: str) -> None:
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:8]))
    except ValueError as error:
        raise ValueUnfit("a DA that is no day") from error


def _moment(value: str) -> None:
    digits = re.split(r"[.+-]", value)[0]
    _date((digits[:8] + "0101"[len(digits[:8]) - 4 :])[:8])
    if int(digits[8:10] or 0) > 23 or int(digits[10:12] or 0) > 59 or int(digits[12:14] or 0) > 60:
        raise ValueUnfit("a DT that is no time")


def _integer(value: str) -> None:
    if not -_MAX_INTEGER <= int(value) < _MAX_INTEGER:
        raise ValueUnfit("an IS beyond 32 bits")


def _name(value: str) -> None:
    groups = value.split("=")
    if len(groups) > _MAX_NAME_GROUPS:
        raise ValueUnfit("a PN of more than three groups")
    for group in groups:
        if len(group) > _MAX_NAME_GROUP_CHARACTERS or group.count("^") >= _MAX_NAME_COMPONENTS:
            raise ValueUnfit("a group of a PN that is too long")


def _some(value: str) -> None:
    if not value.strip(" "):
        raise ValueUnfit("an AE of spaces only")


_FURTHER: Final[Mapping[str, Callable[[str], None]]] = {
    "AE": _some,
    "DA": _date,
    "DT": _moment,
    "IS": _integer,
    "PN": _name,
}
