"""Values longer than any VR allows never fail a store, on neither database, and join nobody."""

import random
from pathlib import Path

import pytest

from pacs.core.attributes import Level
from pacs.core.records import StoreOutcome
from storage.database.tables import Kind
from tests.keeping import ADMIN, data_set, keep, listed, opened, tables

_CHOICE = random.Random(20_240_501)
LONG = "".join(_CHOICE.choice("αβγδεζηθικλμ") for _ in range(6_000))
"""Hardly to be compressed: too long for a row of an index of PostgreSQL."""


@pytest.mark.parametrize(
    "keyword", ["PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber"]
)
def test_a_long_value_is_kept(tmp_path: Path, url: str, keyword: str) -> None:
    with opened(tmp_path / "home", url) as archive:
        one = data_set("1.2.3", "1.2.3.4", "1.2.3.4.5", SpecificCharacterSet="ISO_IR 192")
        setattr(one, keyword, LONG)
        assert keep(archive, one) is StoreOutcome.KEPT
        assert keep(archive, one) is StoreOutcome.ALREADY_HELD
        assert [row["StudyInstanceUID"] for row in listed(archive, Level.STUDY)] == ["1.2.3"]
        archive.reindex.recover()
        before = tables(archive.database, Kind.INDEX)
        assert archive.reindex.run(ADMIN, lambda: None) == []
        assert tables(archive.database, Kind.INDEX) == before


def test_long_patient_ids_that_differ_at_their_end_are_two_patients(
    tmp_path: Path, url: str
) -> None:
    with opened(tmp_path / "home", url) as archive:
        for number in ("1", "2"):
            study = f"1.2.{number}"
            one = data_set(study, f"{study}.1", f"{study}.1.1", PatientID="P" * 2_000 + number)
            assert keep(archive, one) is StoreOutcome.KEPT
        found = listed(archive, Level.PATIENT)
        assert [row["NumberOfPatientRelatedStudies"] for row in found] == ["1", "1"]
        assert len({row["PatientID"] for row in found}) == 2
        for row in found:  # what is answered finds it again
            assert len(listed(archive, Level.STUDY, PatientID=row["PatientID"])) == 1
