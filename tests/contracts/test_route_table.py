"""The table of routes and what routing asks of the index keep their promises on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.records import Job
from pacs.core.routing import (
    Coercion,
    CoercionKind,
    Commitment,
    Priors,
    Route,
    RouteKey,
    Window,
)
from storage.database.route import RouteIndex, RouteTable
from tests.keeping import ADMIN, data_set, keep, opened

LOCAL = Registrant("local")
STUDY = StudyInstanceUID("1.1")
FULL = Route(
    name="full",
    level=Level.SERIES,
    destinations=(AETitle("A"), AETitle("B")),
    keys=(
        RouteKey(path="PatientName", value="Müller*"),
        RouteKey(path="Rows", value="1", unless=True),
    ),
    calling_ae_titles=("CT*",),
    called_ae_titles=("PACS",),
    registrants=(LOCAL,),
    windows=(Window(days=frozenset({0, 4}), begins=time(22), ends=time(6, 30)),),
    coercions=(Coercion(kind=CoercionKind.MAP, keyword="Modality", mapping={"CT": "OT"}),),
    priors=Priors(latest=3, same_modality=True, within_days=90),
    commitment=Commitment.REQUIRED,
    in_order=True,
    priority=-5,
)
PLAIN = Route(name="plain", level=Level.STUDY, destinations=(AETitle("A"),), active=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url) as made:
        yield made


@pytest.fixture
def table(archive: Archive) -> RouteTable:
    return RouteTable(archive.database)


@pytest.fixture
def index(archive: Archive) -> RouteIndex:
    return RouteIndex(archive.database)


def revision(archive: Archive) -> int:
    return int(next(archive.database.execute("SELECT number FROM revision"))[0])


def test_what_is_put_is_listed_by_name_and_in_the_snapshot(
    archive: Archive, table: RouteTable
) -> None:
    before = revision(archive)
    table.put([PLAIN, FULL], replacing=False)
    assert list(table.list()) == [FULL, PLAIN]
    assert table.find("full") == FULL
    assert table.find("nobody") is None
    assert revision(archive) == before + 1, "one change"
    archive.snapshots._looked_at = 0.0
    assert archive.snapshots.current().routes == (FULL, PLAIN)


def test_a_name_that_is_taken_is_replaced_only_when_asked(
    archive: Archive, table: RouteTable
) -> None:
    table.put([FULL], replacing=False)
    before = revision(archive)
    changed = replace(FULL, priority=9)
    with pytest.raises(EntryConflicts, match="full already"):
        table.put([changed, PLAIN, replace(PLAIN, name="another")], replacing=False)
    assert list(table.list()) == [FULL], "all or nothing"
    assert revision(archive) == before
    table.put([changed, PLAIN], replacing=True)
    assert list(table.list()) == [changed, PLAIN]


def test_routes_are_switched_and_removed_by_name(archive: Archive, table: RouteTable) -> None:
    table.put([FULL], replacing=False)
    before = revision(archive)
    table.activate("full", active=False)
    assert table.find("full") == replace(FULL, active=False)
    table.activate("full", active=True)
    table.remove("full")
    assert list(table.list()) == []
    assert revision(archive) == before + 3
    for change in (lambda: table.remove("full"), lambda: table.activate("full", active=True)):
        with pytest.raises(EntryNotFound, match="no route is named full"):
            change()


def test_jobs_that_have_not_ended_are_counted_by_how_their_keys_begin(
    archive: Archive, table: RouteTable
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    with archive.records.transaction() as unit:
        for key in ("k:a_b|1", "k:a_b|2", "k:aXb|1", "other", None):
            unit.enqueue(Job(kind="k", payload="", unique_key=key, not_before_utc=later))
    assert table.waiting(("k:a_b|",)) == 2
    assert table.waiting(("k:a_b|", "other")) == 3
    (first, *_) = archive.jobs.list(ADMIN)
    archive.jobs.cancel(ADMIN, first.id)
    assert table.waiting(("other", "k:")) == 4, "the newest has no key"


# --- the index ------------------------------------------------------------------------


def arrive(archive: Archive, study: str, series: str, sop: str, **more: Any) -> None:
    values = {key: more.pop(key) for key in list(more) if key[0].isupper()}
    keep(archive, data_set(study, series, sop, **values), **more)


def rows(index: RouteIndex, series: str | None = None) -> list[int]:
    asked = None if series is None else SeriesInstanceUID(series)
    return list(index.delivered(LOCAL, STUDY, asked))


def test_the_newest_is_the_one_received_last(archive: Archive, index: RouteIndex) -> None:
    assert index.newest(LOCAL, STUDY, None) is None
    arrive(archive, "1.1", "1.1.1", "1.1.1.1", ago_s=10)
    arrive(archive, "1.1", "1.1.1", "1.1.1.2", ago_s=30)
    arrive(archive, "1.1", "1.1.2", "1.1.2.1", ago_s=20)
    arrive(archive, "1.1", "1.1.2", "1.1.2.2", registrant="other")

    def newest(series: str | None) -> str:
        found = index.newest(LOCAL, STUDY, None if series is None else SeriesInstanceUID(series))
        assert found is not None
        read = archive.reindex.read(found[0])
        assert read.provenance.received_utc == found[1]
        return read.header.sop_instance_uid

    assert newest(None) == newest("1.1.1") == "1.1.1.1"
    assert newest("1.1.2") == "1.1.2.1"
    places = [index.newest(LOCAL, STUDY, None, but=passed) for passed in range(4)]
    read = [archive.reindex.read(one[0]).header for one in places if one is not None]
    assert [one.sop_instance_uid for one in read] == ["1.1.1.1", "1.1.2.1", "1.1.1.2"]
    assert places[3] is None, "what another registrant holds is not looked at"
    archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="test")
    assert newest(None) == "1.1.2.1"
    archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="test", registrant="local")
    assert index.newest(LOCAL, STUDY, None) is None


def test_rows_come_in_order_with_their_sources(archive: Archive, index: RouteIndex) -> None:
    for at in range(5):
        arrive(archive, "1.1", f"1.1.{at % 2}", f"1.1.0.{at}", source=f"CT{at}")
    arrive(archive, "1.2", "1.2.1", "1.2.1.1")
    arrive(archive, "1.1", "1.1.0", "1.1.0.9", registrant="other")
    everything = rows(index)
    assert len(everything) == 5
    assert everything == sorted(everything)
    assert rows(index, "1.1.1") == [everything[1], everything[3]]
    assert index.sources(everything) == {
        row: AETitle(f"CT{at}") for at, row in enumerate(everything)
    }
    assert index.sources([]) == {}
    archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.0.0", reason="test")
    assert rows(index) == everything[1:]


def test_what_comes_only_from_one_ae_is_known(archive: Archive, index: RouteIndex) -> None:
    arrive(archive, "1.1", "1.1.1", "1.1.1.1", source="A")
    arrive(archive, "1.1", "1.1.2", "1.1.2.1", source="B")
    one, two = SeriesInstanceUID("1.1.1"), SeriesInstanceUID("1.1.2")
    assert index.comes_only_from(AETitle("A"), LOCAL, STUDY, one)
    assert not index.comes_only_from(AETitle("A"), LOCAL, STUDY, two)
    assert not index.comes_only_from(AETitle("A"), LOCAL, STUDY, None)


def prior(archive: Archive, study: str, date: str, **more: Any) -> None:
    time_of_day = more.pop("at", "101010")
    arrive(
        archive, study, f"{study}.1", f"{study}.1.1", StudyDate=date, StudyTime=time_of_day, **more
    )


def test_priors_are_earlier_studies_of_the_same_patient(
    archive: Archive, index: RouteIndex
) -> None:
    prior(archive, "1.1", "20240501", BodyPartExamined="HEAD")
    prior(archive, "2.1", "20240501", at="0900")
    prior(archive, "2.2", "20240401", Modality="MR", BodyPartExamined="HEAD")
    prior(archive, "2.3", "20230501", BodyPartExamined="HEAD")
    prior(archive, "2.4", "20100101")
    for name, date, more in (
        ("3.1", "20240501", {"at": "101010"}),  # at the same time
        ("3.2", "20240502", {}),
        ("3.3", "", {"at": ""}),
        ("3.4", "20240101", {"PatientID": "P2"}),
        ("3.5", "20240101", {"registrant": "other"}),
        ("3.6", "20240101", {}),
    ):
        prior(archive, name, date, **more)
    archive.deletions.delete(ADMIN, Level.STUDY, "3.6", reason="test")

    def found(**asked: Any) -> list[str]:
        return list(index.priors(LOCAL, STUDY, Priors(**{"latest": 10, **asked})))

    assert found() == ["2.1", "2.2", "2.3", "2.4"]
    assert found(latest=2) == ["2.1", "2.2"]
    assert found(same_modality=True) == ["2.1", "2.3", "2.4"]
    assert found(same_body_part=True) == ["2.2", "2.3"]
    assert found(same_modality=True, same_body_part=True) == ["2.3"]
    assert found(within_days=366) == ["2.1", "2.2", "2.3"]
    assert found(within_days=365) == ["2.1", "2.2"]
    assert found(within_days=1_000_000) == found()
    assert list(index.priors(LOCAL, StudyInstanceUID("3.3"), Priors(latest=9))) == []
    assert list(index.priors(LOCAL, StudyInstanceUID("9.9"), Priors(latest=9))) == []


def test_studies_without_a_patient_id_have_no_priors(archive: Archive, index: RouteIndex) -> None:
    prior(archive, "1.1", "20240501", PatientID="")
    prior(archive, "2.1", "20240401", PatientID="")
    assert list(index.priors(LOCAL, STUDY, Priors(latest=9))) == []
