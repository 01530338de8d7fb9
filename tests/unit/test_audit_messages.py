"""Records of the trail as DICOM audit messages: the right event, valid against PS3.15 A.5.1, no count lost."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.sr._concepts_dict import concepts

from config.settings import Audit
from pacs.observe.audit import codes
from pacs.observe.audit.codes import Code
from pacs.observe.audit.fold import MOST_IN_ONE, Folded, Folding
from pacs.observe.audit.mapping import messages_of
from pacs.observe.audit.message import xml_of
from pacs.observe.audit.records import Spot
from pacs.observe.audit.syslog import framed
from tests.auditing import CT, SOURCE, checked, details, event_of

BEGUN = datetime(2026, 5, 4, 12, tzinfo=UTC)
WHO = {
    "subscriber": "radiology",
    "ae_title": "MODALITY",
    "address": "192.0.2.7",
    "association": "a1",
}
STORED = {"event": "C-STORE", **WHO, "sop_class_uid": CT, "outcome": "success", "status": "0000"}


def numbered(records: Sequence[dict[str, Any]], every_s: float = 0.1) -> list[dict[str, Any]]:
    return [
        {"n": index + 1, "time": (BEGUN + timedelta(seconds=index * every_s)).isoformat(), **one}
        for index, one in enumerate(records)
    ]


def folded(records: Sequence[dict[str, Any]], **given: float) -> list[Folded]:
    folding = Folding(Audit(**given))  # type: ignore[arg-type]  # seconds only
    found = [
        one
        for record in records
        for one in folding.take(record, Spot(1, int(record["n"]), int(record["n"]) - 1))
    ]
    return [*found, *folding.rest()]


def told(record: dict[str, Any]) -> list[Any]:
    """The messages of one record, checked."""
    (one,) = folded(numbered([record]))
    return [checked(xml_of(message, SOURCE)) for message in messages_of(one, SOURCE)]


@pytest.mark.parametrize(
    ("record", "event", "kinds", "outcome"),
    [
        ({"event": "started", "port": 104}, "Application Activity", ["Application Start"], "0"),
        ({"event": "stopped"}, "Application Activity", ["Application Stop"], "0"),
        ({"event": "workers-started"}, "Application Activity", ["Application Start"], "0"),
        ({"event": "audit-read", **WHO}, "Audit Log Used", [], "0"),
        ({"event": "audit-verified", "damages": 0, **WHO}, "Audit Log Used", [], "0"),
        (
            {"event": "audit-verified", "damages": 2, **WHO},
            "Security Alert",
            ["Object Security Attributes Changed"],
            "8",
        ),
        ({"event": "audit-missed", "records": 2}, "Security Alert", ["Audit Recording Stopped"], "8"),
        ({"event": "retrieve-begun", **WHO}, "Begin Transferring DICOM Instances", [], "0"),
        ({**STORED, "study": "1.2.3"}, "DICOM Instances Transferred", [], "0"),
        ({**STORED, "outcome": "failure", "status": "A700"}, "DICOM Instances Transferred", [], "4"),
        ({"event": "deleted", **WHO, "level": "STUDY", "study": "1.2"}, "DICOM Study Deleted", [], "0"),
        ({"event": "deleted", **WHO, "level": "SERIES"}, "DICOM Instances Accessed", [], "0"),
        ({"event": "conflict-settled", **WHO}, "DICOM Instances Accessed", [], "0"),
        ({"event": "files-received", **WHO, "files": 3}, "Export", [], "0"),
        ({"event": "poll", "peer": "OTHER", **WHO}, "Query", [], "0"),
        (
            {"event": "association-refused", "calling_ae_title": "X", "answer": "1/1/3"},
            "Security Alert",
            ["Node Authentication"],
            "4",
        ),
        ({"event": "tls-refused", "address": "::1"}, "Security Alert", ["Node Authentication"], "4"),
        ({"event": "peer-changed", **WHO}, "Security Alert", ["Network Configuration"], "0"),
        ({"event": "route-removed", **WHO}, "Security Alert", ["Network Configuration"], "0"),
        ({"event": "subscriber-added", **WHO}, "Security Alert", ["Security Configuration"], "0"),
        ({"event": "user-added", **WHO}, "Security Alert", ["User Security Attributes Changed"], "0"),
        ({"event": "C-FIND", **WHO, "status": "0124"}, "Security Alert", ["Use of Restricted Function"], "4"),
        ({"event": "something-new", **WHO}, "Security Alert", ["Use of Restricted Function"], "0"),
    ],
)  # fmt: skip
def test_a_record_becomes_the_message_the_standard_has_for_it(
    record: dict[str, Any], event: str, kinds: list[str], outcome: str
) -> None:
    (root,) = told(record)
    assert event_of(root) == (event, kinds)
    assert [one.get("EventOutcomeIndicator") for one in root.iter("EventIdentification")] == [
        outcome
    ]
    (source,) = root.iter("AuditSourceIdentification")
    assert source.attrib == {"AuditEnterpriseSiteID": "HOSPITAL", "AuditSourceID": "PACS"}


@pytest.mark.parametrize("event", ["C-ECHO", "N-ACTION", "association", "event-report"])
def test_what_the_standard_has_no_message_for_stays_local(event: str) -> None:
    assert told({"event": event, **WHO, "outcome": "success", "status": "0000"}) == []


def test_a_login_is_told_of_whoever_said_who_they_are() -> None:
    (root,) = told({"event": "association", **WHO, "user": "ada"})
    assert event_of(root) == ("User Authentication", ["Login"])
    alert, login = told({"event": "association-refused", **WHO, "user": "ada", "answer": "1/1/1"})
    assert event_of(alert)[0] == "Security Alert"
    assert event_of(login) == ("User Authentication", ["Login"])
    person = next(login.iter("ActiveParticipant"))
    assert (person.get("UserID"), person.get("NetworkAccessPointID")) == ("ada", "192.0.2.7")


def test_sender_and_receiver_have_their_roles() -> None:
    (root,) = told({**STORED, "study": "1.2.3"})
    roles = {
        one.get("UserID"): [each.get("csd-code") for each in one.iter("RoleIDCode")]
        for one in root.iter("ActiveParticipant")
    }
    assert roles == {"MODALITY": ["110153"], "PACS": ["110152"]}
    moved = {"event": "C-MOVE", **WHO, "destination": "READING", "completed": 3, "failed": 1}
    done, failed = told({**moved, "study": ["1.2", "1.3"], "outcome": "warning", "status": "B000"})
    assert [one.get("UserID") for one in done.iter("ActiveParticipant")] == [
        "PACS",
        "READING",
        "MODALITY",
    ]
    assert details(done)["NumberOfInstances"] == "3"
    assert details(failed)["NumberOfInstances"] == "1"
    assert [one.get("EventOutcomeIndicator") for one in failed.iter("EventIdentification")] == ["4"]
    ids = [one.get("ParticipantObjectID") for one in done.iter("ParticipantObjectIdentification")]
    assert ids == ["1.2", "1.3", "unknown"]


def test_a_query_says_its_keys_and_no_patients_values() -> None:
    asked = {"level": "STUDY", "study": ["1.2.3"], "keys": ["00080052", "00100010", "00111001"]}
    (root,) = told(
        {"event": "C-FIND", **WHO, **asked, "sop_class_uid": "1.2.840.1", "outcome": "success"}
    )
    (query,) = (one.text for one in root.iter("ParticipantObjectQuery"))
    data_set = dcmread(BytesIO(base64.b64decode(str(query))), force=True)
    assert (data_set.QueryRetrieveLevel, data_set.StudyInstanceUID) == ("STUDY", "1.2.3")
    assert not data_set.PatientName and 0x00111001 in data_set


def test_stores_of_a_study_are_one_message_and_none_is_lost() -> None:
    records = numbered([{**STORED, "study": f"1.{index % 2}"} for index in range(20)])
    found = folded(records)
    assert [(one.text("study"), one.count, one.first, one.last) for one in found] == [
        ("1.0", 10, 1, 19),
        ("1.1", 10, 2, 20),
    ]
    (message,) = messages_of(found[0], SOURCE)
    root = checked(xml_of(message, SOURCE))
    assert details(root) == {"SpoolRecords": "1-19", "NumberOfInstances": "10"}
    assert [one.get("NumberOfInstances") for one in root.iter("SOPClass")] == ["10"]


def test_ten_thousand_refusals_of_a_stranger_are_few_messages() -> None:
    refused = {"event": "association-refused", "address": "192.0.2.66", "answer": "1/1/3"}
    found = folded(numbered([refused] * (MOST_IN_ONE + 5), every_s=0.001))
    assert [one.count for one in found] == [MOST_IN_ONE, 5]
    (message,) = messages_of(found[0], SOURCE)
    assert details(checked(xml_of(message, SOURCE)))["Count"] == str(MOST_IN_ONE)


def test_a_fold_ends_when_nothing_more_comes_or_it_lasts_too_long() -> None:
    slow = folded(
        numbered([{**STORED, "study": "1"}] * 10, every_s=4), fold_quiet_s=5, fold_max_s=20
    )
    assert [one.count for one in slow] == [5, 5]
    slower = folded(numbered([{**STORED, "study": "1"}] * 4, every_s=6), fold_quiet_s=5)
    assert [one.count for one in slower] == [1, 1, 1, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["C-STORE", "C-ECHO", "association-refused", "peer-changed"]),
            st.sampled_from(["1.2", "1.3", ""]),
            st.sampled_from(["success", "failure"]),
        ),
        max_size=60,
    ),
    st.floats(0.01, 30),
)
def test_folding_loses_no_record_whatever_comes(
    drawn: list[tuple[str, str, str]], every_s: float
) -> None:
    records = numbered(
        [{"event": event, "study": study, "outcome": how} for event, study, how in drawn], every_s
    )
    folding = Folding(Audit())
    covered = 0
    for record in records:
        behind = Spot(1, int(record["n"]), int(record["n"]))
        for one in folding.take(record, Spot(1, behind.offset - 1, behind.number - 1)):
            covered += one.count
        # The place is never behind a record that is in no message yet.
        assert folding.safe(behind).number <= covered
    covered += sum(one.count for one in folding.rest())
    assert covered == len(records)
    end = Spot(1, len(records), len(records))
    assert folding.safe(end) == end


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_whatever_a_peer_calls_itself_the_xml_is_well_formed(name: str, user: str) -> None:
    for root in told({"event": "association-refused", "calling_ae_title": name, "user": user}):
        assert root.tag == "AuditMessage"


def test_codes_are_those_of_the_standard() -> None:
    known = {
        code: meaning
        for entries in concepts["DCM"].values()
        for code, (meaning, *_) in entries.items()
    }
    ours = [one for one in vars(codes).values() if isinstance(one, Code) and one.system == "DCM"]
    assert len(ours) > 25
    assert [one for one in ours if known.get(one.value) != one.meaning] == []


def test_a_frame_counts_octets_and_not_characters() -> None:
    body = "<a>ü</a>".encode()
    frame = framed(body, host="a b\n", sent_utc=BEGUN, number=2**31, failed=True)
    length, _, rest = frame.partition(b" ")
    assert int(length) == len(rest)
    assert rest.startswith(b"<84>1 2026-05-04T12:00:00.000Z ab pacs ")
    assert b' DICOM+RFC3881 [meta sequenceId="1"] \xef\xbb\xbf<a>' in rest
