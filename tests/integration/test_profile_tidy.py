"""What keeps the sources of a profile that gives them up: what else is to be done with them, and who says it is done."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pacs.app.profile import profiles
from pacs.app.route import routes
from pacs.core.attributes import Level
from pacs.core.caller import on_behalf
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID
from pacs.core.processing import Keep
from pacs.core.records import Job, StoreOutcome
from pacs.core.routing import Route
from pacs.core.work import JobState
from pacs.core.workitems import WorkitemState
from pacs.services.profile.asked import ARRIVED, TIDY
from pacs.services.route.asked import FireWork, PriorsWork
from storage.database.job_rows import text_utc
from tests.integration.test_profile import AE, LONG_AGO_S, SERIES, Home, Worklist, home, until_done
from tests.keeping import ADMIN, NO_CHORES, data_set, keep, opened

__all__ = ["home"]

LOCAL = Registrant("local")
STUDY = StudyInstanceUID(SERIES[0])


def set_state(home: Home, state: str, where: str) -> None:
    """Have jobs of other queues as if their workers had ended them so."""
    with home.archive.database.transaction():
        home.archive.database.write(f"UPDATE job SET state = '{state}' WHERE {where}")


def active(home: Home, *, active: bool) -> None:
    with profiles(home.archive) as service:
        service.activate(ADMIN, AE, active=active)
    home.known()


def waits(home: Home) -> None:
    """See that sources are held, and that it looks again."""
    assert home.said(TIDY) == []
    assert home.held()
    (job,) = home.archive.jobs.list(ADMIN, kind=TIDY)
    assert job.state is JobState.DELAYED


def ended(home: Home) -> dict[str, Any]:
    home.work()
    (said,) = home.said(TIDY)
    assert isinstance(said, dict)
    return said


# --- what else is to be done -------------------------------------------------------------------


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES])
def test_a_route_that_has_not_fired_yet_is_waited_for(home: Home, level: Level) -> None:
    until_done(home)
    routes(home.archive).add(ADMIN, Route(name="r", level=level, destinations=(AETitle("B"),)))
    home.known()
    home.send(1)
    home.quiet()
    home.completed()
    home.work()
    waits(home)
    set_state(home, "done", "kind LIKE 'quiet.%'")
    assert ended(home) == {"deleted": 1}


@pytest.mark.parametrize("state", ["delayed", "failed"])
def test_a_study_of_the_patient_that_may_take_it_along_is_waited_for(
    home: Home, state: str
) -> None:
    until_done(home)
    home.send(1)
    keep(home.archive, data_set("1.2", "1.2.1", "1.2.1.1"), called="PACS")
    home.quiet()
    asked = PriorsWork(
        route="r",
        destination=AETitle("B"),
        registrant=LOCAL,
        study_instance_uid=StudyInstanceUID("1.2"),
    ).job(not_before_utc=home.archive.job_table.now())
    enqueue(home, asked)
    set_state(home, state, "kind = 'route.priors'")
    home.completed()
    work(home)
    waits(home)
    set_state(home, "done", "kind = 'route.priors'")
    assert ended(home) == {"deleted": 1}


def enqueue(home: Home, job: Job) -> None:
    with home.archive.records.transaction() as unit:
        unit.enqueue(job)


def work(home: Home) -> None:
    """Work where there are dead letters of others, which ``Home.work`` does not want."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home.archive.jobs, "list", lambda *_, **__: [])
        home.work()


SENT = ForwardWork(route="r", destination=AETitle("B"), registrant=LOCAL, study_instance_uid=STUDY)
FIRED = FireWork(route="r", registrant=LOCAL, study_instance_uid=STUDY)


@pytest.mark.parametrize("asked", [SENT, FIRED])
def test_a_dead_letter_is_not_done_and_in_the_end_the_sources_stay(
    home: Home, asked: ForwardWork | FireWork
) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    enqueue(home, asked.job())
    set_state(home, "failed", "kind IN ('forward.send', 'route.fire')")
    home.completed()
    work(home)
    waits(home)
    with home.archive.database.transaction():  # it was asked for a month ago
        home.archive.database.write(
            "UPDATE job SET payload = replace(payload, ?, ?) WHERE kind = ?",
            ('"asked_utc": "20', '"asked_utc": "19', TIDY),
        )
    work(home)
    (said,) = home.said(TIDY)
    assert said["deleted"] == 0
    assert "for 30 days it is still to be sent or processed, or that has failed" in said["why"]
    assert home.held() == ["1"]


def test_another_profile_looks_at_and_processes_the_whole_series_first(home: Home) -> None:
    until_done(home)
    home.profile("OTHER", to=["B"])
    home.send(1, 2)
    home.send(3, called="OTHER")
    others = "kind = 'process.arrived' AND unique_key LIKE '%OTHER%'"
    set_state(home, "blocked", others)
    home.quiet()
    home.completed()
    home.work()
    waits(home)
    set_state(home, "delayed", others)
    home.work()
    assert home.worklist.inputs[-1] == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]
    waits(home)
    (other,) = (
        one for one in home.worklist.items.values() if "OTHER" in one.data_set.ProcedureStepLabel
    )
    other.state = WorkitemState.IN_PROGRESS
    home.work()
    waits(home)
    other.state = WorkitemState.CANCELED
    assert ended(home) == {"deleted": 2}
    assert home.held() == ["3"]


# --- what was processed ------------------------------------------------------------------------


def test_a_further_version_that_was_never_processed_keeps_the_series(home: Home) -> None:
    until_done(home)
    home.send(1)
    newer = data_set(*SERIES, "1.1.1.1", PatientComments="another")
    assert keep(home.archive, newer, called=AE) is StoreOutcome.KEPT_AS_VERSION
    home.quiet()
    assert home.worklist.inputs == [["1.1.1.1"]]
    said = home.given_up()
    assert said["deleted"] == 0
    assert "or has further versions" in said["why"]
    assert home.held() == ["1", "1"]


# --- whether the profile says so ---------------------------------------------------------------


def test_a_disabled_profile_gives_up_nothing(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    active(home, active=False)
    said = home.given_up()
    assert said == {"deleted": 0, "why": "the profile was removed or disabled"}
    assert home.held() == ["1"]


@pytest.mark.parametrize("way", ["enable", "replace", "replace by a disabled one"])
def test_what_came_before_it_was_enabled_again_stays(home: Home, way: str) -> None:
    until_done(home)
    made = home.archive.snapshots.newest().profiles[AETitle(AE)]
    if way == "replace by a disabled one":
        home.profile(to=["A"], keep_sources=Keep.UNTIL_DONE, active=False, replacing=True)
    else:
        active(home, active=False)
    home.send(1)
    if way == "replace":
        with profiles(home.archive) as service:
            service.add(ADMIN, made, replacing=True)
        home.known()
    else:
        active(home, active=True)
    home.send(2)
    past = text_utc(home.archive.job_table.now() - timedelta(seconds=LONG_AGO_S))
    with home.archive.database.transaction():  # 1 came while it was disabled, as told by the clock
        home.archive.database.write("UPDATE instance SET received_utc = ?", (past,))
    home.work()
    assert home.given_up() == {"deleted": 0}
    assert home.held() == ["1", "2"]


# --- who says that it is done ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        ({"session": "2.25.99"}, "were not made here"),
        ({"pieces": 2}, "were not made here"),
        ({"registrant": Registrant("other")}, "are another's"),
        ({"study_instance_uid": StudyInstanceUID("1.7")}, "of another study"),
        ({"reasons": ("slices are missing",)}, "some of it gave no result"),
        ({"made": ()}, "names results that were not made here"),
    ],
)
def test_only_a_whole_session_of_our_own_performer_is_believed(
    home: Home, piece: dict[str, Any], why: str
) -> None:
    """Another device may claim the workitem, and end it with what the destination has anyway."""
    until_done(home)
    home.send(1)
    home.quiet()
    home.completed(**piece)
    said = ended(home)
    assert said["deleted"] == 0
    assert why in said["why"]
    assert home.held() == ["1"]


def test_a_workitem_of_another_registrant_is_not_believed(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    home.completed()
    home.worklist.only.caller = on_behalf(Registrant("other"), "test")
    assert "are another's" in ended(home)["why"]
    assert home.held() == ["1"]


def test_the_workitem_of_a_profile_is_this_stations_alone(tmp_path: Path) -> None:
    with opened(tmp_path, **NO_CHORES) as archive:
        there = Home(archive, Worklist())
        there.profile()
        there.send(1)
        there.quiet()
        (uid,) = (said["workitem"] for said in there.said(ARRIVED))
        made = archive.workitems.read(uid)
        (station,) = made.data_set.ScheduledStationNameCodeSequence
        assert station.CodeValue == archive.settings.dicom.ae_title
        assert made.registrant == LOCAL


# --- what is noted of what comes again --------------------------------------------------------------


def test_all_titles_that_are_no_profiles_are_noted_as_one(home: Home) -> None:
    until_done(home)
    home.profile("OTHER", to=["B"])
    home.send(1)
    for called in ("PACS", "ANY1", "ANY2", AE, "OTHER", "ANY1", AE):
        assert home.send(1, called=called) == [StoreOutcome.ALREADY_HELD]
    rows = home.archive.database.execute("SELECT ae_title FROM profile_spared ORDER BY 1")
    assert [row[0] for row in rows] == ["", AE, "OTHER"]
    home.quiet()
    for item in home.worklist.items.values():
        item.state = WorkitemState.CANCELED
    home.completed()
    home.work()
    assert home.held() == ["1"]
