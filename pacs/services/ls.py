"""What an administrator lists: the same questions as C-FIND, asked by keyword and answered as text."""

from collections.abc import Iterator, Mapping

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs.core.attributes import Level
from pacs.core.caller import Caller
from pacs.core.errors import IdentifierInvalid
from pacs.services.find import Find
from pacs.services.find.identifiers import Model, Negotiated, Question

COLUMNS: Mapping[Level, tuple[str, ...]] = {
    Level.PATIENT: (
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedInstances",
    ),
    Level.STUDY: (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "StudyDate",
        "AccessionNumber",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: (
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
    ),
    Level.IMAGE: ("SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID", "InstanceNumber"),
}


def is_keyword(text: str) -> bool:
    """Tell whether ``text`` names a data element."""
    return tag_for_keyword(text) is not None


class Listing:
    """Lists what is held, at any level."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def rows(
        self, caller: Caller, level: Level, keys: Mapping[str, str]
    ) -> Iterator[Mapping[str, str]]:
        """Give one row of text per match. ``keys`` match as in C-FIND.

        Raises ``IdentifierInvalid`` for what no key can be and ``TooManyMatches``.
        """
        identifier = Dataset()
        identifier.SpecificCharacterSet = "ISO_IR 192"
        identifier.QueryRetrieveLevel = level.value
        for keyword in COLUMNS[level]:
            setattr(identifier, keyword, None)
        for keyword, value in keys.items():
            if not is_keyword(keyword):
                raise IdentifierInvalid(f"{keyword} is not a DICOM keyword")
            try:
                setattr(identifier, keyword, value)
            except (ValueError, TypeError, ArithmeticError) as error:
                raise IdentifierInvalid(f"{keyword} cannot have that value") from error
        question = Question(
            model=Model.PATIENT_ROOT, identifier=identifier, negotiated=Negotiated(relational=True)
        )
        columns = tuple(dict.fromkeys((*COLUMNS[level], *keys)))
        for one in self._find.search(caller, question):
            yield {keyword: _text(one.identifier, keyword) for keyword in columns}


def _text(identifier: Dataset, keyword: str) -> str:
    value = identifier.get(keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
