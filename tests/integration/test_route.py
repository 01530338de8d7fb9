"""Routing from a real arrival to the jobs of forwarding: quiet, late, deleted, judged, with priors."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.app.archive import Archive
from pacs.app.route import judge, routes
from pacs.app.worker import kinds_of
from pacs.core.attributes import Level
from pacs.core.errors import DestinationUnknown, EntryConflicts
from pacs.core.forwarding import FORWARD
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Instance, Place
from pacs.core.routing import Priors, Route, RouteKey
from pacs.core.work import JobState
from pacs.jobs.keeper import Keeper
from pacs.jobs.schedules import Scheduler
from pacs.jobs.worker import Worker
from storage.database.job_rows import text_utc
from tests.keeping import ADMIN, NO_CHORES, data_set, keep, opened

LOCAL = Registrant("local")
LONG_AGO_S = 1_000.0
QUIET = ("quiet", "route")
"""The queues of ours: nobody here sends."""


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(
        tmp_path,
        url,
        **NO_CHORES,
    ) as made:
        for at, title in enumerate(("A", "B", "CT1")):
            made.peers.add(ADMIN, title, "127.0.0.1", 4_000 + at)
        yield made


@contextmanager
def hands(archive: Archive) -> Iterator[Worker]:
    keeper = Keeper(
        archive.job_table,
        Scheduler(archive.job_table, [], "UTC"),
        archive.settings.jobs,
        owner="me",
        give_up=lambda: None,
    )
    keeper.start()
    yield Worker(
        archive.job_table, kinds_of(archive), archive.settings.jobs, keeper=keeper, queues=QUIET
    )
    keeper.stop()


def work(archive: Archive) -> None:
    """Run whatever of ours is due."""
    with hands(archive) as worker:
        worker.work(threading.Event())
    failed = archive.jobs.list(ADMIN, state=JobState.FAILED)
    assert [one.last_error for one in failed] == []


def add(archive: Archive, name: str, level: Level, *to: str, **more: Any) -> None:
    keys = tuple(
        RouteKey(path=path.removeprefix("!"), value=value, unless=path.startswith("!"))
        for path, value in more.pop("keys", {}).items()
    )
    made = Route(
        name=name,
        level=level,
        destinations=tuple(map(AETitle, to or ("A",))),
        keys=keys,
        **more,
    )
    routes(archive).add(ADMIN, made)
    archive.snapshots._looked_at = 0.0  # known at once, not within a second


def forwards(archive: Archive) -> list[tuple[str, str, str, str | None, bool]]:
    """Jobs of forwarding that wait: route, destination, study, series, whole; and forget them."""
    found = archive.jobs.list(ADMIN, kind=FORWARD, state=JobState.WAITING)
    for one in found:
        archive.jobs.cancel(ADMIN, one.id)
    said = [json.loads(one.payload) for one in reversed(found)]
    return [
        (
            one["route"],
            one["destination"],
            one["study_instance_uid"],
            one["series_instance_uid"],
            one["whole"],
        )
        for one in said
    ]


def waiting(archive: Archive, kind: str) -> int:
    states = (JobState.WAITING, JobState.DELAYED)
    return sum(len(archive.jobs.list(ADMIN, kind=kind, state=one)) for one in states)


def overdue(archive: Archive, *, kind: str) -> None:
    """Let what is delayed be due: its time has come."""
    with archive.database.transaction():
        archive.database.write(
            "UPDATE job SET not_before_utc = '2020' WHERE state = 'delayed' AND kind = ?", (kind,)
        )


def passed(archive: Archive) -> None:
    """Let what was received have been received long ago."""
    past = text_utc(archive.job_table.now() - timedelta(seconds=LONG_AGO_S))
    with archive.database.transaction():
        archive.database.write("UPDATE instance SET received_utc = ?", (past,))


# --- instances ---------------------------------------------------------------------------


def test_an_arrival_and_its_job_are_one_transaction_and_one_job_a_study(archive: Archive) -> None:
    add(archive, "ct", Level.IMAGE, keys={"Modality": "CT"})
    add(archive, "mr", Level.IMAGE, keys={"Modality": "MR"})
    for at in range(3):
        keep(archive, data_set("1.1", "1.1.1", f"1.1.1.{at}"))
    keep(archive, data_set("1.2", "1.2.1", "1.2.1.1"))
    keep(archive, data_set("1.2", "1.2.1", "1.2.1.1"))
    assert forwards(archive) == [
        ("ct", "A", "1.1", None, False),
        ("ct", "A", "1.2", None, False),
    ]
    keep(archive, data_set("1.2", "1.2.1", "1.2.1.1"))
    assert forwards(archive) == [], "what is held already does not arrive"


def test_without_routes_nothing_is_asked_for(archive: Archive) -> None:
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
    assert list(archive.jobs.list(ADMIN)) == []


def test_senders_of_the_same_studies_do_not_wait_for_each_other_for_ever(archive: Archive) -> None:
    for at in range(3):
        add(archive, f"i{at}", Level.IMAGE, "B", "A", priors=Priors(latest=1))
    add(archive, "e", Level.SERIES)
    add(archive, "s", Level.STUDY)
    kept: list[str] = []

    def send(sender: int) -> None:
        for at in range(10):
            study = f"1.{at % 2 + 1}"
            keep(archive, data_set(study, f"{study}.{sender % 2}", f"{study}.{sender}.{at}"))
            kept.append(study)

    senders = [threading.Thread(target=send, args=(one,)) for one in range(4)]
    for one in senders:
        one.start()
    for one in senders:
        one.join(120)
    assert len(kept) == 40
    assert waiting(archive, FORWARD) == 2 * 6
    assert waiting(archive, "quiet.series") == 4
    assert waiting(archive, "quiet.study") == 2


# --- quiet -------------------------------------------------------------------------------


def test_a_study_fires_whole_when_it_is_quiet(archive: Archive) -> None:
    add(archive, "mr", Level.STUDY, "A", "B", keys={"Modality": "MR"}, priority=3)
    add(archive, "us", Level.STUDY, keys={"Modality": "US"})
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="MR"), ago_s=LONG_AGO_S)
    assert waiting(archive, "quiet.study") == 1
    work(archive)
    assert waiting(archive, "quiet.study") == waiting(archive, "route.fire") == 0
    asked = archive.jobs.list(ADMIN, kind=FORWARD)
    assert {(one.queue, one.priority, one.cause) for one in asked} == {
        ("forward:A", 3, "route mr"),
        ("forward:B", 3, "route mr"),
    }
    assert forwards(archive) == [
        ("mr", "A", "1.1", None, True),
        ("mr", "B", "1.1", None, True),
    ]


def test_series_fire_each_by_themselves(archive: Archive) -> None:
    add(archive, "ct", Level.SERIES, keys={"SeriesDescription": "Axial*"})
    for at, said in enumerate(("Axial 1", "Scout", "Axial 2")):
        made = data_set("1.1", f"1.1.{at}", f"1.1.{at}.1", SeriesDescription=said)
        keep(archive, made, ago_s=LONG_AGO_S)
    assert waiting(archive, "quiet.series") == 3
    work(archive)
    assert sorted(forwards(archive)) == [
        ("ct", "A", "1.1", "1.1.0", True),
        ("ct", "A", "1.1", "1.1.2", True),
    ]


def test_an_arrival_meanwhile_puts_off_what_is_not_quiet_yet(archive: Archive) -> None:
    add(archive, "all", Level.STUDY)
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
    work(archive)
    assert forwards(archive) == [], "it is not due yet"
    overdue(archive, kind="quiet.study")
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.2"))
    work(archive)
    assert forwards(archive) == [], "it is due, and something has just arrived"
    assert waiting(archive, "quiet.study") == 1, "it looks again, once"
    (later,) = archive.jobs.list(ADMIN, kind="quiet.study", state=JobState.DELAYED)
    found = next(archive.database.execute("SELECT MAX(received_utc) FROM instance"))[0]
    assert later.not_before_utc is not None
    assert later.not_before_utc > found
    passed(archive)
    overdue(archive, kind="quiet.study")
    work(archive)
    assert forwards(archive) == [("all", "A", "1.1", None, True)]


def test_an_arrival_while_it_looks_asks_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(archive, "all", Level.STUDY)
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    late = data_set("1.1", "1.1.1", "1.1.1.2")
    reindex = type(archive.reindex)
    read = reindex.read

    def slow(self: Any, place: Place) -> Instance:
        monkeypatch.setattr(reindex, "read", read)
        sender = threading.Thread(target=keep, args=(archive, late))
        sender.start()
        sender.join(60)
        assert not sender.is_alive()
        return read(self, place)

    with hands(archive) as worker:
        quiet = worker._kinds["quiet.study"]
        monkeypatch.setattr(
            quiet.handler.__self__, "_read", lambda place: slow(archive.reindex, place)
        )
        worker.work(threading.Event())
    assert forwards(archive) == [("all", "A", "1.1", None, True)]
    assert waiting(archive, "quiet.study") == 1, "the late one is looked at by a job of its own"


def test_a_late_instance_fires_once_more(archive: Archive) -> None:
    add(archive, "ct", Level.STUDY, keys={"Modality": "CT"})
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    work(archive)
    assert len(forwards(archive)) == 1
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="SR"), ago_s=LONG_AGO_S - 1)
    work(archive)
    assert forwards(archive) == [("ct", "A", "1.1", None, True)], "another instance keeps the keys"


def test_what_was_deleted_meanwhile_ends_quietly(archive: Archive) -> None:
    add(archive, "all", Level.STUDY)
    add(archive, "each", Level.SERIES)
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="test")
    work(archive)
    assert forwards(archive) == []
    assert waiting(archive, "quiet.study") == waiting(archive, "quiet.series") == 0


def test_a_route_switched_off_or_removed_meanwhile_asks_for_nothing(archive: Archive) -> None:
    for name in ("off", "gone", "on"):
        add(archive, name, Level.STUDY)
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    with archive.records.transaction() as unit:
        instance = archive.reindex.read(next(archive.store.places()))
        for one in archive.ingest.asked(ADMIN, Level.STUDY, instance):
            unit.enqueue(one)
    assert waiting(archive, "route.fire") == 3
    routes(archive).activate(ADMIN, "off", active=False)
    assert routes(archive).remove(ADMIN, "gone") == 1, "what waits in its name"
    archive.snapshots._looked_at = 0.0
    work(archive)
    assert forwards(archive) == [("on", "A", "1.1", None, True)]


# --- never back ----------------------------------------------------------------------------


def test_nothing_goes_back_to_where_all_of_it_came_from(archive: Archive) -> None:
    add(archive, "s", Level.STUDY, "A", "CT1")
    add(archive, "i", Level.IMAGE, "A", "CT1")
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    work(archive)
    assert {one[1] for one in forwards(archive)} == {"A"}
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.2"), source="X", ago_s=LONG_AGO_S)
    work(archive)
    assert {one[1] for one in forwards(archive)} == {"A", "CT1"}
    judging = judge(archive)
    rows = [row[0] for row in archive.database.execute("SELECT id FROM instance ORDER BY id")]
    assert judging.came_from(AETitle("CT1"), rows) == {rows[0]}


# --- the judge -----------------------------------------------------------------------------


def of_step(sop: str, step: str, **more: Any) -> Dataset:
    """An object of a scheduled step; each series of the study has its own first one."""
    item = Dataset()
    item.ScheduledProcedureStepID = step
    return data_set("1.1", "1.1.1", sop, RequestAttributesSequence=Sequence([item]), **more)


def selected(archive: Archive, **asked: Any) -> list[str]:
    keys = tuple(
        RouteKey(path=path.removeprefix("!"), value=value, unless=path.startswith("!"))
        for path, value in asked.pop("keys", {}).items()
    )
    route = Route(name="r", level=Level.IMAGE, destinations=(AETitle("A"),), keys=keys)
    rows = dict(archive.database.execute("SELECT id, sop_instance_uid FROM instance"))
    chosen = judge(archive).selects(replace(route, **asked), LOCAL, list(rows))
    return sorted(rows[row] for row in chosen)


def test_the_judge_asks_the_index_and_then_the_file(archive: Archive) -> None:
    one, two, three = "1.1.1.1", "1.1.1.2", "1.1.1.3"
    keep(archive, of_step(one, "S1", ImageType=["ORIGINAL"], KVP="120"), source="CT1")
    keep(archive, of_step(two, "S2", ImageType=["DERIVED"]), source="CT2", called="OTHER")
    keep(archive, data_set("1.1", "1.1.2", three, Modality="MR", KVP="80"), ago_s=LONG_AGO_S)
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.9", Modality="MR"), registrant="other")
    everything = [one, two, three]
    assert selected(archive) == everything, "and nothing of others"
    assert selected(archive, keys={"ImageType": "ORIGINAL"}) == [one]
    assert selected(archive, keys={"!ImageType": "ORIGINAL"}) == [two, three]
    assert selected(archive, keys={"KVP": "120"}) == [one]
    assert selected(archive, keys={"KVP": "*"}) == [one, three]
    assert selected(archive, keys={"!KVP": "120"}) == [two, three]
    assert selected(archive, keys={"Modality": "MR"}) == [three]
    assert selected(archive, keys={"ModalitiesInStudy": "MR"}) == everything
    assert selected(archive, keys={"!SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2"}) == []
    assert selected(archive, calling_ae_titles=("CT2",)) == [two]
    assert selected(archive, called_ae_titles=("OTH*",)) == [two]
    assert selected(archive, registrants=(Registrant("other"),)) == []


def test_an_instance_counts_with_its_own_values_where_its_series_says_otherwise(
    archive: Archive,
) -> None:
    one, two = "1.1.1.1", "1.1.1.2"
    step = "RequestAttributesSequence.ScheduledProcedureStepID"
    keep(archive, of_step(one, "S1", StudyDescription="Head"))
    keep(archive, of_step(two, "S2", StudyDescription="Neck"))
    assert selected(archive, keys={step: "S2"}) == [two], "the index knows S1 only"
    assert selected(archive, keys={step: "S1"}) == [one, two], "C-FIND says so of both"
    assert selected(archive, keys={f"!{step}": "S2"}) == [one], "what is excluded stays at home"
    assert selected(archive, keys={"!StudyDescription": "Head"}) == []


def test_a_file_that_cannot_be_read_keeps_no_condition_that_needs_it(archive: Archive) -> None:
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", KVP="120"))
    (place,) = archive.store.places()
    path = Path(archive.store.path(place))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[: place.data_set_offset + 20])
    assert selected(archive, keys={"Modality": "CT"}) == ["1.1.1.1"]
    assert selected(archive, keys={"KVP": "120"}) == []
    assert selected(archive, keys={"!KVP": "80"}) == [], "nobody can tell"
    assert selected(archive, keys={"!Modality": "MR"}) == []
    assert selected(archive, called_ae_titles=("OTHER",)) == []


def test_many_instances_are_judged_in_pages(archive: Archive) -> None:
    add(archive, "one", Level.STUDY, keys={"InstanceNumber": "205"})
    for at in range(206):
        made = data_set("1.1", "1.1.1", f"1.1.1.{at}", InstanceNumber=str(at))
        keep(archive, made, ago_s=LONG_AGO_S)
    assert len(selected(archive, keys={"Modality": "CT"})) == 206
    work(archive)
    assert len(forwards(archive)) == 1


# --- priors --------------------------------------------------------------------------------


def test_priors_go_along_after_the_study_itself(archive: Archive) -> None:
    for study, date, source in (
        ("2.1", "20240401", "X"),
        ("2.2", "20240301", "A"),
        ("2.3", "20240201", "X"),
    ):
        keep(archive, data_set(study, f"{study}.1", f"{study}.1.1", StudyDate=date), source=source)
    add(archive, "s", Level.STUDY, priors=Priors(latest=2), priority=4)
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), ago_s=LONG_AGO_S)
    work(archive)
    asked = {
        (json.loads(one.payload)["study_instance_uid"], one.priority)
        for one in archive.jobs.list(ADMIN, kind=FORWARD)
    }
    assert asked == {("1.1", 4), ("2.1", 3)}, "2.2 came from there"
    forwards(archive)
    routes(archive).remove(ADMIN, "s")
    add(archive, "i", Level.IMAGE, "B", keys={"KVP": "120"}, priors=Priors(latest=1))
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.2", KVP="80"), ago_s=LONG_AGO_S)
    assert waiting(archive, "route.priors") == 1
    work(archive)
    assert forwards(archive) == [("i", "B", "1.1", None, False)], "none is selected, so no priors"
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.3", KVP="120"), ago_s=LONG_AGO_S)
    work(archive)
    assert forwards(archive) == [
        ("i", "B", "1.1", None, False),
        ("i", "B", "2.1", None, True),
    ]


# --- administration ------------------------------------------------------------------------


def test_an_import_is_all_or_nothing_and_on_record(archive: Archive, tmp_path: Path) -> None:
    add(archive, "one", Level.STUDY, keys={"Modality": "CT"})
    add(archive, "two", Level.IMAGE, "B")
    admin = routes(archive)
    text = admin.exported(ADMIN)
    assert json.loads(admin.exported(ADMIN, ["two"]))["routes"][0]["name"] == "two"
    admin.remove(ADMIN, "one")
    with pytest.raises(EntryConflicts, match="two already"):
        admin.imported(ADMIN, text)
    assert [one.name for one in admin.list(ADMIN)] == ["two"], "nothing of it"
    admin.imported(ADMIN, text, replacing=True)
    assert admin.exported(ADMIN) == text
    broken = text.replace('"to": [\n    "B"', '"to": [\n    "NOPE"')
    assert broken != text
    admin.remove(ADMIN, "one")
    with pytest.raises(DestinationUnknown):
        admin.imported(ADMIN, broken, replacing=True)
    assert [one.name for one in admin.list(ADMIN)] == ["two"]
    (trail,) = (tmp_path / "audit").glob("*.jsonl")
    events = [json.loads(line)["event"] for line in trail.read_text().splitlines()]
    assert events.count("route-changed") == 4
    assert events.count("route-removed") == 2
