"""Many stores at once into one study: counts right, attributes those of the earliest, nobody refused."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pacs.core.attributes import Level
from pacs.core.records import StoreOutcome
from storage.database.tables import Kind
from tests.keeping import ADMIN, data_set, keep, listed, opened, tables

THREADS = 8
EACH = 12


def test_eight_senders_of_one_study(url: str, tmp_path: Path) -> None:
    """Every instance describes patient, study and series differently; two series, shared by all."""
    with opened(tmp_path, url) as archive:
        archive.reindex.recover()
        begin = threading.Barrier(THREADS)

        def send(sender: int) -> list[StoreOutcome]:
            begin.wait()
            return [
                keep(
                    archive,
                    data_set(
                        "1.1", f"1.1.{number % 2}", f"1.1.9.{sender}.{number}",
                        PatientName=f"Name^{sender}x{number}", StudyDescription=f"{sender}x{number}",
                        SeriesDescription=f"{sender}x{number}",
                        Modality="CT" if sender % 2 else "MR",
                    ),
                )
                for number in range(EACH)
            ]  # fmt: skip

        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = [one for many in pool.map(send, range(THREADS)) for one in many]
        assert outcomes == [StoreOutcome.KEPT] * (THREADS * EACH)
        (study,) = listed(archive, Level.STUDY, StudyDescription="")
        assert study["NumberOfStudyRelatedSeries"] == "2"
        assert study["NumberOfStudyRelatedInstances"] == str(THREADS * EACH)
        (row,) = archive.database.execute(
            "SELECT s.origin, p.origin, (SELECT MIN(object_id) FROM instance) FROM study s "
            "JOIN patient p ON p.id = s.patient_row"
        )
        assert row[0] == row[1] == row[2]
        index = tables(archive.database, Kind.INDEX)
        assert archive.reindex.run(ADMIN, lambda: None) == []
        assert tables(archive.database, Kind.INDEX) == index


def test_the_same_instance_from_all_is_held_once(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        begin = threading.Barrier(THREADS)

        def send(_: int) -> StoreOutcome:
            begin.wait()
            return keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))

        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = list(pool.map(send, range(THREADS)))
        assert outcomes.count(StoreOutcome.KEPT) == 1
        assert outcomes.count(StoreOutcome.ALREADY_HELD) == THREADS - 1
        assert len(list((tmp_path / "store").rglob("*.dcm"))) == 1
        assert archive.conflicts.list(ADMIN, settled_too=True) == []
        assert list(archive.verification.run(ADMIN, lambda: None)) == []


def test_versions_that_race_leave_exactly_one_delivered(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        begin = threading.Barrier(THREADS)

        def send(sender: int) -> None:
            begin.wait()
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription=str(sender)))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(send, range(THREADS)))
        rows = list(archive.database.execute("SELECT delivered, object_id FROM instance"))
        assert len(rows) == THREADS
        assert [one[1] for one in rows if one[0]] == [min(one[1] for one in rows)]
        (series,) = listed(archive, Level.SERIES)
        assert series["NumberOfSeriesRelatedInstances"] == "1"


def test_deleting_while_others_store(url: str, tmp_path: Path) -> None:
    """What is hidden is what the journal names; counts stay true whoever comes first."""
    with opened(tmp_path, url) as archive:
        archive.reindex.recover()
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.0"))

        def send(sender: int) -> None:
            for number in range(EACH):
                keep(archive, data_set("1.1", "1.1.1", f"1.1.9.{sender}.{number}"))
                if sender == 0 and number % 4 == 0:
                    entry, _ = archive.deletions.delete(ADMIN, Level.SERIES, "1.1.1", reason="r")
                    if number:
                        archive.deletions.undo(ADMIN, entry.id, reason="r")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(send, range(4)))
        (counted,) = archive.database.execute(
            "SELECT (SELECT SUM(instance_count) FROM series), "
            "(SELECT COUNT(*) FROM instance WHERE deleted_by IS NULL)"
        )
        assert counted[0] == counted[1] > 0
        index = tables(archive.database, Kind.INDEX)
        archive.reindex.run(ADMIN, lambda: None)
        assert tables(archive.database, Kind.INDEX) == index
