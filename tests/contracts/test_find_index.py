"""The promises of ``FindIndex``, kept by the database: what is asked is found, and nothing hidden."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.attributes import BY_KEYWORD, Level
from pacs.core.caller import Visibility
from pacs.core.conditions import (
    AnyOf,
    Between,
    Condition,
    Like,
    ModalityInStudy,
    Named,
    Received,
    RegisteredBy,
    SOPClassInStudy,
    StudyMoment,
    Under,
)
from pacs.core.identifiers import (
    AETitle,
    Digest,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
    new_object_id,
)
from pacs.core.records import Header, Instance, Place, Provenance
from pacs.core.text import word_sound
from storage.database.connection import Database
from storage.database.find import DatabaseFindIndex
from storage.database.find_driver import choose_driver
from storage.database.find_sql import Dialect, Sql
from storage.database.store import DatabaseRecords

ALL = Visibility(everything=True)
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_ANN = {
    "PatientID": "A1",
    "PatientName": "Müller^Ann",
    "StudyDate": "20240501",
    "StudyTime": "101500",
    "ReferringPhysicianName": "Weiß^Eva=白",
    "AccessionNumber": "ACC*1",
    "StudyDescription": "Head_100%",
}
_BOB = {
    "PatientID": "B2",
    "PatientName": "YAMADA^Tarou=山田^太郎=やまだ^たろう",
    "StudyDate": "20240502",
    "StudyTime": "0900",
    "StudyDescription": "Thorax [a]",
}
_CAT = {"PatientName": "Smith^Cat", "StudyDate": "20250101", "OtherPatientIDs": "X\\Y1\\Z"}


def instance(
    study: str,
    series: str,
    sop: str,
    *,
    values: dict[str, str],
    registrant: str = "one",
    sop_class: str = CT,
) -> Instance:
    uids = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": sop,
        "SOPClassUID": sop_class,
    }
    header = Header(
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(sop),
        study_instance_uid=StudyInstanceUID(study),
        series_instance_uid=SeriesInstanceUID(series),
        patient_id=values.get("PatientID", ""),
        issuer_of_patient_id="",
        values={**values, **uids},
    )
    provenance = Provenance(
        registrant=Registrant(registrant),
        issuer_of_patient_id="",
        received_utc=datetime(2026, 11, 21, 10, int(sop[-1]), tzinfo=UTC),
        association="a",
        source_ae_title=AETitle("CT1"),
        receiving_ae_title=AETitle("PACS"),
    )
    object_id = new_object_id()
    place = Place(name=f"2026/{object_id}", object_id=object_id, size_bytes=9, data_set_offset=3)
    return Instance(
        header=header,
        place=place,
        digest=Digest(f"blake3:{object_id}"),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        provenance=provenance,
    )


ARCHIVE = (
    instance("1.1", "1.1.1", "1.1.1.1", values={**_ANN, "Modality": "CT", "InstanceNumber": "1"}),
    instance("1.1", "1.1.1", "1.1.1.2", values={**_ANN, "Modality": "CT", "InstanceNumber": "2"}),
    instance("1.1", "1.1.2", "1.1.2.3", values={**_ANN, "Modality": "SR"}, sop_class=MR),
    instance("1.2", "1.2.1", "1.2.1.4", values={**_BOB, "Modality": "MR"}, sop_class=MR),
    instance("1.3", "1.3.1", "1.3.1.5", values={**_CAT, "Modality": "CT"}, registrant="two"),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    url = ""
    if request.param == "postgresql":
        url = f"{request.getfixturevalue('postgres_cluster')}/find_index"
        with psycopg.connect(url.replace("find_index", "postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE find_index")
    opened = filled(url, tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


def filled(url: str, home: Path) -> Database:
    opened = Database(DatabaseSettings(url=url), home)
    opened.migrate()
    with DatabaseRecords(opened, "first").transaction() as unit:
        for one in ARCHIVE:
            unit.add_instance(one)
    return opened


@pytest.fixture
def index(database: Database) -> DatabaseFindIndex:
    return DatabaseFindIndex(database)


def found(
    index: DatabaseFindIndex, level: Level, *conditions: Condition, visibility: Visibility = ALL
) -> list[str]:
    """UIDs (or Patient Names) of what is found, by the two calls the service makes."""
    key = {
        Level.PATIENT: "PatientName",
        Level.STUDY: "StudyInstanceUID",
        Level.SERIES: "SeriesInstanceUID",
        Level.IMAGE: "SOPInstanceUID",
    }[level]
    rows = index.candidates(level, conditions, visibility, limit=100)
    assert list(rows) == sorted(set(rows))
    return [one.values[key] for one in index.rows(level, rows, frozenset({key}), visibility)]


def attribute(keyword: str, *values: str) -> AnyOf:
    return AnyOf(attribute=BY_KEYWORD[keyword], values=values)


def pattern(keyword: str, text: str) -> Like:
    return Like(attribute=BY_KEYWORD[keyword], pattern=text)


def name(*patterns: str, sounds: tuple[str, ...] = ()) -> Named:
    return Named(
        attribute=BY_KEYWORD["PatientName"],
        groups=(patterns, (), ()),
        any_group=True,
        sounds=sounds,
    )


def referring(*patterns: str) -> Named:
    attribute = BY_KEYWORD["ReferringPhysicianName"]
    return Named(attribute=attribute, groups=(patterns, (), ()), any_group=True)


def between(keyword: str, low: str = "", high: str = "") -> Between:
    return Between(attribute=BY_KEYWORD[keyword], low=low, high=high)


def test_without_conditions_everything_is_listed_once_at_every_level(
    index: DatabaseFindIndex,
) -> None:
    assert found(index, Level.STUDY) == ["1.1", "1.2", "1.3"]
    assert len(found(index, Level.PATIENT)) == 3
    assert len(found(index, Level.SERIES)) == 4
    assert len(found(index, Level.IMAGE)) == 5


@pytest.mark.parametrize(
    ("condition", "studies"),
    [
        (attribute("StudyInstanceUID", "1.1", "1.3", "9.9"), ["1.1", "1.3"]),
        (attribute("PatientID", "A1"), ["1.1"]),
        (attribute("PatientID", "a1"), []),
        (attribute("AccessionNumber", "ACC*1"), ["1.1"]),
        (attribute("OtherPatientIDs", "Y1"), ["1.3"]),
        (attribute("OtherPatientIDs", "Y"), []),
        (pattern("OtherPatientIDs", "Z*"), ["1.3"]),
        (pattern("StudyDescription", "Head*"), ["1.1"]),
        (pattern("StudyDescription", "head*"), []),
        (pattern("StudyDescription", "*[a]"), ["1.2"]),
        (pattern("StudyDescription", "*[ab]"), []),
        (pattern("StudyDescription", "Head?100%"), ["1.1"]),
        (pattern("StudyDescription", "*_100%"), ["1.1"]),
        (pattern("StudyDescription", "*%100%"), []),
        (name("muller^ann"), ["1.1"]),
        (name("m*"), ["1.1"]),
        (name("山*"), ["1.2"]),
        (name("*まだ^*"), ["1.2"]),
        (name("nobody", sounds=(word_sound("smyth"),)), ["1.3"]),
        (referring("weiss*"), ["1.1"]),
        (referring("白"), ["1.1"]),
        (referring("weis"), []),
        (name("*".join("muller^ann")), ["1.1"]),
        (name("*" * 2_000 + "nn"), ["1.1", "1.2", "1.3"]),
        (between("StudyDate", "20240501", "20240502"), ["1.1", "1.2"]),
        (between("StudyDate", "", "20240501"), ["1.1"]),
        (between("StudyDate", "20240502"), ["1.2", "1.3"]),
        (between("StudyTime", "090000.000000", "090000.000000"), ["1.2"]),
        (between("StudyTime", "090000.000001", "115959.999999"), ["1.1"]),
        (StudyMoment(low="20240501101500.000000", high="20240502090000.000000"), ["1.1", "1.2"]),
        (StudyMoment(low="20240501101500.000001"), ["1.2", "1.3"]),
        (ModalityInStudy(values=("SR", "MR")), ["1.1", "1.2"]),
        (ModalityInStudy(patterns=("?R",)), ["1.1", "1.2"]),
        (SOPClassInStudy(values=(MR,)), ["1.1", "1.2"]),
        (RegisteredBy(level=Level.STUDY, pattern="t*"), ["1.3"]),
        (Received(level=Level.STUDY, low_utc="2026-11-21T10:04:00.000000Z"), ["1.2", "1.3"]),
        (attribute("SOPInstanceUID", "1.1.1.2", "1.2.1.4"), ["1.1", "1.2"]),
    ],
)
def test_condition(index: DatabaseFindIndex, condition: Condition, studies: list[str]) -> None:
    assert found(index, Level.STUDY, condition) == studies


def test_conditions_below_hold_on_one_and_the_same_entity(index: DatabaseFindIndex) -> None:
    ct_and_two = (attribute("Modality", "CT"), attribute("InstanceNumber", "2"))
    assert found(index, Level.PATIENT, *ct_and_two) == ["Müller^Ann"]
    sr_and_two = (attribute("Modality", "SR"), attribute("InstanceNumber", "2"))
    assert found(index, Level.PATIENT, *sr_and_two) == []


def test_every_choice_of_the_driving_key_finds_the_same(index: DatabaseFindIndex) -> None:
    keys: list[Condition] = [
        name("m*"),
        between("StudyDate", "20240501", "20240501"),
        ModalityInStudy(values=("CT",)),
        attribute("AccessionNumber", "ACC*1"),
        attribute("SeriesInstanceUID", "1.1.1"),
        attribute("SOPInstanceUID", "1.1.1.1"),
    ]
    for count in range(1, len(keys) + 1):
        assert "1.1" in found(index, Level.STUDY, *keys[:count])
        assert "1.1" in found(index, Level.STUDY, *keys[-count:])
        assert found(index, Level.IMAGE, *keys[-count:])[0] == "1.1.1.1"


class Explained:
    """The database, noting how SQLite would run every statement."""

    dialect: Dialect = "sqlite"

    def __init__(self, database: Database) -> None:
        self._database = database
        self.plans: list[str] = []
        self.close = database.close
        self.connection = database.connection

    def execute(self, sql: str, params: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        steps = self._database.execute(f"EXPLAIN QUERY PLAN {sql}", params)
        self.plans.append("\n".join(str(step[-1]) for step in steps))
        return self._database.execute(sql, params)


@pytest.mark.parametrize(
    "conditions",
    [
        (attribute("SOPInstanceUID", "1.1.1.2"),),
        (attribute("AccessionNumber", "7"),),
        (attribute("PatientID", "A1"), between("StudyDate", "20240501")),
        (name("muller^ann"),),
        (name("m*"), between("StudyDate", "20240501", "20240501")),
        (StudyMoment(low="20240501101500.000000", high="20240502090000.000000"),),
        (ModalityInStudy(values=("SR",)),),
        (pattern("AccessionNumber", "ACC*"), attribute("StudyDescription", "x")),
        (pattern("PatientID", "A*"), name("*nn")),
    ],
)
def test_a_key_with_an_index_never_reads_a_whole_table(
    tmp_path: Path, conditions: tuple[Condition, ...]
) -> None:
    explained = Explained(filled("", tmp_path))
    DatabaseFindIndex(explained).candidates(Level.STUDY, conditions, ALL, limit=10)
    explained.close()
    plan = "\n".join(explained.plans)
    assert "SEARCH" in plan
    assert re.search(r"SCAN (patient|study|series|instance)\b", plan) is None


def searched(tmp_path: Path, *conditions: Condition) -> tuple[list[int], str]:
    """Rows found, and how SQLite came to them (the last plan: counting comes before)."""
    explained = Explained(filled("", tmp_path))
    rows = list(DatabaseFindIndex(explained).candidates(Level.STUDY, conditions, ALL, limit=10))
    explained.close()
    return rows, explained.plans[-1]


def test_modality_and_dates_are_one_range(tmp_path: Path) -> None:
    week = between("StudyDate", "20240430", "20240506")
    rows, plan = searched(tmp_path, ModalityInStudy(values=("SR",)), week)
    assert len(rows) == 1
    assert "(modality=? AND study_date>? AND study_date<?)" in plan
    assert plan.index("study_modality") < plan.index("SEARCH study ")


def test_an_open_range_of_dates_does_not_drive_where_a_name_is_rarer(tmp_path: Path) -> None:
    rows, plan = searched(tmp_path, between("StudyDate", "19000101"), name("smith^cat"))
    assert len(rows) == 1
    assert plan.index("patient_name_alphabetic") < plan.index("SEARCH study ")
    assert "study_date" not in plan


def test_a_name_without_a_beginning_reads_no_more_than_the_names(tmp_path: Path) -> None:
    rows, plan = searched(tmp_path, name("*mith*"))
    assert len(rows) == 1
    assert "COVERING INDEX patient_name_alphabetic" in plan
    assert "SEARCH patient USING INTEGER PRIMARY KEY" in plan


def test_without_a_key_studies_are_read_as_they_lie(tmp_path: Path) -> None:
    rows, plan = searched(tmp_path)
    assert len(rows) == 3
    assert plan.splitlines()[0] == "SCAN study"


def test_keys_that_are_both_frequent_are_counted_further() -> None:
    limits: list[int] = []

    def count(sql: Sql) -> int:
        limits.append(int(sql.text.split("LIMIT ")[1].split(")")[0]))
        return min(limits[-1], 30_000 if "patient" in sql.text else 200_000)

    keys = (between("StudyDate", "19000101"), name("m*"))
    assert choose_driver(keys, count, "sqlite") is keys[1]
    assert limits == [1_000, 1_000, 10_000, 10_000, 100_000, 100_000]


def test_under_narrows_to_one_entity(index: DatabaseFindIndex) -> None:
    (row,) = index.candidates(Level.STUDY, [attribute("StudyInstanceUID", "1.1")], ALL, limit=9)
    under = Under(level=Level.STUDY, row=row)
    assert found(index, Level.SERIES, under) == ["1.1.1", "1.1.2"]


def test_what_is_not_visible_is_neither_listed_nor_read(index: DatabaseFindIndex) -> None:
    one = Visibility(registrants=frozenset({Registrant("one")}))
    assert found(index, Level.STUDY, visibility=one) == ["1.1", "1.2"]
    assert found(index, Level.STUDY, visibility=Visibility()) == []
    everything = index.candidates(Level.IMAGE, [], ALL, limit=100)
    assert len(list(index.rows(Level.IMAGE, everything, frozenset(), one))) == 4


def test_the_limit_bounds_the_list(index: DatabaseFindIndex) -> None:
    assert len(index.candidates(Level.IMAGE, [], ALL, limit=3)) == 3


def test_computed_attributes(index: DatabaseFindIndex) -> None:
    wanted = frozenset(
        {
            "ModalitiesInStudy",
            "SOPClassesInStudy",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
            "NumberOfPatientRelatedStudies",
            "NumberOfPatientRelatedInstances",
            "NumberOfSeriesRelatedInstances",
        }
    )
    rows = index.candidates(Level.SERIES, [attribute("SeriesInstanceUID", "1.1.1")], ALL, limit=9)
    (series,) = index.rows(Level.SERIES, rows, wanted, ALL)
    assert series.values == {
        "ModalitiesInStudy": "CT\\SR",
        "SOPClassesInStudy": f"{CT}\\{MR}",
        "NumberOfStudyRelatedSeries": "2",
        "NumberOfStudyRelatedInstances": "3",
        "NumberOfPatientRelatedStudies": "1",
        "NumberOfPatientRelatedSeries": "2",
        "NumberOfPatientRelatedInstances": "3",
        "NumberOfSeriesRelatedInstances": "2",
    }


def test_an_image_row_says_where_its_file_is(index: DatabaseFindIndex) -> None:
    rows = index.candidates(Level.IMAGE, [attribute("SOPInstanceUID", "1.1.1.2")], ALL, limit=9)
    (image,) = index.rows(Level.IMAGE, rows, frozenset({"PatientName", "InstanceNumber"}), ALL)
    assert image.place == ARCHIVE[1].place
    assert image.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert image.received_utc == "2026-11-21T10:02:00.000000Z"
    assert image.values == {"PatientName": "Müller^Ann", "InstanceNumber": "2"}


def test_entities_of_which_nothing_is_delivered_are_gone(database: Database) -> None:
    index = DatabaseFindIndex(database)
    with DatabaseRecords(database, "first").transaction() as unit:
        unit.add_instance(instance("1.9", "1.9.1", "1.9.1.9", values={"PatientID": "GONE"}))
    assert "1.9" in found(index, Level.STUDY)
    rows = index.candidates(Level.STUDY, [attribute("StudyInstanceUID", "1.9")], ALL, limit=9)
    with database.transaction():
        database.write("UPDATE instance SET delivered = 0 WHERE sop_instance_uid = '1.9.1.9'")
        database.write("UPDATE series SET instance_count = 0 WHERE series_instance_uid = '1.9.1'")
    for level in Level:
        assert not index.candidates(level, [attribute("PatientID", "GONE")], ALL, limit=9)
    assert list(index.rows(Level.STUDY, rows, frozenset(), ALL)) == []
