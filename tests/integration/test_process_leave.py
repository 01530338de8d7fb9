"""Whose images leave as results, by whose contract, and who pays: as contracts stand when they leave."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.app import subscriber
from pacs.app.archive import Archive
from pacs.app.profile import profiles
from pacs.core.caller import Caller, Right, SubscriberName
from pacs.core.contract import Agreement, Contract
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle
from pacs.core.job_ports import JobContext
from pacs.core.processing import ProcessingOrder, Profile
from pacs.core.records import Peer
from pacs.core.work import Postpone
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.jobs.kinds import decoded
from pacs.services.subscriber import Contracts, Terms
from pacs.services.subscriber.terms import PurposeEdits
from storage.database.peer import PeerTable
from tests.forwarding import QUICK, Scripted, receiver
from tests.integration.test_process_guard import due
from tests.integration.test_process_workitems import Home, reason, replaced
from tests.integration.test_subscriber import contract
from tests.keeping import ADMIN, NO_CHORES, caller_of, keep, opened

OWNER, ASKER = SubscriberName("owner"), SubscriberName("asker")
TO = AETitle("ASKERS")
BY = replace(caller_of("asker"), ae_title=AETitle("ASKERS"))
GRANTED = frozenset({Right.PROCESS, Right.RECEIVE})
ALL_OF_IT = Agreement(owner=OWNER)


@pytest.fixture(scope="module")
def device() -> Iterator[Scripted]:
    with receiver() as script:
        yield script


@dataclass(kw_only=True)
class Case:
    """The owner's series, and an asker with a device that sees it."""

    home: Home
    contracts: Contracts
    terms: Terms
    device: Scripted

    @property
    def archive(self) -> Archive:
        return self.home.archive

    def results(self) -> list[tuple[str, bool]]:
        """What was made: whose it is, and whether it is there still."""
        return [
            (str(registrant), bool(held))
            for registrant, held in self.archive.database.execute(
                "SELECT registrant, deleted_by IS NULL FROM instance "
                "WHERE sop_instance_uid LIKE '2.25.%' ORDER BY id"
            )
        ]

    def paid(self, kind: str) -> list[tuple[Any, ...]]:
        rows = self.archive.database.execute(
            "SELECT subscriber, asked_by, amount FROM usage_fact WHERE kind = ?", (kind,)
        )
        return [tuple(one) for one in rows]

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for file in sorted((self.archive.home / "audit").glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]
        return [one for one in lines if one["event"] == event]

    def waiting(self, caller: Caller = BY) -> WorkitemUID:
        """Have results made that wait, as for a device that is away; once."""
        send = self.archive.extensions["forward"].jobs["forward.send"].handler
        held = [True]

        def away(job: JobContext[Any]) -> object:
            if held:
                held.clear()
                raise Postpone("nobody answers", after_s=3_600)
            return send(job)

        replaced(self.home, "forward.send", away)
        uid = self.home.ask("mip", caller, destinations=(TO,))
        self.home.work()
        assert self.home.jobs("forward.send") == ["delayed"] and self.device.got == []
        return uid

    def later(self, uid: WorkitemUID) -> str:
        """Let what waits go on; give why the workitem ended, and see that nothing has left."""
        due(self.home)
        self.home.work()
        assert self.device.got == []
        (refused,) = self.audited("forward-refused")
        assert (refused["subscriber"], refused["destination"]) == (ASKER, TO)
        assert self.home.jobs("forward.send") == ["failed"]
        return reason(self.home.worklist.read(uid))


@contextmanager
def case_of(path: Path, device: Scripted, **more: Any) -> Iterator[Case]:
    device.got.clear()
    with opened(path, **{**QUICK, **NO_CHORES}) as archive:
        contracts = subscriber.contracts(archive)
        asker: Contract = contract("asker", rights=GRANTED, agreements=(ALL_OF_IT,))
        contracts.add(ADMIN, contract("owner", rights=frozenset({Right.REGISTER})))
        contracts.add(ADMIN, replace(asker, **more))
        PeerTable(archive.database).put(
            Peer(ae_title=TO, host="127.0.0.1", port=device.port, subscriber=ASKER)
        )
        yield Case(
            home=Home(archive, registrant="owner"),
            contracts=contracts,
            terms=subscriber.terms(archive),
            device=device,
        )


@pytest.fixture
def case(tmp_path: Path, device: Scripted) -> Iterator[Case]:
    with case_of(tmp_path, device) as made:
        yield made


def test_who_asked_pays_for_what_it_gets_and_the_owner_holds_it(case: Case) -> None:
    item = case.home.done("mip", BY, destinations=(TO,))
    assert item.state is WorkitemState.COMPLETED and len(case.device.got) == 1
    assert case.results() == [("owner", True)]
    assert case.paid("deliver") == [("asker", "ASKERS", 1)]
    assert [one[0] for one in case.paid("process")] == ["asker"]
    (sent,) = case.audited("instances-forwarded")
    assert (sent["subscriber"], sent["ae_title"], sent["sent"]) == ("asker", "ASKERS", 1)


def test_what_an_admin_asked_for_is_the_owners_to_pay(case: Case) -> None:
    item = case.home.done("mip", ADMIN, destinations=(TO,))
    assert item.state is WorkitemState.COMPLETED and len(case.device.got) == 1
    assert [one[0] for one in case.paid("deliver")] == ["owner"]


def test_a_right_to_process_alone_delivers_nothing(tmp_path: Path, device: Scripted) -> None:
    with case_of(tmp_path, device, rights=frozenset({Right.PROCESS})) as case:
        uid = case.home.ask("mip", BY, destinations=(TO,))
        case.home.work()
        said = reason(case.home.worklist.read(uid))
        assert said == "nothing is sent: the contract grants no delivery"
        assert device.got == [] and case.results() == [] and case.paid("process") == []
        (refused,) = case.audited("process-refused")
        assert (refused["subscriber"], refused["workitem"]) == ("asker", uid)
        assert case.home.done("mip", BY).state is WorkitemState.COMPLETED, "it stays to be fetched"


def sent_to(case: Case, ae_title: str) -> WorkitemUID:
    """Have the asker's device send the series to a profile, and all that follows done; gives the workitem."""
    database = case.archive.database
    for one in case.home.images:
        keep(
            case.archive,
            Dataset(dict(one.items())),
            registrant="asker",
            source=TO,
            called=ae_title,
        )
    with database.transaction():
        for column in ("instance SET received_utc", "profile_spared SET noted_utc"):
            database.write(f"UPDATE {column} = '2020-01-01T00:00:00.000000Z'")
    for _ in range(3):  # quiet, performed, sent
        due(case.home)
        case.home.work()
    return WorkitemUID(next(database.execute("SELECT uid FROM workitem ORDER BY id DESC"))[0])


def test_nor_does_it_by_a_profile(tmp_path: Path, device: Scripted) -> None:
    rights = frozenset({Right.REGISTER, Right.PROCESS})
    with case_of(tmp_path, device, rights=rights, agreements=()) as case:
        made = Profile(ae_title=AETitle("MIPS"), order=ProcessingOrder(operation="mip"), asker=True)
        with profiles(case.archive) as service:
            service.add(ADMIN, made)
        case.archive.snapshots.newest()
        first = sent_to(case, "MIPS")
        said = reason(case.home.worklist.read(first))
        assert said == "nothing is sent: the contract grants no delivery"
        assert device.got == [] and case.paid("deliver") == []
        case.contracts.grant(ADMIN, "asker", [Right.RECEIVE])
        again = sent_to(case, "MIPS")
        assert again != first
        assert case.home.worklist.read(again).state is WorkitemState.COMPLETED
        assert len(device.got) == 1 and case.paid("deliver") == [("asker", "ASKERS", 1)]


def test_nothing_is_sent_to_a_device_whose_contract_does_not_hold(case: Case) -> None:
    case.contracts.add(ADMIN, contract("third", rights=frozenset()))
    PeerTable(case.archive.database).put(
        Peer(
            ae_title=AETitle("THIRDS"),
            host="127.0.0.1",
            port=case.device.port,
            subscriber=SubscriberName("third"),
        )
    )
    case.terms.add_destination(ADMIN, "asker", "THIRDS")
    to = {"destinations": (AETitle("THIRDS"),)}
    assert case.home.done("mip", BY, **to).state is WorkitemState.COMPLETED
    case.contracts.suspend(ADMIN, "third", reason="unpaid")
    case.device.got.clear()
    said = reason(case.home.done("mip", BY, **to))
    assert said == "nothing is sent to THIRDS: no such destination" and case.device.got == []


@pytest.mark.parametrize("right", [Right.PROCESS, Right.RECEIVE])
def test_what_waits_does_not_leave_once_a_right_is_gone(case: Case, right: Right) -> None:
    uid = case.waiting()
    case.contracts.revoke(ADMIN, "asker", [right])
    said = case.later(uid)
    assert said.startswith("the results were not sent to ASKERS: ")
    assert said.endswith("no delivery" if right is Right.RECEIVE else "no processing")
    assert case.results() == [("owner", True)] and case.paid("deliver") == []


def test_what_waits_does_not_leave_once_its_owner_shows_it_no_more(case: Case) -> None:
    uid = case.waiting()
    case.terms.disagree(ADMIN, "asker", ALL_OF_IT)
    assert "not shown to whoever asked any more" in case.later(uid)


def test_what_waits_does_not_leave_once_the_purpose_bounds_it(case: Case) -> None:
    case.terms.add_purpose(ADMIN, "asker", "teaching", PurposeEdits(), default=False)
    uid = case.waiting(replace(BY, purpose="teaching"))
    only_mr = PurposeEdits(modalities=frozenset({"MR"}))
    case.terms.add_purpose(ADMIN, "asker", "teaching", only_mr, default=False)
    assert "not of a kind that the purpose shows" in case.later(uid)


def test_what_waits_is_judged_by_the_purpose_that_the_contract_names_when_it_leaves(
    case: Case,
) -> None:
    terms, only_mr = case.terms, PurposeEdits(modalities=frozenset({"MR"}))
    terms.add_purpose(ADMIN, "asker", "care", PurposeEdits(), default=True)
    uid = case.waiting(replace(BY, purpose="care", purpose_by_default=True))
    terms.add_purpose(ADMIN, "asker", "teaching", only_mr, default=True)
    terms.remove_purpose(ADMIN, "asker", "care")
    assert "not of a kind that the purpose shows" in case.later(uid)


def test_a_purpose_that_was_named_by_default_may_give_way_to_another(case: Case) -> None:
    case.terms.add_purpose(ADMIN, "asker", "care", PurposeEdits(), default=True)
    uid = case.waiting(replace(BY, purpose="care", purpose_by_default=True))
    case.terms.add_purpose(ADMIN, "asker", "treatment", PurposeEdits(), default=True)
    case.terms.remove_purpose(ADMIN, "asker", "care")
    due(case.home)
    case.home.work()
    assert case.home.worklist.read(uid).state is WorkitemState.COMPLETED
    assert len(case.device.got) == 1


def test_a_job_of_before_is_judged_by_the_purpose_it_names(case: Case) -> None:
    kind = case.archive.extensions["forward"].jobs["forward.send"]
    creator = {"subscriber": "asker", "purpose": "care", "ae_title": "ASKERS"}
    said = {"route": "", "destination": TO, "registrant": OWNER, "study_instance_uid": "1.2"}
    work = decoded(kind, json.dumps({**said, "creator": {**creator, "association": "1"}}))
    assert isinstance(work, ForwardWork) and work.creator is not None
    assert work.creator.named().stated_purpose == "care"
    since = replace(work.creator, purpose_by_default=True)
    again = decoded(kind, replace(work, creator=since).job().payload)
    assert isinstance(again, ForwardWork) and again.creator == since


def test_what_waits_does_not_leave_for_where_it_may_not_be_sent_any_more(case: Case) -> None:
    uid = case.waiting()
    PeerTable(case.archive.database).put(
        Peer(ae_title=TO, host="127.0.0.1", port=case.device.port, subscriber=OWNER)
    )
    assert "nothing is sent to ASKERS: no such destination" in case.later(uid)


def test_results_that_are_not_shown_any_more_are_not_begun_to_be_sent(case: Case) -> None:
    deliver = case.archive.extensions["process"].jobs["process.deliver"].handler

    def meanwhile(job: JobContext[Any]) -> object:
        if not job.parted:
            case.terms.disagree(ADMIN, "asker", ALL_OF_IT)
        return deliver(job)

    replaced(case.home, "process.deliver", meanwhile)
    said = reason(case.home.done("mip", BY, destinations=(TO,)))
    assert said == "the images are not shown to whoever asked any more"
    assert case.home.jobs("forward.send") == [] and case.results() == [("owner", False)]
