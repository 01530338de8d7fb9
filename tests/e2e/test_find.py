"""C-FIND over real studies, asked by DCMTK's findscu and by pynetdicom where findscu cannot."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pynetdicom.association import Association

from tests import raw_peer
from tests.archive import Archive, Said, Tool, data_set_of, run, serving
from tests.raw_peer import PATIENT_ROOT, STUDY_ROOT, Instance, identifier

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

EXPLICIT, IMPLICIT = raw_peer.EXPLICIT_LITTLE, raw_peer.IMPLICIT_LITTLE
CHARSETS = "pydicom__pydicom/src/pydicom/data/charset_files"
DICOMDIRS = "pydicom__pydicom/src/pydicom/data/test_files/dicomdirtests"
ROOTS = (PATIENT_ROOT, STUDY_ROOT)
ROOT = "1.2.826.0.1.3680043.10.998"


@pytest.fixture(scope="module")
def held(samples: Path) -> list[Dataset]:
    """Three patients with several studies each, and names in many scripts."""
    files = [*(samples / DICOMDIRS).rglob("[0-9]*"), *(samples / CHARSETS).glob("*.dcm")]
    return [dcmread(one, stop_before_pixels=True) for one in sorted(files) if one.is_file()]


@pytest.fixture(scope="module")
def archive(
    new_database: Callable[[], str],
    held: list[Dataset],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("find") / "home"
    settings = {"query.max_matches": "30"}
    with serving(home, new_database(), settings) as running:
        statuses = raw_peer.send(running.port, [as_instance(one) for one in held])
        assert set(statuses) == {0}
        yield running


def as_instance(one: Dataset) -> Instance:
    path = Path(str(one.filename))
    return Instance(
        sop_class_uid=str(one.SOPClassUID),
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=str(one.file_meta.TransferSyntaxUID),
        data_set=data_set_of(path),
    )


@pytest.fixture
def strict(archive: Archive) -> Iterator[Association]:
    with raw_peer.associated(
        archive.port, [(root + raw_peer.FIND, [EXPLICIT]) for root in ROOTS]
    ) as one:
        yield one


@pytest.fixture
def relational(archive: Archive) -> Iterator[Association]:
    asked = [(root + raw_peer.FIND, b"\x01") for root in ROOTS]
    contexts = [(root + raw_peer.FIND, [EXPLICIT]) for root in ROOTS]
    with raw_peer.associated(archive.port, contexts, extended=asked) as one:
        yield one


def findscu(archive: Archive, tool: Tool, *keys: str, options: tuple[str, ...] = ("-S",)) -> Said:
    given = [part for one in keys for part in ("-k", one)]
    return run(tool("findscu"), "-v", *options, *given, "127.0.0.1", str(archive.port))


def pending(said: Said) -> int:
    return said.text.count("(Pending)")


def values(said: Said, tag: str) -> list[str]:
    """List a tag's values as findscu prints those of responses, in brackets."""
    answers = said.text[said.text.find("Find Response") :]
    return [one.strip(" \0") for one in re.findall(rf"\({tag}\) \w\w \[([^\]]*)\]", answers)]


def studies(held: list[Dataset]) -> dict[str, list[Dataset]]:
    found: dict[str, list[Dataset]] = {}
    for one in held:
        found.setdefault(str(one.StudyInstanceUID), []).append(one)
    return found


# --- findscu -------------------------------------------------------------------------


def test_findscu_lists_every_study_once(
    archive: Archive, peer_tool: Tool, held: list[Dataset]
) -> None:
    said = findscu(archive, peer_tool, "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
    assert sorted(values(said, "0020,000d")) == sorted(studies(held))
    assert "PACS" in values(said, "0008,0054")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("Doe^*", {"Doe^Archibald", "Doe^Peter"}),
        ("doe^p?ter", {"Doe^Peter"}),
        ("*ARCHIBALD", {"Doe^Archibald"}),
        ("DOE^PETER", {"Doe^Peter"}),
        ("Nobody*", set()),
    ],
)
def test_findscu_matches_names_with_wildcards(
    archive: Archive, peer_tool: Tool, pattern: str, names: set[str]
) -> None:
    keys = ("QueryRetrieveLevel=PATIENT", f"PatientName={pattern}", "PatientID")
    said = findscu(archive, peer_tool, *keys, options=("-P",))
    assert set(values(said, "0010,0010")) == names


def dates_within(held: list[Dataset], low: str, high: str) -> set[str]:
    return {
        uid
        for uid, some in studies(held).items()
        if (date := str(some[0].get("StudyDate", "") or "")) and low <= date <= high
    }


@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("20010101-20011231", "20010101", "20011231"),
        ("-19970101", "", "19970101"),
        ("20030101-", "20030101", "99999999"),
    ],
)
def test_findscu_matches_ranges_of_dates(
    archive: Archive, peer_tool: Tool, held: list[Dataset], asked: str, low: str, high: str
) -> None:
    keys = ("QueryRetrieveLevel=STUDY", f"StudyDate={asked}", "StudyInstanceUID")
    said = findscu(archive, peer_tool, *keys)
    expected = dates_within(held, low, high)
    assert expected
    assert set(values(said, "0020,000d")) == expected


def test_computed_attributes_of_studies_are_true(strict: Association, held: list[Dataset]) -> None:
    wish = (
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    )
    asked = identifier("STUDY", StudyInstanceUID="", **dict.fromkeys(wish, ""))
    answers = raw_peer.matches(strict, STUDY_ROOT, asked)
    expected = studies(held)
    assert len(answers) == len(expected)
    for one in answers:
        some = expected[str(one.StudyInstanceUID)]
        assert listed(one, "ModalitiesInStudy") == {str(each.Modality) for each in some}
        assert listed(one, "SOPClassesInStudy") == {str(each.SOPClassUID) for each in some}
        series = {str(each.SeriesInstanceUID) for each in some}
        assert int(one.NumberOfStudyRelatedSeries) == len(series)
        assert int(one.NumberOfStudyRelatedInstances) == len(some)


def listed(one: Dataset, keyword: str) -> set[str]:
    element = one[keyword]
    return {str(each) for each in (element.value if element.VM > 1 else [element.value])}


def test_computed_attributes_of_patients_and_series_are_true(
    strict: Association, held: list[Dataset]
) -> None:
    wish = dict.fromkeys(
        ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedInstances", "PatientName"), ""
    )
    (patient,) = raw_peer.matches(
        strict, PATIENT_ROOT, identifier("PATIENT", PatientID="98890234", **wish)
    )
    some = [one for one in held if one.get("PatientID") == "98890234"]
    assert int(patient.NumberOfPatientRelatedStudies) == len(studies(some))
    assert int(patient.NumberOfPatientRelatedInstances) == len(some)
    study = str(some[0].StudyInstanceUID)
    series = raw_peer.matches(
        strict,
        STUDY_ROOT,
        identifier(
            "SERIES",
            StudyInstanceUID=study,
            SeriesInstanceUID="",
            NumberOfSeriesRelatedInstances="",
        ),
    )
    for one in series:
        count = sum(each.SeriesInstanceUID == one.SeriesInstanceUID for each in held)
        assert int(one.NumberOfSeriesRelatedInstances) == count > 0


@pytest.mark.parametrize("modality", ["MR", "CT", "CR", "XA"])
def test_studies_are_found_by_modality(
    archive: Archive, peer_tool: Tool, held: list[Dataset], modality: str
) -> None:
    keys = ("QueryRetrieveLevel=STUDY", f"ModalitiesInStudy={modality}", "StudyInstanceUID")
    said = findscu(archive, peer_tool, *keys)
    expected = {
        uid
        for uid, some in studies(held).items()
        if modality in {str(one.Modality) for one in some}
    }
    assert set(values(said, "0020,000d")) == expected


def test_uid_lists_match_any_of_theirs(strict: Association, held: list[Dataset]) -> None:
    two = sorted(studies(held))[:2]
    answers = raw_peer.matches(
        strict, STUDY_ROOT, identifier("STUDY", StudyInstanceUID=[*two, f"{ROOT}.404"])
    )
    assert sorted(str(one.StudyInstanceUID) for one in answers) == two


# --- negotiation of relational queries -----------------------------------------------


def test_relational_queries_work_where_negotiated_and_only_there(
    strict: Association, relational: Association, held: list[Dataset]
) -> None:
    one = held[0]
    asked = identifier("IMAGE", SOPInstanceUID=one.SOPInstanceUID, StudyInstanceUID="")
    (answer,) = raw_peer.matches(relational, STUDY_ROOT, asked)
    assert answer.StudyInstanceUID == one.StudyInstanceUID
    (refusal,) = raw_peer.find(strict, STUDY_ROOT, asked)
    assert refusal[0].Status == 0xA900


def test_what_is_not_known_of_extended_negotiation_is_answered_no(archive: Archive) -> None:
    uid = STUDY_ROOT + raw_peer.FIND
    with raw_peer.associated(
        archive.port, [(uid, [EXPLICIT])], extended=[(uid, b"\x01\x01\x01\x01\x01")]
    ) as association:
        (answer,) = association.acceptor.sop_class_extended.values()
        assert answer == b"\x01\x01\x01\x01\x00"


# --- refusals ------------------------------------------------------------------------


def broken_date() -> Dataset:
    asked = identifier("STUDY")
    asked.add(DataElement(0x00080020, "DA", "20010101-x", validation_mode=IGNORE))
    return asked


def invalid() -> dict[str, tuple[Dataset, int]]:
    study = f"{ROOT}.1"
    return {
        "no level": (Dataset(), 0x00080052),
        "a level that is none": (identifier("SLICE"), 0x00080052),
        "a level of another model": (identifier("PATIENT"), 0x00080052),
        "no unique key above": (identifier("SERIES", SeriesInstanceUID=""), 0x0020000D),
        "a list above": (identifier("SERIES", StudyInstanceUID=[study, f"{study}.1"]), 0x0020000D),
        "a date that is none": (broken_date(), 0x00080020),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", invalid())
def test_what_the_model_forbids_is_refused_with_its_element(
    strict: Association, fault: str
) -> None:
    asked, tag = invalid()[fault]
    if not len(asked):
        asked.PatientName = ""
    ((status, _),) = raw_peer.find(strict, STUDY_ROOT, asked)
    assert status.Status == 0xA900
    offending = status.OffendingElement
    tags = [offending] if isinstance(offending, int) else list(offending)
    assert [int(one) for one in tags] == [tag]


def test_too_many_matches_are_refused_before_the_first(
    archive: Archive, peer_tool: Tool, held: list[Dataset], relational: Association
) -> None:
    assert len(held) > 30
    responses = raw_peer.find(relational, STUDY_ROOT, identifier("IMAGE", SOPInstanceUID=""))
    assert [one.Status for one, _ in responses] == [0xA700]
    assert run(peer_tool("echoscu"), "127.0.0.1", str(archive.port)).code == 0


# --- keys of other levels, header attributes -----------------------------------------


def test_empty_keys_of_other_levels_never_refuse(strict: Association, held: list[Dataset]) -> None:
    one = held[0]
    others = ("PatientName", "Modality", "SeriesNumber", "InstanceNumber", "InstanceAvailability")
    above = {"StudyInstanceUID": one.StudyInstanceUID}
    for level, more in (("STUDY", {}), ("SERIES", {"SeriesInstanceUID": one.SeriesInstanceUID})):
        asked = identifier(level, **above, **more, **dict.fromkeys(others, ""))
        (answer,) = raw_peer.matches(strict, STUDY_ROOT, asked)
        assert str(answer.PatientName) == str(one.PatientName)
        assert answer.InstanceAvailability == "ONLINE"
        assert not answer.get("InstanceNumber")


PHYSICS = ("EchoTime", "RepetitionTime", "KVP", "SliceThickness", "FlipAngle", "XRayTubeCurrent")


@pytest.mark.parametrize("keyword", PHYSICS)
def test_any_attribute_of_the_header_returns_at_image_level(
    strict: Association, held: list[Dataset], keyword: str
) -> None:
    having = [one for one in held if one.get(keyword)]
    assert having or keyword == "XRayTubeCurrent"
    for one in having[:3]:
        (answer,) = raw_peer.matches(
            strict,
            STUDY_ROOT,
            identifier(
                "IMAGE",
                StudyInstanceUID=one.StudyInstanceUID,
                SeriesInstanceUID=one.SeriesInstanceUID,
                SOPInstanceUID=one.SOPInstanceUID,
                **{keyword: ""},
            ),
        )
        assert answer[keyword].value == one[keyword].value


# --- character sets ------------------------------------------------------------------


def test_names_in_every_script_come_back_as_they_are(
    relational: Association, held: list[Dataset]
) -> None:
    foreign = [one for one in held if CHARSETS in str(one.filename)]
    assert len(foreign) >= 5
    for one in foreign:
        asked = identifier("IMAGE", SOPInstanceUID=one.SOPInstanceUID, PatientName="")
        asked.SpecificCharacterSet = "ISO_IR 192"
        (answer,) = raw_peer.matches(relational, STUDY_ROOT, asked)
        assert normal(answer) == normal(one), one.filename


def normal(one: Dataset) -> list[str]:
    return [part.strip() for part in str(one.PatientName).rstrip("=").split("=")]


@pytest.mark.parametrize(
    ("charset", "file", "name"),
    [
        ("ISO_IR 192", "chrGreek.dcm", "Διονυσιος"),
        ("ISO_IR 126", "chrGreek.dcm", "Διονυσιος"),
        ("ISO_IR 144", "chrRuss.dcm", "Люк*"),
        ("ISO_IR 192", "chrRuss.dcm", "люк*"),
    ],
)
def test_names_are_matched_in_the_character_set_of_the_question(
    relational: Association, held: list[Dataset], charset: str, file: str, name: str
) -> None:
    (one,) = [each for each in held if str(each.filename).endswith(file)]
    asked = identifier("STUDY", StudyInstanceUID="")
    asked.SpecificCharacterSet = charset
    asked.PatientName = name
    answers = raw_peer.matches(relational, STUDY_ROOT, asked)
    assert [each.StudyInstanceUID for each in answers] == [one.StudyInstanceUID]
    assert listed(answers[0], "SpecificCharacterSet") <= {charset, "ISO_IR 192"}


def test_ideographic_names_of_iso_2022_are_found_by_their_characters(
    archive: Archive, relational: Association
) -> None:
    """Yamada^Tarou=山田^太郎=やまだ^たろう, the example of PS3.5 Annex H.3.1, in ISO 2022 IR 87."""
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    one = Dataset()
    one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    one.SOPClassUID, one.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", f"{ROOT}.87.3"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.87", f"{ROOT}.87.2"
    one.PatientID, one.PatientName, one.Modality = "P87", name, "OT"
    assert raw_peer.send(archive.port, [encoded(one)]) in ([0],)
    for pattern in ("Yamada*", "=山田*", "=山田^太郎", "==やまだ*"):
        asked = identifier("STUDY", StudyInstanceUID="")
        asked.SpecificCharacterSet = "ISO_IR 192"
        asked.PatientName = pattern
        answers = raw_peer.matches(relational, STUDY_ROOT, asked)
        assert [str(each.PatientName) for each in answers] == [name], pattern
    asked = identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID, PatientName="")
    asked.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    (answer,) = raw_peer.matches(relational, STUDY_ROOT, asked)
    assert str(answer.PatientName) == name


def encoded(one: Dataset) -> Instance:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, one)
    return Instance(
        sop_class_uid=str(one.SOPClassUID),
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=EXPLICIT,
        data_set=target.getvalue(),
    )


# --- cancel --------------------------------------------------------------------------


def test_findscu_cancels(new_database: Callable[[], str], peer_tool: Tool, tmp_path: Path) -> None:
    """More answers than fit into the buffers on the way, so that the server is still at it."""
    with serving(tmp_path / "home", new_database()) as archive:
        assert set(raw_peer.send(archive.port, many(400))) == {0}
        keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyDescription")
        whole = findscu(archive, peer_tool, *keys)
        assert pending(whole) == 400
        said = findscu(archive, peer_tool, *keys, options=("-S", "--cancel", "2"))
        assert "Cancel" in said.text
        assert pending(said) < 400
        assert run(peer_tool("echoscu"), "127.0.0.1", str(archive.port)).code == 0


def many(count: int) -> Iterator[Instance]:
    for number in range(count):
        one = Dataset()
        one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        one.SOPInstanceUID = f"{ROOT}.{number}.3.1"
        one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.{number}", f"{ROOT}.{number}.3"
        one.PatientID, one.StudyDescription = f"C{number}", "a study " * 7
        yield encoded(one)
