"""What the index shows of random contents to random visibilities is what a plain filter leaves of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storage.database.visibility
from config.settings import Database as DatabaseSettings
from pacs.core.attributes import BY_KEYWORD, Level
from pacs.core.caller import Visibility
from pacs.core.conditions import AnyOf, Condition, Like, ModalityInStudy, SOPClassInStudy
from pacs.core.identifiers import Registrant, StudyInstanceUID
from pacs.core.records import Instance, Selection
from storage.database.connection import Database
from storage.database.find import DatabaseFindIndex
from storage.database.retrieve import DatabaseRetrieveIndex
from storage.database.store import DatabaseRecords
from tests.contracts.test_find_index import CT, MR, Explained, filled, instance

REGISTRANTS = ("one", "two", "three")
STUDIES = ("1.1", "1.2", "1.3")
PATIENTS = ("P1", "P2", "")
MODALITIES = ("CT", "MR", "SR")
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
COUNTS = frozenset(
    {"NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries",
     "NumberOfPatientRelatedInstances", "NumberOfStudyRelatedSeries", "ModalitiesInStudy",
     "NumberOfStudyRelatedInstances", "SOPClassesInStudy", "NumberOfSeriesRelatedInstances"}
)  # fmt: skip
KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
MATRIX = 256


@dataclass(frozen=True, slots=True)
class One:
    """One instance as the plain filter knows it."""

    registrant: str
    patient: str
    study: str
    series: str
    sop: str
    modality: str
    rows: str

    @property
    def sop_class(self) -> str:
        return {"MR": MR, "": REPORT}.get(self.modality, CT)

    @property
    def path(self) -> tuple[str, ...]:
        """Its patient, study, series and itself: what makes an entity one at each level."""
        lone = "" if self.patient else self.study
        return (f"{self.registrant}/{self.patient}/{lone}", self.study, self.series, self.sop)

    def made(self) -> Instance:
        values = {"PatientID": self.patient, "Modality": self.modality, "Rows": self.rows}
        values["Columns"] = "" if self.rows == "63" else self.rows
        values = {keyword: text for keyword, text in values.items() if text}
        return instance(self.study, self.series, self.sop, values=values,
                        registrant=self.registrant, sop_class=self.sop_class)  # fmt: skip


@st.composite
def contents(draw: st.DrawFn) -> list[One]:
    series = draw(
        st.lists(
            st.tuples(*map(st.sampled_from, (REGISTRANTS, PATIENTS, STUDIES, "12"))),
            unique=True,
            max_size=9,
        )
    )
    found = []
    for registrant, patient, study, number in series:
        modality = draw(st.sampled_from((*MODALITIES, "")))
        for at in range(draw(st.integers(1, 2))):
            rows = draw(st.sampled_from(["", "63", "64", "256", "257", "1024", "512\\512", "\2"]))
            uid = f"{study}.{number}"
            sop = f"{uid}.{PATIENTS.index(patient)}.{at}"
            found.append(One(registrant, patient, study, uid, sop, modality, rows))
    return found


SOME = st.sampled_from(REGISTRANTS).map(Registrant)
VISIBILITIES = st.builds(
    Visibility,
    everything=st.sampled_from([False, False, True]),
    registrants=st.frozensets(SOME, max_size=2),
    studies=st.frozensets(
        st.tuples(SOME, st.sampled_from((*STUDIES, "1.9")).map(StudyInstanceUID)), max_size=3
    ),
    modalities=st.none() | st.frozensets(st.sampled_from((*MODALITIES, "XA")), max_size=2),
)
MARKS = st.sampled_from([0, 100])


def seen(one: One, visibility: Visibility) -> bool:
    """The rule in plain words."""
    pair = (Registrant(one.registrant), StudyInstanceUID(one.study))
    whose = visibility.everything or pair[0] in visibility.registrants or pair in visibility.studies
    kinds = visibility.modalities
    return whose and (kinds is None or one.modality in kinds)


def entities(
    left: list[One], level: Level, kept: set[tuple[str, ...]] | None = None
) -> list[tuple[str, ...]]:
    """Each entity at a level: registrant, unique keys, and everything that is counted of it."""
    found = []
    for path in {one.path[: level.depth + 1] for one in left} if kept is None else kept:
        members = [one for one in left if one.path[: level.depth + 1] == path]
        first = members[0]
        values = [first.patient, *path[1:]]
        said = {}
        for step in tuple(Level)[: level.depth + 1]:
            prefix = path[: step.depth + 1]
            said.update(
                counted([one for one in left if one.path[: step.depth + 1] == prefix], step)
            )
        counts = [f"{keyword}={said.get(keyword, '')}" for keyword in sorted(COUNTS)]
        found.append((first.registrant, *values, *counts))
    return sorted(found)


def counted(members: list[One], level: Level) -> dict[str, str]:
    series, instances = len({one.path[:3] for one in members}), len(members)
    match level:
        case Level.PATIENT:
            return {
                "NumberOfPatientRelatedStudies": str(len({one.study for one in members})),
                "NumberOfPatientRelatedSeries": str(series),
                "NumberOfPatientRelatedInstances": str(instances),
            }
        case Level.STUDY:
            return {
                "NumberOfStudyRelatedSeries": str(series),
                "NumberOfStudyRelatedInstances": str(instances),
                "ModalitiesInStudy": "\\".join(
                    sorted({one.modality for one in members if one.modality})
                ),
                "SOPClassesInStudy": "\\".join(sorted({one.sop_class for one in members})),
            }
        case Level.SERIES:
            return {"NumberOfSeriesRelatedInstances": str(instances)}
        case Level.IMAGE:
            return {}


def answered(
    database: Database, level: Level, conditions: Sequence[Condition], visibility: Visibility
) -> list[tuple[str, ...]]:
    """What the index says, in the form of ``entities``."""
    index = DatabaseFindIndex(database)
    rows = index.candidates(level, conditions, visibility, limit=1_000)
    assert list(rows) == sorted(set(rows)), "nothing is listed twice"
    answers = []
    for one in index.rows(level, rows, COUNTS.union(KEYS), visibility):
        values = [one.values.get(keyword, "") for keyword in KEYS[: level.depth + 1]]
        counts = [f"{keyword}={one.values.get(keyword, '')}" for keyword in sorted(COUNTS)]
        answers.append((one.registrant, *values, *counts))
    return sorted(answers)


QUESTIONS: tuple[tuple[Condition, Callable[[One], bool], Level], ...] = (
    (ModalityInStudy(values=("CT",)), lambda one: one.modality == "CT", Level.STUDY),
    (ModalityInStudy(values=("CT", "SR")), lambda one: one.modality in ("CT", "SR"), Level.STUDY),
    (ModalityInStudy(patterns=("M*",)), lambda one: one.modality == "MR", Level.STUDY),
    (SOPClassInStudy(values=(CT,)), lambda one: one.sop_class == CT, Level.STUDY),
    (AnyOf(attribute=BY_KEYWORD["Modality"], values=("CT",)),
     lambda one: one.modality == "CT", Level.SERIES),
    (AnyOf(attribute=BY_KEYWORD["SOPClassUID"], values=(MR,)),
     lambda one: one.sop_class == MR, Level.IMAGE),
    (AnyOf(attribute=BY_KEYWORD["PatientID"], values=("P1",)),
     lambda one: one.patient == "P1", Level.PATIENT),
    (Like(attribute=BY_KEYWORD["StudyInstanceUID"], pattern="1.[12]"),
     lambda one: False, Level.STUDY),
)  # fmt: skip
"""A condition, the same of one instance, and at which level one that keeps it is enough."""


def expected(
    left: list[One], level: Level, keeps: Callable[[One], bool], at: Level
) -> list[tuple[str, ...]]:
    """Entities with an instance in reach that keeps a condition of level ``at``."""
    deeper = max(level, at, key=lambda one: one.depth).depth + 1
    shared = at.depth + 1
    kept = {one.path[:shared] for one in left if keeps(one)}
    reach = {one.path[:deeper] for one in left if one.path[:shared] in kept}
    return entities(left, level, {one[: level.depth + 1] for one in reach})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    url = "" if request.param == "sqlite" else _postgresql(request)
    made = Database(DatabaseSettings(url=url), tmp_path_factory.mktemp("home"))
    made.migrate()
    yield made
    made.close()


def _postgresql(request: pytest.FixtureRequest) -> str:
    import psycopg

    cluster: str = request.getfixturevalue("postgres_cluster")
    with psycopg.connect(f"{cluster}/postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE visibility")
    return f"{cluster}/visibility"


def fill(database: Database, held: list[One]) -> None:
    records = DatabaseRecords(database, "first")
    with records.transaction() as unit:
        for table in ("conflict", "study_modality", "instance", "series", "study", "patient"):
            database.write(f"DELETE FROM {table}")
        for one in held:
            unit.add_instance(one.made())


RANDOM = settings(
    max_examples=8,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Few, because each example asks every question at every level."""


@RANDOM
@given(held=contents(), looks=st.lists(st.tuples(VISIBILITIES, MARKS), min_size=2, max_size=2))
def test_find_shows_what_a_plain_filter_leaves(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    held: list[One],
    looks: list[tuple[Visibility, int]],
) -> None:
    fill(database, held)
    for visibility, marks in looks:
        monkeypatch.setattr(storage.database.visibility, "MOST_MARKS", marks)
        left = [one for one in held if seen(one, visibility)]
        for level in Level:
            assert answered(database, level, (), visibility) == entities(left, level)
            for condition, keeps, at in QUESTIONS:
                said = answered(database, level, (condition,), visibility)
                assert said == expected(left, level, keeps, at), (level, condition)


SELECTIONS = (
    Selection(level=Level.PATIENT, patient_id="P1"),
    Selection(level=Level.STUDY, study_instance_uids=(StudyInstanceUID("1.1"),)),
    Selection(level=Level.STUDY, study_instance_uids=tuple(map(StudyInstanceUID, STUDIES))),
)


def asked(one: One, selection: Selection) -> bool:
    studies = selection.study_instance_uids
    return one.study in studies if studies else one.patient == selection.patient_id


@RANDOM
@given(held=contents(), looks=st.lists(st.tuples(VISIBILITIES, MARKS), min_size=8, max_size=8))
def test_retrieve_selects_what_a_plain_filter_leaves(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    held: list[One],
    looks: list[tuple[Visibility, int]],
) -> None:
    fill(database, held)
    index = DatabaseRetrieveIndex(database)

    def named(rows: Sequence[tuple[int, object, object]]) -> list[tuple[str, str, str]]:
        found = index.fetch([one[0] for one in rows])
        return sorted(
            (one.registrant, one.series_instance_uid, one.sop_instance_uid) for one in found
        )

    for visibility, marks in looks:
        monkeypatch.setattr(storage.database.visibility, "MOST_MARKS", marks)
        for selection in SELECTIONS:
            left = [one for one in held if seen(one, visibility) and asked(one, selection)]
            wanted = sorted((one.registrant, one.series, one.sop) for one in left)
            assert named(index.select(selection, visibility, 1_000)) == wanted
            owners: dict[str, set[str]] = {}
            for one in left:
                of = one.study if selection.study_instance_uids else one.patient
                owners.setdefault(of, set()).add(one.registrant)
            mixed = any(len(some) > 1 for some in owners.values())
            assert index.is_ambiguous(selection, visibility) is mixed
            bounded = index.select_within(selection, visibility, 1_000, MATRIX)
            odd = [
                one
                for one in left
                if one.rows in ("512\\512", "\2")
                or (one.rows in ("", "63") and one.sop_class != REPORT)
            ]
            assert sorted(bounded.unmeasured) == sorted(one.sop for one in odd)
            plain = [one for one in left if one not in odd]
            assert named(bounded.chosen) == sorted(
                (one.registrant, one.series, one.sop) for one in plain
            )
            large = [one for one in plain if one.rows in ("257", "1024")]
            denser = [one for one in bounded.chosen if one[0] in bounded.denser]
            assert named(denser) == sorted((one.registrant, one.series, one.sop) for one in large)
            assert {one.side_px for one in bounded.denser.values()} == {
                int(one.rows) for one in large
            }


def test_thousands_of_single_studies_are_one_parameter(database: Database) -> None:
    held = [One("two", "P1", f"1.5.{number}", "1.5.1", "1.5.1.1", "CT", "") for number in range(40)]
    fill(database, held)
    pairs = frozenset(
        (Registrant("two"), StudyInstanceUID(f"1.5.{number}")) for number in range(20, 5_000)
    )
    single = Visibility(studies=pairs)
    also_own = replace(single, registrants=frozenset({Registrant("one")}))
    for visibility in (single, also_own):
        for level in Level:
            rows = DatabaseFindIndex(database).candidates(level, (), visibility, limit=100)
            assert len(rows) == (1 if level is Level.PATIENT else 20)
        selection = Selection(level=Level.PATIENT, patient_id="P1")
        assert len(DatabaseRetrieveIndex(database).select(selection, visibility, 100)) == 20


def test_many_registrants_are_one_parameter(database: Database) -> None:
    fill(database, [One("two", "P1", "1.1", "1.1.1", "1.1.1.1", "CT", "")])
    many = frozenset(Registrant(f"r{number}") for number in range(40_000))
    hidden, shown = Visibility(registrants=many), Visibility(registrants=many | {Registrant("two")})
    selection = Selection(level=Level.PATIENT, patient_id="P1")
    for level in (Level.PATIENT, Level.IMAGE):
        index = DatabaseFindIndex(database)
        assert not index.candidates(level, (), hidden, limit=9)
        assert len(index.candidates(level, (), shown, limit=9)) == 1
    assert not DatabaseRetrieveIndex(database).select(selection, hidden, 9)
    assert len(DatabaseRetrieveIndex(database).select(selection, shown, 9)) == 1


# --- how SQLite comes to it --------------------------------------------------------------

SINGLE = Visibility(studies=frozenset({(Registrant("two"), StudyInstanceUID("1.3"))}))
SCANNED = re.compile(r"SCAN (patient|study|series|instance|agreed|lived|held)\b")


def plans_of(
    tmp_path: Path, level: Level, visibility: Visibility, *conditions: Condition
) -> tuple[list[int], str]:
    explained = Explained(filled("", tmp_path))
    index = DatabaseFindIndex(explained)
    rows = list(index.candidates(level, conditions, visibility, limit=10))
    if rows:
        list(index.rows(level, rows, COUNTS, visibility))
    explained.close()
    return rows, "\n".join(explained.plans)


@pytest.mark.parametrize("level", [Level.PATIENT, Level.STUDY])
def test_who_sees_single_studies_only_is_led_to_them(tmp_path: Path, level: Level) -> None:
    rows, plan = plans_of(tmp_path, level, SINGLE)
    assert len(rows) == 1
    assert SCANNED.search(plan) is None
    assert "study_instance_uid=? AND registrant=?" in plan


@pytest.mark.parametrize(
    "narrow",
    [
        SINGLE,
        replace(SINGLE, registrants=frozenset({Registrant("one")})),
        replace(SINGLE, modalities=frozenset({"CT"})),
        Visibility(everything=True, modalities=frozenset({"CT"})),
        Visibility(registrants=frozenset({Registrant("one")}), modalities=frozenset({"CT"})),
    ],
)
@pytest.mark.parametrize(
    ("level", "keyword", "value"),
    [
        (Level.PATIENT, "PatientID", "A1"),
        (Level.STUDY, "AccessionNumber", "7"),
        (Level.SERIES, "StudyInstanceUID", "1.3"),
        (Level.IMAGE, "SeriesInstanceUID", "1.3.1"),
        (Level.STUDY, "SOPInstanceUID", "1.3.1.5"),
    ],
)
def test_a_key_with_an_index_leads_whatever_is_seen(
    tmp_path: Path, narrow: Visibility, level: Level, keyword: str, value: str
) -> None:
    condition = AnyOf(attribute=BY_KEYWORD[keyword], values=(value,))
    _, plan = plans_of(tmp_path, level, narrow, condition)
    assert "SEARCH" in plan
    assert SCANNED.search(plan) is None


def test_who_sees_a_registrant_asks_one_column() -> None:
    sight = storage.database.visibility.Sight(
        Visibility(registrants=frozenset({Registrant("one")})), "sqlite"
    )
    whose, alive = sight.entities((Level.STUDY,))
    assert (whose.text, whose.params) == ("study.registrant IN (?)", ("one",))
    assert "registrant" not in alive.text
