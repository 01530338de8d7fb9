"""The questions the index is measured with, and how one is timed."""

import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from pydicom.dataset import Dataset

from bench.synthetic_index import NEWEST
from config.settings import Query
from pacs.core.attributes import Level
from pacs.core.caller import Caller, admin
from pacs.core.errors import InstanceNotFound, TooManyMatches
from pacs.core.identifiers import AETitle, StudyInstanceUID, TransferSyntaxUID
from pacs.core.records import Place, Selection
from pacs.services.find import Find
from pacs.services.find.identifiers import Model, Negotiated, Question
from storage.database.connection import Database
from storage.database.find import DatabaseFindIndex
from storage.database.retrieve import DatabaseRetrieveIndex

_ROUNDS = 20
_LONGEST_S = 5.0  # further rounds of one question are left out after this time
_STREAMED = 100_000
_PAGE = 500  # answers after which a work station says C-CANCEL
_TO_500TH = ("Patient ID", "a week, CT", "name, beginning", "name, 3 letters")
_STUDY_KEYS = [
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
]
_SERIES_KEYS = ["Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances"]  # fmt: skip
_IMAGE_KEYS = ["SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Rows", "Columns"]
_CALLER: Caller = admin("bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Medians over the rounds. ``cpu_ms`` is processor time: neighbours on the machine do not change it."""

    first_ms: float
    all_ms: float
    cpu_ms: float
    answers: int
    note: str = ""


def measure(database: Database, studies: int) -> dict[str, Measured]:
    """Ask every question often enough, with other values each time; the same ones for the same size."""
    index = DatabaseFindIndex(database)
    find = Find(
        index=index,
        read_header=_no_header,
        settings=Query(),
        ae_title=AETitle("PACS"),
    )
    asked: dict[str, list[Question]] = {}
    for seed in range(_ROUNDS):
        for name, question in _Values(database, studies, seed).questions():
            asked.setdefault(name, []).append(question)
    results = {name: _timed(find, questions) for name, questions in asked.items()}
    for name in _TO_500TH:
        results[f"{name}, to the 500th"] = _timed(find, asked[name], most=_PAGE)
    results["no key at all"] = _timed(find, [study_question()])
    results["a time of any day"] = _timed(find, [study_question(StudyTime="0700-2359")])
    results["stream of many studies"] = _streamed(find, database, studies)
    results["selection for C-MOVE of a study"] = _selected(database, studies)
    return results


def study_question(**keys: str) -> Question:
    """Ask for studies as a work station's list does."""
    return _question("STUDY", _STUDY_KEYS, keys)


def _question(level: str, returned: Sequence[str], keys: dict[str, str]) -> Question:
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = level
    for keyword in returned:
        setattr(identifier, keyword, None)
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return Question(model=Model.STUDY_ROOT, identifier=identifier, negotiated=Negotiated())


class _Values:
    """One draw of values that are in the archive."""

    def __init__(self, database: Database, studies: int, seed: int) -> None:
        self._database = database
        self._studies = studies
        self._draw = random.Random(seed)

    def questions(self) -> Iterator[tuple[str, Question]]:
        """Give each kind of question once, by name."""
        draw = self._draw
        uid, date, accession, patient, name = self._study(draw.randint(1, self._studies))
        surname = name.partition("^")[0]
        day = NEWEST - timedelta(days=draw.randrange(max(1, self._studies // 274 - 30)))
        week = f"{day - timedelta(days=6):%Y%m%d}-{day:%Y%m%d}"
        month = f"{day - timedelta(days=29):%Y%m%d}-{day:%Y%m%d}"
        uids = "\\".join(self._study(draw.randint(1, self._studies))[0] for _ in range(100))
        part = draw.choice(("zalawald*w", "xq", "tzhofri", "yx"))
        yield "Patient ID", study_question(PatientID=patient)
        yield "Accession Number", study_question(AccessionNumber=accession)
        yield "Study Instance UID", study_question(StudyInstanceUID=uid)
        yield "100 Study Instance UIDs", study_question(StudyInstanceUID=uids)
        yield "one day", study_question(StudyDate=date)
        yield "a week, CT", study_question(StudyDate=week, ModalitiesInStudy="CT")
        yield "a week, PT (1 %)", study_question(StudyDate=week, ModalitiesInStudy="PT")
        yield "PT (1 %), any date", study_question(ModalitiesInStudy="PT")
        yield "name, exact", study_question(PatientName=name)
        yield "name, beginning", study_question(PatientName=f"{surname}*")
        yield "name, 3 letters", study_question(PatientName=f"{surname[:3]}*")
        yield "name, 1 letter, and a month", study_question(PatientName="M*", StudyDate=month)
        yield (
            "name, 3 letters, since 2000",
            study_question(PatientName=f"{surname[:3]}*", StudyDate="20000101-"),
        )
        yield "name, rare infix", study_question(PatientName=f"*{part}*")
        yield "description, wildcard", study_question(StudyDescription="*nosuchword*")
        yield "description, a month", study_question(StudyDescription="*contrast*", StudyDate=month)
        yield "series of a study", _question("SERIES", _SERIES_KEYS, {"StudyInstanceUID": uid})
        study, series = self._series(self._studies // 2 + 1)
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        yield "2,000 images of a series", _question("IMAGE", _IMAGE_KEYS, keys)

    def _study(self, row: int) -> tuple[str, str, str, str, str]:
        sql = (
            "SELECT study_instance_uid, study_date, accession_number, patient_id, patient_name "
            "FROM study JOIN patient ON patient.id = study.patient_row WHERE study.id = ?"
        )
        uid, date, accession, patient, name = next(self._database.execute(sql, (row,)))
        return uid, date, accession, patient, name

    def _series(self, study_row: int) -> tuple[str, str]:
        sql = (
            "SELECT study_instance_uid, series_instance_uid FROM study "
            "JOIN series ON series.study_row = study.id WHERE study.id = ?"
        )
        study, series = next(self._database.execute(sql, (study_row,)))
        return study, series


def _no_header(place: Place, transfer_syntax_uid: TransferSyntaxUID) -> Dataset:
    raise InstanceNotFound(f"{place.name} {transfer_syntax_uid}")


def _timed(find: Find, questions: Sequence[Question], most: int | None = None) -> Measured:
    firsts, alls, cpus, counts = [], [], [], []
    note = ""
    end = time.monotonic() + _LONGEST_S
    for question in questions:
        started, cpu = time.perf_counter(), time.process_time()
        first, count = 0.0, 0
        try:
            for _ in islice(find.search(_CALLER, question), most):
                count += 1
                first = first or time.perf_counter() - started
        except TooManyMatches:
            note = "refused: too many matches"
        alls.append(time.perf_counter() - started)
        cpus.append(time.process_time() - cpu)
        firsts.append(first or alls[-1])
        counts.append(count)
        if time.monotonic() > end:
            break
    note = note or f"slowest {1000 * max(alls):.1f} ms"
    return Measured(
        first_ms=1000 * statistics.median(firsts),
        all_ms=1000 * statistics.median(alls),
        cpu_ms=1000 * statistics.median(cpus),
        answers=int(statistics.median(counts)),
        note=note,
    )


def _streamed(find: Find, database: Database, studies: int) -> Measured:
    """Take up to 100,000 answers without keeping them, watching the memory of this process."""
    row = max(1, studies - _STREAMED + 2_000)
    (date,) = next(database.execute("SELECT study_date FROM study WHERE id = ?", (row,)))
    before = most = _resident_mb()
    started, cpu = time.perf_counter(), time.process_time()
    first, count = 0.0, 0
    for count, _ in enumerate(find.search(_CALLER, study_question(StudyDate=f"{date}-")), start=1):
        first = first or time.perf_counter() - started
        if count % 5_000 == 1:
            most = max(most, _resident_mb())
    total, cpu = time.perf_counter() - started, time.process_time() - cpu
    note = f"{1000 * cpu / count:.3f} ms an answer, memory +{most - before:.0f} MB"
    return Measured(
        first_ms=1000 * first, all_ms=1000 * total, cpu_ms=1000 * cpu, answers=count, note=note
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _selected(database: Database, studies: int) -> Measured:
    index = DatabaseRetrieveIndex(database)
    times, counts = [], []
    cpu = time.process_time()
    for row in random.Random(3).sample(range(1, studies + 1), 50):
        sql = "SELECT study_instance_uid FROM study WHERE id = ?"
        uid = StudyInstanceUID(next(database.execute(sql, (row,)))[0])
        selection = Selection(level=Level.STUDY, study_instance_uids=(uid,))
        started = time.perf_counter()
        rows = index.select(selection, _CALLER.visibility, 65_535)
        index.fetch([one[0] for one in rows])
        times.append(1000 * (time.perf_counter() - started))
        counts.append(len(rows))
    middle = statistics.median(times)
    answers = int(statistics.median(counts))
    return Measured(
        first_ms=middle,
        all_ms=middle,
        cpu_ms=1000 * (time.process_time() - cpu) / len(times),
        answers=answers,
        note=f"slowest {max(times):.1f} ms",
    )
