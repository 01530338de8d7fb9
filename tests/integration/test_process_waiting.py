"""Workitems whose input is not there yet are left alone until it is, and not for ever."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.core.identifiers import AETitle
from pacs.core.processing import ProcessingOrder
from pacs.core.workitem_errors import NoLongerUpdated
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process import Input, workitem_of
from pacs.services.process.words import told_time
from tests.integration.test_process_workitems import LOCAL, Home, home_of, reason

OTHER = replace(LOCAL, ae_title=AETitle("OTHER"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home_of(tmp_path_factory.mktemp("waiting"), count=2) as made:
        yield made


def ordered(home: Home, readiness: str, **says: Any) -> WorkitemUID:
    inputs = [Input(study_instance_uid=home.study, series_instance_uid=home.series)]
    data_set = workitem_of(ProcessingOrder(operation="median"), inputs, label="waits")
    data_set.InputReadinessState = readiness
    for name, value in says.items():
        setattr(data_set, name, value)
    return home.worklist.create(LOCAL, data_set)


def told(home: Home, uid: WorkitemUID, **says: Any) -> None:
    """Have another device of the same subscriber change it, as an N-SET does."""
    modifications = Dataset()
    for name, value in says.items():
        setattr(modifications, name, value)
    home.archive.workitems.modify(OTHER, uid, "", modifications)


def state(home: Home, uid: WorkitemUID) -> WorkitemState:
    home.work()
    return home.worklist.read(uid).state


def waits_for_h(home: Home, uid: WorkitemUID) -> float:
    """For how long the job leaves it alone yet."""
    ((when,),) = home.archive.database.execute(
        "SELECT not_before_utc FROM job WHERE kind = 'process.workitem' AND state = 'delayed' "
        "AND cause = ?",
        (f"workitem {uid}",),
    )
    return (datetime.fromisoformat(when) - datetime.now(UTC)).total_seconds() / 3_600


@pytest.mark.parametrize("readiness", ["INCOMPLETE", "UNAVAILABLE"])
def test_it_is_begun_when_its_input_is_ready(readiness: str, url: str, tmp_path: Path) -> None:
    with home_of(tmp_path, url, count=2) as home:
        uid = ordered(home, readiness)
        assert state(home, uid) is WorkitemState.SCHEDULED
        told(home, uid, ProcedureStepLabel="still waits")
        assert state(home, uid) is WorkitemState.SCHEDULED
        assert 0 < waits_for_h(home, uid) < 1
        assert home.jobs("process.piece") == []
        told(home, uid, InputReadinessState="READY")
        assert state(home, uid) is WorkitemState.COMPLETED
        assert home.usage() == [("local", "median", home.study, 2)]


def test_what_is_no_longer_ready_before_anybody_began_waits_again(home: Home) -> None:
    uid = ordered(home, "READY")
    told(home, uid, InputReadinessState="INCOMPLETE")
    assert state(home, uid) is WorkitemState.SCHEDULED
    told(home, uid, InputReadinessState="READY")
    assert state(home, uid) is WorkitemState.COMPLETED


def test_what_is_ready_is_not_begun_before_its_time(home: Home) -> None:
    begins = told_time(datetime.now(UTC) + timedelta(hours=5))
    uid = ordered(home, "INCOMPLETE", ScheduledProcedureStepStartDateTime=begins)
    told(home, uid, InputReadinessState="READY")
    assert state(home, uid) is WorkitemState.SCHEDULED
    assert 4 < waits_for_h(home, uid) <= 5


def test_what_expires_while_it_waits_ends(home: Home) -> None:
    over = told_time(datetime.now(UTC) - timedelta(seconds=1))
    uid = ordered(home, "INCOMPLETE", ScheduledProcedureStepExpirationDateTime=over)
    home.work()
    assert reason(home.worklist.read(uid)) == "the workitem has expired"
    soon = told_time(datetime.now(UTC) + timedelta(seconds=20))
    uid = ordered(home, "INCOMPLETE", ScheduledProcedureStepExpirationDateTime=soon)
    home.work()
    assert waits_for_h(home, uid) * 3_600 <= 20


def test_what_never_becomes_ready_ends_and_says_so(home: Home) -> None:
    uid = ordered(home, "UNAVAILABLE")
    home.work()
    rows = home.archive.database.execute(
        "SELECT id, payload FROM job WHERE cause = ?", (f"workitem {uid}",)
    )
    ((job, payload),) = rows
    made = datetime.now(UTC) - timedelta(seconds=home.archive.settings.process.max_wait_s + 1)
    long_ago = json.dumps({**json.loads(payload), "made": made.isoformat()})
    with home.archive.database.transaction():
        home.archive.database.write(
            "UPDATE job SET payload = ?, state = 'waiting', not_before_utc = NULL WHERE id = ?",
            (long_ago, job),
        )
    home.work()
    assert reason(home.worklist.read(uid)) == "the input did not become ready"


def test_what_is_cancelled_while_it_waits_stays_so(home: Home) -> None:
    uid = ordered(home, "INCOMPLETE")
    home.work()
    home.archive.workitems.request_cancel(LOCAL, uid, Dataset())
    with pytest.raises(NoLongerUpdated):
        told(home, uid, InputReadinessState="READY")
    assert state(home, uid) is WorkitemState.CANCELED
