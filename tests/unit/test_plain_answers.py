"""Answers written without pydicom's objects: the same bytes as pydicom's, in every syntax."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

import pacs.app.archive  # noqa: F401 - pydicom takes values as they are, here as in the archive
from pacs.association.identifiers import DEFLATED, decode_identifier, encode_identifier
from pacs.core.attributes import INDEXED, Level
from pacs.core.conditions import Found
from pacs.core.errors import InstanceNotFound
from pacs.core.identifiers import AETitle, TransferSyntaxUID
from pacs.core.records import Place
from pacs.services.find.answers import Answers, answer
from pacs.services.find.entities import Entity
from pacs.services.find.identifiers import Key, Query, Source

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
OURS = AETitle("ARCHIVE")
COUNT = Key(
    tag=0x00201208,
    vr="IS",
    keyword="NumberOfStudyRelatedInstances",
    source=Source.COMPUTED,
    level=Level.STUDY,
)
UNKNOWN = Key(
    tag=0x00181200, vr="DA", keyword="DateOfLastCalibration", source=Source.NOWHERE, level=Level.STUDY
)  # fmt: skip
REGISTRANT = Key(
    tag=0x31091001,
    vr="LO",
    keyword="Registrant",
    source=Source.ARCHIVE,
    level=Level.STUDY,
    creator="PACS ARCHIVE 1",
)
KEYS = (
    *(
        Key(tag=one.tag, vr=one.vr, keyword=one.keyword, source=Source.INDEX, level=one.level)
        for one in INDEXED
    ),
    COUNT,
    UNKNOWN,
    REGISTRANT,
)
USUAL = {
    "AE": "PACS", "AS": "042Y", "CS": "CT", "DA": "20240131", "DS": "1.75", "IS": "12", "LO": "Q1",
    "LT": "two\\lines", "PN": "Doe^Jane", "SH": "A 7", "TM": "1201", "UI": "1.2.840.1", "US": "512",
}  # fmt: skip
CHARACTER_SETS = (
    (), ("ISO_IR 100",), ("ISO_IR 192",), ("ISO_IR 144",), ("ISO_IR 13",), ("GB18030",), ("ISO_IR 6",),
    ("", "ISO 2022 IR 87"), ("ISO 2022 IR 6", "ISO 2022 IR 100", "ISO 2022 IR 144"), ("ISO_IR 166",),
)  # fmt: skip
LETTERS = st.characters(
    blacklist_categories=("Cs", "Cc"), whitelist_characters="ABab09^=\\ .-+éüДж山ﾔ~¥"
)


def without_padding(text: str) -> str:
    """As the index holds texts."""
    return "\\".join(one.strip(" ") for one in text.split("\\"))


TEXTS = st.one_of(
    st.sampled_from(sorted(USUAL.values())),
    st.text(LETTERS, max_size=12),
    st.text("0123456789.-+eE\\ ^=", max_size=8),
).map(without_padding)


def no_header(place: Place, syntax: TransferSyntaxUID) -> Dataset:
    raise InstanceNotFound(f"{place} {syntax}")


def entity(values: Mapping[str, str], query: Query, registrant: str = "local") -> Entity:
    found = Found(
        row=1, values=values, registrant=registrant, received_utc="2026-01-01T00:00:00.000000Z"
    )
    return Entity(found, query, no_header)


def query(keys: tuple[Key, ...], character_sets: tuple[str, ...] = (), offset: str = "") -> Query:
    return Query(
        level=Level.STUDY, keys=keys, combined=(), character_sets=character_sets, relational=False,
        offset_minutes=60 if offset else None, timezone_offset=offset,
    )  # fmt: skip


def pydicoms(data_set: Dataset, syntax: str) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR = syntax == IMPLICIT
    stream.is_little_endian = syntax != BIG
    write_dataset(stream, data_set)
    return stream.getvalue()


def undecoded(data_set: Dataset) -> bool:
    return all(isinstance(one, RawDataElement) for one in data_set.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_bytes_are_pydicoms(syntax: str, data: st.DataObject) -> None:
    keys = tuple(data.draw(st.lists(st.sampled_from(KEYS), unique_by=lambda one: one.tag)))
    values = {one.keyword: data.draw(TEXTS) for one in keys if data.draw(st.booleans())}
    asked = query(
        keys, data.draw(st.sampled_from(CHARACTER_SETS)), data.draw(st.sampled_from(["", "+0100"]))
    )
    one = entity(values, asked, data.draw(st.sampled_from(["local", "Haus Süd"])))
    expected, refusal = b"", None
    try:
        expected = pydicoms(answer(asked, one, keys, OURS), syntax)
    except Exception as failure:  # noqa: BLE001 - whatever pydicom says, it must be said again
        refusal = type(failure)
    made = Answers(asked, keys, OURS).of(one)
    if refusal is not None:
        assert not undecoded(made)
        with pytest.raises(refusal):
            encode_identifier(made, syntax)
    else:
        assert encode_identifier(made, syntax) == expected


def test_a_value_that_ours_stands_for_does_not_choose_the_character_set() -> None:
    (key,) = (one for one in KEYS if one.keyword == "TimezoneOffsetFromUTC")
    asked = query((key,), (), "+0100")
    one = entity({key.keyword: "\N{NO-BREAK SPACE}"}, asked)
    assert answer(asked, one, (key,), OURS).SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize(
    "name", ["Doe^Jane", "Müller^Jörg", "Yamada^Tarou=山田^太郎=やまだ^たろう"]
)
@pytest.mark.parametrize("asked_for", [(), ("ISO_IR 192",), ("ISO_IR 100",)])
def test_usual_answers_need_no_pydicom_and_are_read_by_it(
    name: str, asked_for: tuple[str, ...]
) -> None:
    keys = tuple(one for one in KEYS if one.vr != "SQ")
    values = {one.keyword: USUAL[one.vr] for one in keys if one.source is Source.INDEX}
    values |= {"PatientName": name, COUNT.keyword: "20"}
    asked = query(keys, asked_for)
    made = Answers(asked, keys, OURS).of(entity(values, asked))
    assert undecoded(made)
    for syntax in (IMPLICIT, EXPLICIT, BIG, DEFLATED):
        encoded = encode_identifier(made, syntax)
        assert len(encoded) % 2 == 0
        read = decode_identifier(encoded, syntax, most_bytes=1_000_000)
        assert str(read.PatientName) == name
        assert (read.Rows, read.PatientSize, read.NumberOfStudyRelatedInstances) == (512, 1.75, 20)
        assert read.PatientComments == "two\\lines"
        assert read[0x31091001].value in ("local", b"local ")


def test_values_pydicom_must_see_are_left_to_it() -> None:
    for vr, text in (("IS", "twelve"), ("US", "70000"), ("CS", "é"), ("SQ", "[{}]"), ("UI", "1.x")):
        key = next(one for one in KEYS if one.vr == vr and one.source is Source.INDEX)
        asked = query((key,))
        made = Answers(asked, (key,), OURS).of(entity({key.keyword: text}, asked))
        assert not undecoded(made)


def test_undecoded_elements_are_written_as_they_lie_only_where_that_is_right() -> None:
    """What was read as Explicit VR holds headers of its own in its sequences."""
    question = Dataset()
    question.PatientID = "1"
    question.RequestAttributesSequence = [Dataset()]
    question.RequestAttributesSequence[0].RequestedProcedureID = "P"
    read = read_dataset(DicomBytesIO(pydicoms(question, EXPLICIT)), False, True)
    assert undecoded(read)
    assert encode_identifier(read, IMPLICIT) == pydicoms(question, IMPLICIT)
    assert encode_identifier(read, EXPLICIT) == pydicoms(question, EXPLICIT)
