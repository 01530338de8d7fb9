"""Data Sets of derived images: what is carried over from the source, and what is said anew.

Owns the choice of the SOP Class and every attribute but the pixels. A result
stays in the class of its source where that class can say what it is; otherwise
it is a Secondary Capture. Patient and study stay as they are. Private elements
stay behind: nobody knows whether they would still be true.
PS3.3 Sections C.7.6.1.1.2, C.12.4, C.7.5.2, C.7.6.16.2.6, A.8.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final
from uuid import NAMESPACE_OID, uuid4, uuid5

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from pacs.core.implementation import IMPLEMENTATION_VERSION_NAME
from processing.datasets.derived_tables import (
    CAPTURED,
    ENHANCED,
    LEFT_BEHIND,
    NEEDED,
    OF_PULSE_SEQUENCE,
)
from processing.datasets.raw_values import numbers_of, text_of
from processing.datasets.references import Reference, by_series, code_item, source_item
from processing.datasets.scale import Scale
from processing.operations.operation import Kind, Meaning, NotProcessable, Operation
from processing.operations.parameters import told

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"

_ENHANCED_MR: Final = "1.2.840.10008.5.1.4.1.1.4.1"
_PET = "1.2.840.10008.5.1.4.1.1.128"
_RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_ALWAYS_PRIMARY = ("1.2.840.10008.5.1.4.1.1.20", _PET)
"""Nuclear Medicine and PET, which know no other value 2 of Image Type. PS3.3 C.8.4.9.1.1, C.8.9.4.1.3."""

_SOP_CLASS_UID = 0x0008_0016
_ORIENTATION = 0x0020_0037
_SAME_PLANE = 0.999
"""Cosine of the angle between planes that are one."""
_PLANES = ("SAGITTAL", "CORONAL", "AXIAL")
"""Planes of the patient in Image Type, by the axis they are at right angles to."""

_SERIES_NUMBER_FROM = 9_000
_MAX_DESCRIPTION = 64
_MAX_DERIVATION = 1_024
_MAX_NUMBER = 2**31 - 1

_CAPTURED_GROUPS = (0x0010, 0x0012)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What all results of one request have in common. ``uid_root`` is what their UIDs are made of, if anything."""

    operation: Operation
    parameters: object
    series_instance_uid: str
    series_description: str
    made: datetime
    uid_root: str = ""
    note: str = ""
    """What else a reader has to know of how it was computed."""

    def uid(self, of: str, number: int) -> str:
        """Give the SOP Instance UID of result ``number``: always the same one, where there is a root.

        What takes each image has results by the image they are ``of``. PS3.5 Section B.2.
        """
        if not self.uid_root:
            return f"2.25.{uuid4().int}"
        source = of if self.operation.kind is Kind.IMAGE else ""
        said = "/".join((self.uid_root, self.derivation, source, str(number)))
        return f"2.25.{uuid5(NAMESPACE_OID, said).int}"

    @property
    def derivation(self) -> str:
        """Exactly which processing this was: name, version and every parameter."""
        values = " ".join(f"{name}={value}" for name, value in told(self.parameters))
        said = f"{self.operation.name} {self.operation.version}: {values}".removesuffix(": ")
        return f"{said}, {self.note}" if self.note else said


def require_images(heads: Iterable[Dataset]) -> None:
    """Refuse what has pixels and is no image all the same. Raises ``NotProcessable``."""
    if any(text_of(one, _SOP_CLASS_UID) == _RT_DOSE for one in heads):
        raise NotProcessable(
            "an RT Dose states the dose of a plan, not an image of it: a processed one would be false"
        )


def begun(head: Dataset, *, as_capture: bool) -> Dataset:
    """Give what is carried over into a result. Its elements are its own: to change them changes no source."""
    derived = _captured(head) if as_capture else _carried(head)
    derived.set_original_encoding(False, True, head.original_character_set)
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in derived:  # what is changed in them is not changed in the source's
            derived[name] = deepcopy(head[name])
    acquired = OF_PULSE_SEQUENCE if derived.get("SOPClassUID") == _ENHANCED_MR else ()
    for keyword in (*LEFT_BEHIND, *acquired):
        if keyword in derived:
            delattr(derived, keyword)
    return derived


def without(derived: Dataset, keywords: Sequence[str]) -> None:
    """Take away what was said of what is no longer there."""
    for keyword in keywords:
        if keyword in derived:
            delattr(derived, keyword)


def labelled(
    derived: Dataset,
    head: Dataset,
    label: Label,
    references: Sequence[Reference],
    *,
    number: int,
    remark: str = "",
) -> None:
    """Say who made the result, when, how and of what; give it UIDs of its own.

    ``remark`` says what else was done to its values, of which no attribute speaks.
    """
    derived.SOPInstanceUID = label.uid(str(head.SOPInstanceUID), number)
    derived.SeriesInstanceUID = label.series_instance_uid
    derived.SeriesDescription = label.series_description or _description(head, label)
    derived.SeriesNumber = _series_number(head)
    derived.InstanceNumber = min(max(number, 0), _MAX_NUMBER)
    made = label.made.astimezone(_zone(head))
    day, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    for which in ("Series", "Content", "InstanceCreation"):
        setattr(derived, f"{which}Date", day)
        setattr(derived, f"{which}Time", time)
    said = "; ".join(filter(None, (label.derivation, remark)))
    before = str(head.get("DerivationDescription") or "")
    if before and len(before) + len(said) + 2 <= _MAX_DERIVATION:
        said = f"{before}; {said}"
    derived.DerivationDescription = said
    _add_equipment(derived, label)
    _image_type(derived, head, label)
    if "SharedFunctionalGroupsSequence" in derived:
        _sources_of_frames(derived, label, references)
    else:
        codes = [*(derived.get("DerivationCodeSequence") or ()), *_derivation_codes(label)]
        if codes:
            derived.DerivationCodeSequence = Items(codes)


def warned(derived: Dataset, heads: Sequence[Dataset]) -> None:
    """Carry over of all sources that one of them was compressed with loss, or is annotated or recognizable."""
    for keyword, tag, flag in (
        ("LossyImageCompression", 0x0028_2110, "01"),
        ("BurnedInAnnotation", 0x0028_0301, "YES"),
        ("RecognizableVisualFeatures", 0x0028_0302, "YES"),
    ):
        if any(text_of(one, tag) == flag for one in heads):
            setattr(derived, keyword, flag)
    if derived.get("LossyImageCompression") == "01" and "LossyImageCompressionRatio" not in derived:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            for one in heads:
                if one.get(keyword) is not None:
                    setattr(derived, keyword, one.get(keyword))
                    break


def _carried(head: Dataset) -> Dataset:
    return Dataset(
        {
            tag: copy(head.get_item(tag))
            for tag in head.keys()  # noqa: SIM118 - iterating a Dataset would decode every value
            if not tag.is_private and not _is_stale(head, tag)
        }
    )


def _is_stale(head: Dataset, tag: int) -> bool:
    """Curves, and overlays that lay within the pixels, are not there any more. PS3.3 Section C.9.2."""
    group = tag >> 16
    if group & 0xFF00 == 0x6000:
        return Tag(group, 0x3000) not in head
    return group & 0xFF00 == 0x5000


def _captured(head: Dataset) -> Dataset:
    wanted = {int(Tag(keyword)) for keyword in CAPTURED}
    derived = Dataset(
        {
            tag: copy(head.get_item(tag))
            for tag in head.keys()  # noqa: SIM118 - iterating a Dataset would decode every value
            if tag in wanted or tag >> 16 in _CAPTURED_GROUPS
        }
    )
    derived.SOPClassUID = SECONDARY_CAPTURE
    derived.ConversionType = "WSD"
    derived.Manufacturer = IMPLEMENTATION_VERSION_NAME
    for keyword in NEEDED:
        if keyword not in derived:
            setattr(derived, keyword, None)
    if not any(one in derived for one in ("ImageLaterality", "Laterality", "BodyPartExamined")):
        derived.Laterality = None  # unknown; where a body part is named, it may have none
    return derived


def _zone(head: Dataset) -> timezone | None:
    """The zone that times of the source are in, ``None`` for that of this machine. PS3.3 Section C.12.1.1.8."""
    offset = str(head.get("TimezoneOffsetFromUTC") or "")
    try:
        zone = datetime.strptime(offset, "%z").tzinfo
    except ValueError:
        return None
    return zone if isinstance(zone, timezone) else None


def _description(head: Dataset, label: Label) -> str:
    before = str(head.get("SeriesDescription") or "")
    return f"{label.operation.name} {before}".strip()[:_MAX_DESCRIPTION]


def _series_number(head: Dataset) -> int | None:
    try:
        number = int(str(head.get("SeriesNumber")))
    except ValueError:
        return None
    return number + _SERIES_NUMBER_FROM if 0 <= number < _MAX_NUMBER - _SERIES_NUMBER_FROM else None


def _image_type(derived: Dataset, head: Dataset, label: Label) -> None:
    """DERIVED; SECONDARY, which some classes do not know; what it was of; and its contrast.

    A plane that it names is that of the result. PS3.3 Section C.8.2.1.1.1.
    """
    framed = "SharedFunctionalGroupsSequence" in derived
    enhanced = framed or derived.SOPClassUID in ENHANCED
    second = "PRIMARY" if enhanced or derived.SOPClassUID in _ALWAYS_PRIMARY else "SECONDARY"
    rest = _values(derived, "ImageType")[2:]
    if rest and rest[0] in (*_PLANES, "OBLIQUE"):
        rest[0] = _plane(derived, head) or rest[0]
    if enhanced or derived.SOPClassUID in (CT, MR, SECONDARY_CAPTURE):
        rest = [*(rest[:1] or ["OTHER"]), label.operation.contrast]
    derived.ImageType = ["DERIVED", second, *rest]
    for group in _groups(derived):
        for element in group:
            if element.VR == "SQ" and element.value and "FrameType" in element.value[0]:
                frame_type = _values(element.value[0], "FrameType")
                element.value[0].FrameType = ["DERIVED", second, *frame_type[2:3], rest[-1]]


def _plane(derived: Dataset, head: Dataset) -> str:
    """Name the plane of the patient that an image lies in, empty where it is that of its source.

    Of a CT image AXIAL alone is known.
    """
    now, before = (numbers_of(one, _ORIENTATION) for one in (derived, head))
    if len(now) != 6 or len(before) != 6:
        return ""
    normal, old = (np.cross(one[:3], one[3:]) for one in (now, before))
    if abs(float(normal @ old)) >= _SAME_PLANE:
        return ""
    along = [name for name, one in zip(_PLANES, normal, strict=True) if abs(one) >= _SAME_PLANE]
    name = along[0] if along else "OBLIQUE"
    return "OTHER" if derived.SOPClassUID == CT and name != "AXIAL" else name


def _groups(derived: Dataset) -> Iterator[Dataset]:
    yield from derived.get("SharedFunctionalGroupsSequence") or ()
    yield from derived.get("PerFrameFunctionalGroupsSequence") or ()


def _values(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    return [value] if isinstance(value, str) else [str(one) for one in value or ()]


def _add_equipment(derived: Dataset, label: Label) -> None:
    """Say which equipment did it. PS3.3 Section C.12.1, Contributing Equipment Sequence."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Items([code_item("109102", "Processing Equipment")])
    item.Manufacturer = IMPLEMENTATION_VERSION_NAME
    item.ManufacturerModelName = label.operation.name
    item.SoftwareVersions = label.operation.version
    item.ContributionDateTime = label.made.strftime("%Y%m%d%H%M%S+0000")
    item.ContributionDescription = label.derivation[:_MAX_DERIVATION]
    before = derived.get("ContributingEquipmentSequence") or ()
    derived.ContributingEquipmentSequence = Items([*before, item])


def _derivation_codes(label: Label) -> list[Dataset]:
    code = label.operation.code
    return [] if code is None else [code_item(code.value, code.meaning)]


def _sources_of_frames(derived: Dataset, label: Label, references: Sequence[Reference]) -> None:
    """Say it where enhanced images do: frame n was made of frame n. PS3.3 Section C.7.6.16.2.6."""
    item = Dataset()
    item.DerivationDescription = derived.DerivationDescription
    item.DerivationCodeSequence = Items(_derivation_codes(label))
    item.SourceImageSequence = Items([source_item(one) for one in references])
    for group in _groups(derived):
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    derived.SharedFunctionalGroupsSequence[0].DerivationImageSequence = Items([item])
    for keyword in ("DerivationDescription", "DerivationCodeSequence"):
        if keyword in derived:
            delattr(derived, keyword)
    evidence = Dataset()
    evidence.StudyInstanceUID = derived.StudyInstanceUID
    evidence.ReferencedSeriesSequence = Items(by_series(references, "ReferencedSOPSequence"))
    derived.SourceImageEvidenceSequence = Items([evidence])
    derived.ReferencedSeriesSequence = Items(by_series(references, "ReferencedInstanceSequence"))


def stored_alike(head: Dataset, scale: Scale, before: Scale) -> bool:
    """Tell whether samples of a result stand for what those of its source stood for."""
    return "ModalityLUTSequence" not in head and scale.is_like(before)


def stays_in_class(head: Dataset, meaning: Meaning, scale: Scale, before: Scale) -> bool:
    """Tell whether the result of a whole image may be of its source's class.

    It may where it is stored as the source is. A CT image may state another
    unit and rescale (PS3.3 Section C.8.2.1), a PET image another slope of 16
    bits (C.8.9.4), an MR image has 16 bits of either sign but no rescale
    (C.8.3.1).
    """
    if head.SOPClassUID == CT:
        return True
    if meaning is not Meaning.SAME:
        return False
    if stored_alike(head, scale, before):
        return True
    if head.SOPClassUID == _PET:
        return scale.intercept == 0 and scale.bits_stored == scale.bits_allocated == 16
    same_values = (scale.slope, scale.intercept) == (before.slope, before.intercept)
    return bool(head.SOPClassUID == MR and same_values)


def unit_of(derived: Dataset, head: Dataset, meaning: Meaning) -> str:
    """Name the unit of a result's values as a Rescale Type: that of the source where they keep it.

    PS3.3 Section C.11.1.1.2. Empty where the class says it elsewhere: a PET image in Units.
    """
    if meaning is not Meaning.SAME:
        return "US"
    if derived.SOPClassUID == _PET:
        return ""
    (table, *_) = head.get("ModalityLUTSequence") or (Dataset(),)
    said = table.get("ModalityLUTType") or head.get("RescaleType")
    return str(said or ("HU" if head.get("Modality") == "CT" else head.get("Units") or "US"))
