"""Profiles without an archive: what asks for a look, what can be kept, how workitems are named."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from config.settings import Arrival as ArrivalSettings
from pacs.core.attributes import Level
from pacs.core.caller import Right, on_behalf
from pacs.core.contract import Contract, ContractState, Purpose
from pacs.core.errors import DestinationUnknown, EntryConflicts, NotAuthorized
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.processing import Keep, ProcessingOrder, Profile
from pacs.core.profile_form import form_of, profile_of
from pacs.core.records import Arrival, Instance, Job, Peer, Snapshot
from pacs.services.profile import ProfileRules, stands_for_profile
from pacs.services.profile.asked import ArrivedWork
from pacs.services.profile.checks import check
from pacs.services.profile.desk import name_patient, workitem_uid
from pacs.services.profile.grant import granted
from pacs.services.route import Ourselves
from tests.unit.test_route_conditions import MONDAY_NOON, instance, whole

MIP = Profile(ae_title=AETitle("MIP_AXIAL"), order=ProcessingOrder(operation="mip"))
RULES = ProfileRules(ArrivalSettings(series_quiet_s=30.0))
LOCAL = Registrant("local")
OURSELVES = Ourselves(ae_title=AETitle("PACS"), host="127.0.0.1", port=11112)
PEERS = {
    AETitle(title): Peer(ae_title=AETitle(title), host="192.0.2.1", port=104) for title in "AB"
} | {AETitle("SELF"): Peer(ae_title=AETitle("SELF"), host="localhost", port=11112)}


def snapshot(*profiles: Profile, **more: Any) -> Snapshot:
    return Snapshot(revision=1, peers={}, profiles={one.ae_title: one for one in profiles}, **more)


def sent_to(title: str) -> Instance:
    made = instance(whole())
    return replace(made, provenance=replace(made.provenance, receiving_ae_title=AETitle(title)))


def arrival(title: str, level: Level = Level.IMAGE, purpose: str = "") -> Arrival:
    caller = replace(on_behalf(LOCAL, "test"), purpose=purpose)
    return Arrival(level=level, caller=caller, instance=sent_to(title))


def test_only_what_is_sent_to_an_active_profile_asks_for_a_look() -> None:
    off = replace(MIP, active=False)
    assert list(RULES.arrived(arrival("MIP_AXIAL"), snapshot())) == []
    assert list(RULES.arrived(arrival("PACS"), snapshot(MIP))) == []
    assert list(RULES.arrived(arrival("MIP_AXIAL"), snapshot(off))) == []
    assert list(RULES.arrived(arrival("MIP_AXIAL", Level.SERIES), snapshot(MIP))) == []
    assert not stands_for_profile(snapshot(off), AETitle("MIP_AXIAL"))
    assert stands_for_profile(snapshot(MIP), AETitle("MIP_AXIAL"))


def test_a_series_is_looked_at_once_when_it_is_quiet() -> None:
    (job,) = RULES.arrived(arrival("MIP_AXIAL", purpose="teaching"), snapshot(MIP))
    assert (job.kind, job.queue) == ("process.arrived", "profile")
    assert job.not_before_utc == MONDAY_NOON + timedelta(seconds=30)
    assert job.unique_key == "process.arrived:MIP_AXIAL|local|1.1|1.1.1|teaching"
    said = json.loads(job.payload)
    assert ArrivedWork(**said).job(MONDAY_NOON) == replace(job, not_before_utc=MONDAY_NOON)
    assert (said["source_ae_title"], said["again"]) == ("CT1", "")


def test_what_is_held_already_is_asked_for_again_and_noted_while_there_are_profiles() -> None:
    def repeated(title: str, *profiles: Profile) -> list[Job] | None:
        jobs = RULES.repeated(arrival(title), snapshot(*profiles))
        return None if jobs is None else list(jobs)

    assert repeated("PACS") is None, "nobody is to pay for it"
    assert repeated("PACS", MIP) == [], "noted, nothing follows"
    (job,) = repeated("MIP_AXIAL", MIP) or []
    assert job.not_before_utc == MONDAY_NOON + timedelta(seconds=30)
    assert json.loads(job.payload)["again"] == MONDAY_NOON.isoformat()


def test_workitems_are_named_after_all_that_makes_them_up() -> None:
    one = workitem_uid("MIP", "local", "1.2", "1.2.3", "", "", "blake3:a", "blake3:b")
    assert one == workitem_uid("MIP", "local", "1.2", "1.2.3", "", "", "blake3:a", "blake3:b")
    assert one.startswith("2.25.")
    assert len(one) <= 64
    others = [
        workitem_uid("MIP", "local", "1.2", "1.2.3", "", "", "blake3:a"),
        workitem_uid("MIP", "local", "1.2", "1.2.3", "", "", "blake3:a", "blake3:b", "blake3:c"),
        workitem_uid("MIP2", "local", "1.2", "1.2.3", "", "", "blake3:a", "blake3:b"),
        workitem_uid("MIP", "local", "1.2", "1.2.3", "", "2026", "blake3:a", "blake3:b"),
    ]
    assert len({one, *others}) == 5


def test_a_workitem_says_whose_images_it_is_about() -> None:
    made, header = Dataset(), sent_to("MIP").header
    name_patient(made, header)
    assert (made.PatientName, made.PatientID) == (header.values["PatientName"], header.patient_id)
    assert made.PatientSex is None, "there, and empty"


# --- what can be kept ------------------------------------------------------------------


def checked(**changes: Any) -> None:
    order = {key: changes.pop(key) for key in list(changes) if hasattr(MIP.order, key)}
    check(replace(MIP, order=replace(MIP.order, **order), **changes), PEERS, OURSELVES)


def test_a_profile_that_makes_sense_can_be_kept() -> None:
    checked()
    checked(destinations=(AETitle("A"), AETitle("B")), keep_results=Keep.UNTIL_DONE, group="gpu-1")
    checked(asker=True, keep_sources=Keep.UNTIL_DONE, series_description="MIP, 5 mm")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ae_title": "PACS"}, "own AE title"),
        ({"ae_title": "A"}, "is a peer"),
        ({"ae_title": "X" * 17}, "1 to 16"),
        ({"ae_title": "a\\b"}, "1 to 16"),
        ({"ae_title": " MIP"}, "1 to 16"),
        ({"destinations": ("A", "A")}, "named twice"),
        ({"destinations": ("SELF",)}, "this archive itself"),
        ({"keep_sources": Keep.UNTIL_DONE}, "without a destination"),
        ({"keep_results": Keep.UNTIL_DONE}, "without a destination"),
        ({"group": "a b"}, "a group has"),
        ({"series_description": "x" * 65}, "at most 64"),
        ({"series_description": "a\nb"}, "printable"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EntryConflicts, match=why):
        checked(**changes)


def test_an_unknown_destination_is_refused() -> None:
    with pytest.raises(DestinationUnknown, match="no peer is named C"):
        checked(destinations=("C",))


TEXTS = st.text(max_size=20)
PROFILES = st.builds(
    Profile,
    ae_title=TEXTS,
    order=st.builds(
        ProcessingOrder,
        operation=TEXTS,
        version=TEXTS,
        parameters=st.dictionaries(TEXTS, TEXTS, max_size=3),
        series_description=TEXTS,
        destinations=st.lists(TEXTS, max_size=3).map(tuple),
        keep_results=st.sampled_from(Keep),
        group=TEXTS,
    ),
    asker=st.booleans(),
    keep_sources=st.sampled_from(Keep),
    active=st.booleans(),
)


@given(PROFILES)
def test_what_is_written_is_read_again(profile: Profile) -> None:
    assert profile_of(json.loads(json.dumps(form_of(profile)))) == profile


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"operation": None}, "operation is of the wrong type"),
        ({"keep_sources": "no"}, "keep_sources cannot be 'no'"),
        ({"parameters": {"a": 1}}, "parameters maps texts to texts"),
        ({"colour": "red"}, "colour is unknown"),
        ({"to": "A"}, "to is of the wrong type"),
    ],
)
def test_what_is_malformed_is_named(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EntryConflicts, match=f"profile MIP_AXIAL: {why}"):
        profile_of({**form_of(MIP), **changes})
    assert profile_of({"ae_title": "MIP_AXIAL", "operation": "mip"}) == MIP


# --- in whose name ----------------------------------------------------------------------

WORK = ArrivedWork(
    profile=MIP.ae_title,
    registrant=Registrant("clinic"),
    study_instance_uid=StudyInstanceUID("1.1"),
    series_instance_uid=SeriesInstanceUID("1.1.1"),
    source_ae_title=AETitle("CT1"),
)
CLINIC: Any = "clinic"


def contract(**changes: Any) -> Contract:
    purposes = (
        Purpose(name="teaching", modalities=frozenset({"CT"}), process=True),
        Purpose(name="looking", process=False),
    )
    made = Contract(
        subscriber=CLINIC,
        state=ContractState.ACTIVE,
        rights=frozenset({Right.REGISTER, Right.PROCESS}),
        purposes=purposes,
    )
    return replace(made, **changes)


def asks(work: ArrivedWork, *contracts: Contract) -> Any:
    known = snapshot(MIP, contracts={one.subscriber: one for one in contracts})
    return granted(on_behalf(work.registrant, "test"), work, known, datetime.now(UTC))


def test_the_contract_grants_processing_as_it_stands_when_it_is_quiet() -> None:
    assert Right.PROCESS in asks(WORK, contract()).rights
    bounded = asks(replace(WORK, purpose="teaching"), contract())
    assert (bounded.purpose, bounded.visibility.modalities) == ("teaching", {"CT"})
    assert bounded.visibility.registrants == {"clinic"}
    assert Right.PROCESS in asks(replace(WORK, registrant=LOCAL)).rights, "loopback, no contracts"


def test_nobody_else_is_granted_it() -> None:
    for work, contracts in (
        (WORK, [contract(rights=frozenset({Right.REGISTER}))]),
        (WORK, [contract(state=ContractState.SUSPENDED)]),
        (replace(WORK, purpose="looking"), [contract()]),
        (replace(WORK, purpose="other"), [contract()]),
        (WORK, []),
        (replace(WORK, registrant=LOCAL), [contract()]),
    ):
        with pytest.raises(NotAuthorized):
            asks(work, *contracts)
