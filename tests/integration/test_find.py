"""C-FIND from request to response on a real index: what a workstation gets, level by level."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from config.settings import Database as DatabaseSettings
from config.settings import Query as QuerySettings
from pacs.association.message import OpenAssociation, Operation, Request, Response
from pacs.core.caller import Caller, SubscriberName, Visibility
from pacs.core.errors import IdentifierInvalid, InstanceNotFound, TooManyMatches
from pacs.core.identifiers import AETitle, Registrant, TransferSyntaxUID
from pacs.core.records import Place
from pacs.services.find import Find
from scp.find import STUDY_ROOT_FIND, answer_find, service_class
from storage.database.connection import Database
from storage.database.find import DatabaseFindIndex
from storage.database.store import DatabaseRecords
from tests.contracts.test_find_index import instance

_REQUESTS = [
    {"00400007": {"vr": "LO", "Value": ["Knee"]}},
    {"00400007": {"vr": "LO", "Value": ["Hip"]}},
]
_ANN = {"PatientID": "A1", "PatientName": "Müller^Ann", "StudyDate": "20240501",
        "StudyTime": "233000", "Modality": "CT", "RequestAttributesSequence": json.dumps(_REQUESTS)}  # fmt: skip
_TARO = {"PatientID": "A1", "PatientName": "YAMADA^Tarou=山田^太郎", "StudyDate": "20240502",
         "StudyTime": "0100", "Modality": "MR"}  # fmt: skip
ARCHIVE = (
    instance("1.1", "1.1.1", "1.1.1.1", values={**_ANN, "InstanceNumber": "1"}),
    instance("1.1", "1.1.1", "1.1.1.2", values={**_ANN, "InstanceNumber": "02"}),
    instance("1.2", "1.2.1", "1.2.1.3", values=_TARO, registrant="two"),
)


def read_header(place: Place, transfer_syntax_uid: TransferSyntaxUID) -> Dataset:
    """Make the header of the n-th object; that of the last is lost."""
    assert transfer_syntax_uid == ExplicitVRLittleEndian
    number = [one.place for one in ARCHIVE].index(place)
    if number == 2:
        raise InstanceNotFound
    header = Dataset()
    header.TimezoneOffsetFromUTC = "+0200"
    header.RepetitionTime = str(500 + number)
    header.FlipAngle = "90"
    header.AcquisitionDateTime = "20240501233000"
    header.private_block(0x0011, "MAKER", create=True).add_new(5, "SH", f"P{number}")
    return header


def travelled(data_set: Dataset, *, implicit_vr: bool) -> Dataset:
    """Encode and decode again, as on the wire: undecoded values, no VRs for private elements."""
    wire = DicomBytesIO()
    dcmwrite(wire, data_set, implicit_vr=implicit_vr, little_endian=True)
    return read_dataset(DicomBytesIO(wire.getvalue()), implicit_vr, True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    home: Path = tmp_path_factory.mktemp("home")
    opened = Database(DatabaseSettings(), home)
    opened.migrate()
    with DatabaseRecords(opened, "first").transaction() as unit:
        for one in ARCHIVE:
            unit.add_instance(one)
    yield opened
    opened.close()


@pytest.fixture
def ask(database: Database) -> Callable[..., list[Response]]:
    def send(
        level: str = "STUDY", *, information: bytes = b"", settings: QuerySettings | None = None,
        visibility: Visibility | None = None, cancelled: Callable[[], bool] = lambda: False,
        private: Callable[[Dataset], None] = lambda _: None, **keys: object,
    ) -> list[Response]:  # fmt: skip
        find = Find(
            index=DatabaseFindIndex(database),
            read_header=read_header,
            settings=settings or QuerySettings(page_rows=2),
            ae_title=AETitle("ARCHIVE"),
        )
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        private(identifier)
        association = SimpleNamespace(negotiated=lambda _: information)
        request = Request(
            operation=Operation.C_FIND,
            sop_class_uid=STUDY_ROOT_FIND,
            transfer_syntax_uid=TransferSyntaxUID(ExplicitVRLittleEndian),
            message_id=1,
            fields={},
            caller=Caller(
                subscriber=SubscriberName("s"),
                rights=frozenset(),
                visibility=visibility or Visibility(everything=True),
            ),
            called_ae_title=AETitle("ARCHIVE"),
            association=cast(OpenAssociation, association),
            cancelled=cancelled,
            identifier=travelled(identifier, implicit_vr=True),
        )
        return list(answer_find(request, find))

    return send


Ask = Callable[..., list[Response]]


def matches(responses: list[Response]) -> list[Dataset]:
    """Give the identifiers as a peer decodes them; the last response is Success."""
    assert responses[-1].status == 0x0000
    assert responses[-1].identifier is None
    decoded = []
    for one in responses[:-1]:
        assert one.identifier is not None
        decoded.append(travelled(one.identifier, implicit_vr=False))
    return decoded


def test_every_answer_says_level_archive_and_a_character_set_that_holds_it(ask: Ask) -> None:
    ann, taro = matches(ask(PatientName="", NumberOfStudyRelatedInstances="", Modality=""))
    assert (ann.QueryRetrieveLevel, ann.RetrieveAETitle) == ("STUDY", "ARCHIVE")
    assert ann.SpecificCharacterSet == "ISO_IR 192"
    assert ann.PatientName == "Müller^Ann"
    assert ann.StudyInstanceUID == "1.1"
    assert ann.NumberOfStudyRelatedInstances == 2
    assert ann.Modality == ""
    assert taro.PatientName.ideographic == "山田^太郎"
    (latin,) = matches(ask(PatientName="müll*", SpecificCharacterSet="ISO_IR 100"))
    assert (latin.SpecificCharacterSet, str(latin.PatientName)) == ("ISO_IR 100", "Müller^Ann")
    japanese = ["", "ISO 2022 IR 87"]
    (kanji,) = matches(ask(PatientName="山*", SpecificCharacterSet=japanese))
    assert list(kanji.SpecificCharacterSet) == japanese
    assert str(kanji.PatientName) == "YAMADA^Tarou=山田^太郎"


def test_two_registrants_patients_of_one_id_are_never_mixed(ask: Ask) -> None:
    assert len(matches(ask(PatientID="A1"))) == 2
    (one,) = matches(
        ask(PatientID="A1", visibility=Visibility(registrants=frozenset({Registrant("two")})))
    )
    assert one.StudyInstanceUID == "1.2"
    assert matches(ask(PatientID="A1", visibility=Visibility())) == []


def test_series_match_by_one_item_of_a_sequence(ask: Ask) -> None:
    def having(description: str) -> Callable[[Dataset], None]:
        def add(identifier: Dataset) -> None:
            item = Dataset()
            item.ScheduledProcedureStepDescription = description
            identifier.RequestAttributesSequence = [item]

        return add

    (series,) = matches(ask("SERIES", StudyInstanceUID="1.1", private=having("H?p")))
    items = series.RequestAttributesSequence
    assert [one.ScheduledProcedureStepDescription for one in items] == ["Knee", "Hip"]
    assert matches(ask("SERIES", StudyInstanceUID="1.1", private=having("Foot"))) == []


def test_keys_above_are_answered_and_numbers_match_by_meaning(ask: Ask) -> None:
    (image,) = matches(ask("IMAGE", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1",
                           InstanceNumber="2", PatientName="", Modality="",
                           InstanceAvailability=""))  # fmt: skip
    assert image.SOPInstanceUID == "1.1.1.2"
    assert (image.PatientName, image.Modality) == ("Müller^Ann", "CT")
    assert image.InstanceAvailability == "ONLINE"


def test_any_attribute_of_the_stored_header_is_returned_and_matched_at_image_level(
    ask: Ask,
) -> None:
    def maker(identifier: Dataset) -> None:
        identifier.private_block(0x0011, "MAKER", create=True).add_new(5, "SH", "")

    above = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
    (image,) = matches(ask("IMAGE", **above, RepetitionTime="501.0", FlipAngle="", private=maker))
    assert (image.SOPInstanceUID, image.RepetitionTime, image.FlipAngle) == ("1.1.1.2", 501, 90)
    assert image.private_block(0x0011, "MAKER")[5].value == "P1"
    lost = matches(ask("IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1", FlipAngle=""))
    assert [one.FlipAngle for one in lost] == [None]


def test_registrant_and_receiving_time_are_keys_at_every_level(ask: Ask) -> None:
    def ours(identifier: Dataset) -> None:
        block = identifier.private_block(0x3109, "PACS ARCHIVE 1", create=True)
        block.add_new(1, "LO", "t*")
        block.add_new(2, "DT", "20261121-")

    for level, above in (("STUDY", {}), ("SERIES", {"StudyInstanceUID": "1.2"})):
        (one,) = matches(ask(level, private=ours, **above))
        block = one.private_block(0x3109, "PACS ARCHIVE 1")
        assert block[1].value == "two"
        assert block[2].value == "20261121100300.000000+0000"


def test_a_time_range_holds_on_each_day_unless_combined(ask: Ask) -> None:
    keys = {"StudyDate": "20240501-20240502", "StudyTime": "2300-0130"}
    assert matches(ask(**keys)) == []
    assert len(matches(ask(**keys, information=b"\0\1"))) == 2
    assert len(matches(ask(StudyDate="20240501-20240502", StudyTime="0030-2300"))) == 1


def test_fuzzy_names_only_where_accepted(ask: Ask) -> None:
    assert matches(ask(PatientName="ann^mueller")) == []
    (found,) = matches(ask(PatientName="ann^mueller", information=b"\0\0\1"))
    assert found.StudyInstanceUID == "1.1"


def test_relational_keys_below_hold_on_one_entity_whatever_decides_them(ask: Ask) -> None:
    relational = b"\1"
    (found,) = matches(ask(information=relational, Modality="CT", InstanceNumber="2"))
    assert found.StudyInstanceUID == "1.1"
    assert matches(ask(information=relational, Modality="MR", InstanceNumber="2")) == []
    assert len(matches(ask("IMAGE", information=relational))) == 3


def test_timezone_adjustment_moves_keys_and_answers_where_the_offset_is_known(ask: Ask) -> None:
    keys = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1",
            "TimezoneOffsetFromUTC": "+0300", "StudyTime": ""}  # fmt: skip
    moved = matches(ask("IMAGE", **keys, StudyDate="20240502", information=b"\0\0\0\1"))
    assert [(one.StudyDate, one.StudyTime) for one in moved] == [("20240502", "003000")] * 2
    assert {one.TimezoneOffsetFromUTC for one in moved} == {"+0300"}
    same = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1",
            "TimezoneOffsetFromUTC": "+0300", "AcquisitionDateTime": "20240502003000"}  # fmt: skip
    assert len(matches(ask("IMAGE", **same, information=b"\0\0\0\1"))) == 2


def test_an_unsupported_key_is_a_warning_and_comes_back_empty(ask: Ask) -> None:
    first, *_ = ask(FlipAngle="90")
    assert first.status == 0xFF01
    assert first.identifier is not None
    assert first.identifier.FlipAngle is None
    assert ask(StudyID="")[0].status == 0xFF00


def test_too_many_matches_are_refused_before_the_first(ask: Ask) -> None:
    with pytest.raises(TooManyMatches):
        ask(settings=QuerySettings(max_matches=1))
    few = QuerySettings(max_matches=1, max_candidates=2)
    assert len(matches(ask(settings=few, StudyTime="2330"))) == 1
    with pytest.raises(TooManyMatches):
        ask(settings=few, StudyTime="00-2359")
    with pytest.raises(TooManyMatches):
        ask("IMAGE", settings=few, information=b"\1", FlipAngle="90")


def test_cancel_is_obeyed_before_the_next_response(ask: Ask) -> None:
    asked: list[bool] = []

    def after_one_response() -> bool:
        asked.append(True)
        return len(asked) > 2

    responses = ask(cancelled=after_one_response)
    assert [one.status for one in responses] == [0xFF00, 0xFE00]
    assert responses[-1].identifier is None


def test_a_request_without_identifier_or_level_is_refused(ask: Ask) -> None:
    with pytest.raises(IdentifierInvalid):
        ask("")


def test_the_service_class_names_a_right_for_its_operation(database: Database) -> None:
    find = Find(index=DatabaseFindIndex(database), read_header=read_header,
                settings=QuerySettings(), ae_title=AETitle("A"))  # fmt: skip
    service = service_class(find)
    assert service.rights.keys() == service.operations.keys() == {Operation.C_FIND}
    assert service.statuses[TooManyMatches] == 0xA700
    assert service.statuses[IdentifierInvalid] == 0xA900
