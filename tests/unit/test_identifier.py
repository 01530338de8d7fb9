"""C-FIND identifiers: which keys a level takes, what is refused, and with which offending element."""

import struct

import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from pacs.core.attributes import BY_KEYWORD, Level
from pacs.core.conditions import (
    AnyOf,
    Between,
    ModalityInStudy,
    Named,
    Received,
    RegisteredBy,
    SOPClassInStudy,
    StudyMoment,
)
from pacs.core.errors import IdentifierInvalid
from pacs.services.find.answers import character_sets_for, text_element
from pacs.services.find.identifiers import (
    Model,
    Negotiated,
    Query,
    Question,
    Source,
    parse,
    stated_purpose,
)
from pacs.services.find.narrowing import narrow
from scp.find import application_information, negotiated

LEVEL = 0x00080052


def identifier(level: str = "STUDY", **keys: object) -> Dataset:
    made = Dataset()
    if level:
        keys["QueryRetrieveLevel"] = level
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        ignore = config.IGNORE  # peers send malformed values too
        made.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=ignore))
    return made


def asked(data_set: Dataset, model: Model = Model.STUDY_ROOT, **accepted: bool) -> Query:
    question = Question(model=model, identifier=data_set, negotiated=Negotiated(**accepted))
    return parse(question, max_uids=3)


def offending(data_set: Dataset, model: Model = Model.STUDY_ROOT, **accepted: bool) -> int:
    with pytest.raises(IdentifierInvalid) as refusal:
        asked(data_set, model, **accepted)
    (tag,) = refusal.value.offending_elements
    return tag


@pytest.mark.parametrize("level", ["", "WORLD", "study", "PATIENT"])
def test_a_level_that_is_not_in_the_model_is_refused(level: str) -> None:
    assert offending(identifier(level)) == LEVEL


def test_the_patient_level_is_in_patient_root() -> None:
    assert asked(identifier("PATIENT"), Model.PATIENT_ROOT).level is Level.PATIENT


@pytest.mark.parametrize(
    ("keys", "tag"),
    [
        ({}, 0x0020000D),
        ({"StudyInstanceUID": ""}, 0x0020000D),
        ({"StudyInstanceUID": "1.2\\1.3"}, 0x0020000D),
        ({"StudyInstanceUID": "1.2"}, 0x0020000E),
        ({"StudyInstanceUID": "1.2", "SeriesInstanceUID": ""}, 0x0020000E),
    ],
)
def test_without_relational_the_unique_keys_above_are_single_values(
    keys: dict[str, str], tag: int
) -> None:
    data_set = identifier("IMAGE", **keys)
    assert offending(data_set) == tag
    assert asked(data_set, relational=True).level is Level.IMAGE


def test_patient_root_wants_the_patient_id_above_the_study() -> None:
    assert offending(identifier("STUDY"), Model.PATIENT_ROOT) == 0x00100020
    assert offending(identifier("STUDY", PatientID="A*"), Model.PATIENT_ROOT) == 0x00100020
    assert asked(identifier("STUDY", PatientID="A"), Model.PATIENT_ROOT).level is Level.STUDY


def test_without_relational_a_value_below_the_level_is_refused_and_an_empty_one_is_not() -> None:
    assert offending(identifier(Modality="CT")) == 0x00080060
    assert asked(identifier(Modality="", InstanceNumber=None)).keys[0].matcher is None
    (key,) = asked(identifier(Modality="CT"), relational=True).below
    assert key.keyword == "Modality"


@pytest.mark.parametrize(
    "keys",
    [
        {"InstanceAvailability": "ONLINE"},
        {"NumberOfSeriesRelatedInstances": "3"},
        {"ModalitiesInStudy": "CT"},
    ],
)
def test_availability_and_computed_keys_never_refuse(keys: dict[str, str]) -> None:
    assert asked(identifier(**keys)).level is Level.STUDY
    assert asked(identifier("PATIENT", **keys), Model.PATIENT_ROOT).level is Level.PATIENT


def test_malformed_values_are_refused_by_their_element() -> None:
    assert offending(identifier(StudyTime="12-99")) == 0x00080030
    assert offending(identifier(StudyDate="2024*")) == 0x00080020
    assert offending(identifier(StudyInstanceUID=["1", "2", "3", "4"])) == 0x0020000D


@pytest.mark.parametrize("value", [b"12", b"1.2*"])
def test_a_sequence_that_cannot_be_read_is_refused_by_its_element(value: bytes) -> None:
    sequence = struct.pack("<HHI", 0x0008, 0x1032, len(value)) + value
    level = struct.pack("<HHI", 0x0008, 0x0052, 6) + b"STUDY "
    data_set = read_dataset(DicomBytesIO(level + sequence), True, True)
    assert offending(data_set) == 0x00081032


def test_unknown_attributes_are_ignored_but_at_image_level_the_header_knows_them() -> None:
    unknown = asked(identifier(RepetitionTime="500"))
    assert unknown.keys[0].source is Source.NOWHERE
    assert unknown.keys[0].matcher is None
    assert not unknown.all_keys_supported
    image = asked(identifier("IMAGE", RepetitionTime="500"), relational=True)
    assert image.keys[0].source is Source.HEADER
    assert image.keys[0].matcher is not None
    assert image.all_keys_supported


def test_our_private_keys_are_found_by_their_creator() -> None:
    data_set = identifier()
    block = data_set.private_block(0x3109, "PACS ARCHIVE 1", create=True)
    block.add_new(1, "LO", "loc*")
    block.add_new(2, "UN", b"20261121-20261122 ")
    keys = asked(data_set).keys
    assert [(one.keyword, one.source) for one in keys] == [
        ("Registrant", Source.ARCHIVE),
        ("ReceivedDateTime", Source.ARCHIVE),
    ]
    registered, received = narrow(asked(data_set)).conditions
    assert registered == RegisteredBy(level=Level.STUDY, pattern="loc*")
    assert received == Received(
        level=Level.STUDY,
        low_utc="2026-11-21T00:00:00.000000Z",
        high_utc="2026-11-22T23:59:59.999999Z",
    )
    data_set[0x31090010].value = "SOMEBODY ELSE"
    assert {one.source for one in asked(data_set).keys} == {Source.NOWHERE}


def purposeful(vr: str, value: object, creator: str = "PACS ARCHIVE 1") -> Dataset:
    data_set = identifier(PatientName="")
    data_set.private_block(0x3109, creator, create=True).add_new(3, vr, value)
    return data_set


@pytest.mark.parametrize(
    ("vr", "value", "creator", "purpose"),
    [
        ("LO", "research", "PACS ARCHIVE 1", "research"),
        ("LO", "", "PACS ARCHIVE 1", ""),
        ("LO", " second opinion ", "PACS ARCHIVE 1", "second opinion"),
        ("UN", b"research", "PACS ARCHIVE 1", "research"),
        ("UN", "Zweitmeinung für".encode(), "PACS ARCHIVE 1", "Zweitmeinung für"),
        ("LO", "research", "SOMEBODY ELSE", ""),
    ],
)
def test_a_purpose_is_stated_in_our_block_and_is_no_key_to_match(
    vr: str, value: object, creator: str, purpose: str
) -> None:
    data_set = purposeful(vr, value, creator)
    assert stated_purpose(data_set) == purpose
    assert stated_purpose(identifier(PatientName="")) == ""
    if creator == "PACS ARCHIVE 1":
        (_, key) = asked(data_set).keys
        assert (key.keyword, key.source, key.matcher) == ("Purpose", Source.ARCHIVE, None)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("LO", ["research", "care"]),
        ("LO", "r" * 65),
        ("LO", "a\nb"),
        ("UN", b"\xff\xfe"),
        ("US", 3),
        ("SQ", []),
    ],
)
def test_a_malformed_purpose_is_refused_by_its_element(vr: str, value: object) -> None:
    with pytest.raises(IdentifierInvalid) as refusal:
        stated_purpose(purposeful(vr, value))
    assert refusal.value.offending_elements == (0x31091003,)


def test_two_purposes_are_refused() -> None:
    data_set = purposeful("LO", "research")
    data_set.add_new(0x31090011, "LO", "PACS ARCHIVE 1")
    data_set.add_new(0x31091103, "LO", "care")
    with pytest.raises(IdentifierInvalid):
        stated_purpose(data_set)


def test_what_the_index_can_decide_becomes_a_condition() -> None:
    narrowed = narrow(
        asked(
            identifier(
                PatientName="Mül*",
                StudyDate="20240501-",
                AccessionNumber="7",
                ModalitiesInStudy=["CT", "MR"],
                SOPClassesInStudy="1.2",
            )
        )
    )
    assert narrowed.exact
    assert set(narrowed.conditions) == {
        AnyOf(attribute=BY_KEYWORD["AccessionNumber"], values=("7",)),
        Between(attribute=BY_KEYWORD["StudyDate"], low="20240501"),
        Named(attribute=BY_KEYWORD["PatientName"], groups=(("mul*",), (), ()), any_group=True),
        ModalityInStudy(values=("CT", "MR")),
        SOPClassInStudy(values=("1.2",)),
    }


def test_dates_and_times_are_one_range_only_where_that_was_accepted() -> None:
    data_set = identifier(StudyDate="20240501-20240503", StudyTime="1000-1159")
    apart = narrow(asked(data_set)).conditions
    assert [type(one) for one in apart] == [Between, Between]
    together = narrow(asked(data_set, combined_date_time=True)).conditions
    assert together == (StudyMoment(low="20240501100000.000000", high="20240503115959.999999"),)


def test_a_timezone_moves_keys_only_where_that_was_accepted() -> None:
    data_set = identifier(StudyDate="20240501", TimezoneOffsetFromUTC="+0200")
    assert asked(data_set).offset_minutes is None
    assert narrow(asked(data_set)).conditions == (
        Between(attribute=BY_KEYWORD["StudyDate"], low="20240501", high="20240501"),
    )
    assert asked(data_set, timezone=True).offset_minutes == 120
    assert narrow(asked(data_set, timezone=True)).conditions == (
        Between(attribute=BY_KEYWORD["StudyDate"], low="20240430", high="20240502"),
    )
    data_set.TimezoneOffsetFromUTC = "+9900"
    assert offending(data_set, timezone=True) == 0x00080201


@pytest.mark.parametrize(
    ("sent", "answered"),
    [(b"", b""), (b"\1", b"\1"), (b"\0\1", b"\0\1"), (b"\1\1\1\1\1", b"\1\1\1\1\0"),
     (b"\2\1\0", b"\0\1\0"), (b"\1" * 9, b"\1\1\1\1\0")],
)  # fmt: skip
def test_application_information_is_answered_byte_by_byte(sent: bytes, answered: bytes) -> None:
    assert application_information(sent) == answered


def test_bytes_that_were_not_sent_are_not_negotiated() -> None:
    assert negotiated(b"") == Negotiated()
    assert negotiated(b"\0\1") == Negotiated(combined_date_time=True)
    assert negotiated(b"\1\0\1\1\0") == Negotiated(relational=True, fuzzy_names=True, timezone=True)


@pytest.mark.parametrize(
    ("texts", "asked_for", "chosen"),
    [
        (["Doe"], (), ("ISO_IR 100",)),
        (["Doe"], ("ISO_IR 101",), ("ISO_IR 101",)),
        (["Müller"], ("ISO_IR 100",), ("ISO_IR 100",)),
        (["Müller"], (), ("ISO_IR 192",)),
        (["Müller", "山田"], ("ISO_IR 100",), ("ISO_IR 192",)),
        (["山田"], ("", "ISO 2022 IR 87"), ("", "ISO 2022 IR 87")),
        (["山田"], ("ISO_IR 13",), ("ISO_IR 192",)),
        (["ﾔﾏﾀﾞ"], ("ISO_IR 13",), ("ISO_IR 13",)),
        (["Люк"], ("ISO_IR 144",), ("ISO_IR 144",)),
        (["Müller"], ("NO SUCH SET",), ("ISO_IR 192",)),
    ],
)
def test_the_character_set_can_hold_every_value(
    texts: list[str], asked_for: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert character_sets_for(texts, asked_for) == chosen


@pytest.mark.parametrize(
    ("vr", "text", "value"),
    [
        ("IS", "12", 12), ("US", "512", 512), ("DS", "1.5\\2", [1.5, 2]), ("FD", "0.5", 0.5),
        ("IS", "twelve", None), ("US", "x", None), ("LT", "a\\b", "a\\b"), ("LO", "", None),
        ("CS", "A\\B", ["A", "B"]), ("DA", "no date", "no date"),
    ],
)  # fmt: skip
def test_values_are_encoded_by_their_vr_and_left_empty_where_it_cannot_hold_them(
    vr: str, text: str, value: object
) -> None:
    element = text_element(0x00090010, vr, text)
    assert element.value == value or (value is None and not element.value)
