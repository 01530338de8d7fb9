"""What an administrator does with contracts: their life, their terms, and the trail both leave."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.settings import Subscriber as Bounds
from pacs.app import subscriber as attached
from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, StudyInstanceUID
from pacs.services.passcode import matches
from pacs.services.peer import Binding, SendingPolicy
from pacs.services.subscriber import Contracts, Exchange, Terms
from pacs.services.subscriber.contracts import Edits
from pacs.services.subscriber.desk import Desk
from pacs.services.subscriber.terms import PurposeEdits
from storage.database.subscriber import ContractTable
from tests.keeping import ADMIN, data_set, keep, opened

ACTIVE = ContractState.ACTIVE
NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """On SQLite: ``tests/contracts`` holds both databases to what the rows promise."""
    with opened(tmp_path) as made:
        yield made


@pytest.fixture
def contracts(archive: Archive) -> Contracts:
    return attached.contracts(archive)


@pytest.fixture
def terms(archive: Archive) -> Terms:
    return attached.terms(archive)


@pytest.fixture
def exchange(archive: Archive) -> Exchange:
    return attached.exchange(archive)


def contract(name: str = "a", **more: Any) -> Contract:
    made = Contract(subscriber=SubscriberName(name), state=ACTIVE, issuer_of_patient_id=name)
    return replace(made, **more)


def found(archive: Archive, name: str = "a") -> Contract:
    return archive.snapshots.newest().contracts[SubscriberName(name)]


def whats(contracts: Contracts, name: str = "a") -> list[str]:
    return [one.what for one in contracts.history(ADMIN, name)]


def trail(archive: Archive) -> list[dict[str, Any]]:
    (path,) = (archive.home / "audit").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- the life of a contract -----------------------------------------------------


def test_a_contract_lives(archive: Archive, contracts: Contracts) -> None:
    contracts.add(ADMIN, contract(rights=frozenset({Right.QUERY}), state=ContractState.PENDING))
    contracts.grant(ADMIN, "a", [Right.REGISTER, Right.RECEIVE])
    assert contracts.revoke(ADMIN, "a", [Right.QUERY]).rights == {Right.REGISTER, Right.RECEIVE}
    with pytest.raises(EntryConflicts, match="a is pending, not active"):
        contracts.suspend(ADMIN, "a", reason="unpaid")
    desk = attached.enrolments(archive.database, archive.audit, archive.settings.subscriber)
    desk.accept(ADMIN, "a", rights=None)
    contracts.suspend(ADMIN, "a", reason=" unpaid ")
    assert (found(archive).state, found(archive).reason) == (ContractState.SUSPENDED, "unpaid")
    contracts.resume(ADMIN, "a")
    assert (found(archive).state, found(archive).reason) == (ACTIVE, "")
    contracts.cancel(ADMIN, "a", reason="moved away", images_to=[])
    contracts.remove(ADMIN, "a")
    assert archive.snapshots.newest().contracts == {}
    entries = contracts.history(ADMIN, "a")
    assert [one.what for one in entries] == [
        "added as pending, issuer a, query",
        "granted register, receive",
        "revoked query",
        "accepted with register, receive",
        "suspended",
        "resumed",
        "cancelled, images to nobody",
        "removed",
    ]
    assert [one.why for one in entries if one.why] == ["unpaid", "moved away"]
    assert {one.who for one in entries} == {"admin"}
    said = trail(archive)
    assert [one["event"] for one in said] == ["contract-changed"] * 7 + ["contract-removed"]
    assert {(one["contract"], one["subscriber"]) for one in said} == {("a", "admin")}
    assert "unpaid" not in str(said), "reasons are for the history"


def test_what_a_state_forbids_changes_nothing(archive: Archive, contracts: Contracts) -> None:
    contracts.add(ADMIN, contract())
    before = archive.snapshots.newest()
    for change, said in (
        (lambda: contracts.resume(ADMIN, "a"), "a is active, not suspended"),
        (lambda: contracts.remove(ADMIN, "a"), "a is active, not cancelled"),
        (lambda: contracts.suspend(ADMIN, "a", reason=" "), "a reason is needed"),
        (lambda: contracts.cancel(ADMIN, "a", reason="", images_to=[]), "a reason is needed"),
        (lambda: contracts.grant(ADMIN, "a", [Right.CONNECT]), "granted by admission itself"),
        (lambda: contracts.change(ADMIN, "a", Edits()), "nothing is to be changed"),
        (lambda: contracts.add(ADMIN, contract("A")), "is named a already"),
        (lambda: contracts.add(ADMIN, contract(state=ContractState.CANCELLED)), "begins as"),
    ):
        with pytest.raises(EntryConflicts, match=said):
            change()
    assert archive.snapshots.newest() == before
    contracts.cancel(ADMIN, "a", reason="r", images_to=[])
    for change in (
        lambda: contracts.grant(ADMIN, "a", [Right.QUERY]),
        lambda: contracts.change(ADMIN, "a", Edits(issuer_of_patient_id="x")),
        lambda: contracts.cancel(ADMIN, "a", reason="r", images_to=[]),
        lambda: attached.terms(archive).add_user(ADMIN, "a", "u", None),
        lambda: archive.peers.add(ADMIN, "P", "10.0.0.1", 104, binding=Binding(subscriber="a")),
    ):
        with pytest.raises(EntryConflicts, match="a is cancelled"):
            change()
    for ask in (contracts.show, contracts.history, contracts.resume, contracts.remove):
        with pytest.raises(EntryNotFound, match="no subscriber"):
            ask(ADMIN, "nobody")


def test_terms_are_changed_and_taken_away(archive: Archive, contracts: Contracts) -> None:
    contracts.add(ADMIN, contract(allocation_bytes=5))
    day = timedelta(days=1)
    contracts.change(ADMIN, "a", Edits(begins_utc=NOW, ends_utc=NOW + day))
    contracts.change(ADMIN, "a", Edits(allocation_bytes=None, issuer_of_patient_id="Süd"))
    now = found(archive)
    assert (now.begins_utc, now.ends_utc, now.allocation_bytes) == (NOW, NOW + day, None)
    assert now.issuer_of_patient_id == "Süd"
    assert whats(contracts)[-1] == "changed issuer_of_patient_id to Süd, allocation_bytes to none"
    with pytest.raises(EntryConflicts, match="ends after it begins"):
        contracts.change(ADMIN, "a", Edits(ends_utc=NOW))
    with pytest.raises(EntryConflicts, match="has no purpose care"):
        contracts.change(ADMIN, "a", Edits(purpose="care"))


def test_names_that_would_be_no_registrants_are_refused(
    archive: Archive, contracts: Contracts
) -> None:
    for name in (
        "", "local", "Admin", ".a", "-a", "a b", "a/b", "a\\b", "a|b", "a:b", "ä", "a\n", "a" * 65,
    ):  # fmt: skip
        with pytest.raises(EntryConflicts, match="name"):
            contracts.add(ADMIN, contract(name))
    contracts.add(ADMIN, contract("a" * 64))
    assert list(archive.snapshots.newest().contracts) == ["a" * 64]


def test_terms_that_make_no_sense_are_refused(archive: Archive, contracts: Contracts) -> None:
    wrong: list[dict[str, Any]] = [
        {"issuer_of_patient_id": "a\\b"},
        {"issuer_of_patient_id": "a" * 65},
        {"allocation_bytes": -1},
        {"destinations": frozenset({AETitle("SEVENTEEN_LETTERS")})},
        {"purposes": (Purpose(name="a b"),)},
        {"purposes": (Purpose(name="a"), Purpose(name="a"))},
        {"purposes": (Purpose(name="a", modalities=frozenset()),)},
        {"purposes": (Purpose(name="a", modalities=frozenset({"C T"})),)},
        {"purposes": (Purpose(name="a", max_matrix=0),)},
        {"purpose": "a"},
        {"agreements": (Agreement(owner=SubscriberName("a")),)},
        {"agreements": (Agreement(owner=None, study_instance_uid=StudyInstanceUID("1.2")),)},
        {"agreements": (Agreement(owner=None, purpose="a"),)},
        {"agreements": (Agreement(owner=None), Agreement(owner=None))},
    ]
    for terms in wrong:
        with pytest.raises(EntryConflicts):
            contracts.add(ADMIN, contract(**terms))
            pytest.fail(str(terms))
    assert archive.snapshots.newest().contracts == {}


def test_who_still_receives_the_images_of_a_cancelled_one_is_said(
    archive: Archive, contracts: Contracts, terms: Terms
) -> None:
    """Those named see them, whoever saw them before by name does not, the rest stays as it is."""
    a, study = SubscriberName("a"), StudyInstanceUID("1.2")
    for name in "abcd":
        contracts.add(ADMIN, contract(name))
    terms.agree(ADMIN, "b", Agreement(owner=a, study_instance_uid=study))
    terms.agree(ADMIN, "b", Agreement(owner=SubscriberName("c")))
    terms.agree(ADMIN, "c", Agreement(owner=a, study_instance_uid=study))
    terms.agree(ADMIN, "d", Agreement(owner=None))
    assert list(contracts.show(ADMIN, "a").grantees) == ["b", "c"]
    for heirs, said in (((a,), "not even its own"), (("nobody",), "no subscriber is named")):
        with pytest.raises((EntryConflicts, EntryNotFound), match=said):
            contracts.cancel(ADMIN, "a", reason="r", images_to=heirs)
    assert found(archive).state is ACTIVE
    contracts.cancel(ADMIN, "a", reason="r", images_to=["c"])
    assert found(archive, "b").agreements == (Agreement(owner=SubscriberName("c")),)
    assert found(archive, "c").agreements == (Agreement(owner=a),)
    assert found(archive, "d").agreements == (Agreement(owner=None),)
    assert whats(contracts, "b")[-1] == "lost sight of the images of a, which was cancelled"
    assert whats(contracts, "c")[-1] == "may see the images of a, which was cancelled"
    assert whats(contracts)[-1] == "cancelled, images to c"


def test_a_contract_is_not_removed_while_anything_is_held_for_it(
    archive: Archive, contracts: Contracts
) -> None:
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant="a")
    assert contracts.add(ADMIN, contract()), "images are its own now"
    assert not contracts.add(ADMIN, contract("b"))
    shown = contracts.show(ADMIN, "a")
    assert shown.held_files == 1 and shown.held_bytes > 0
    archive.peers.add(ADMIN, "CT1", "10.0.0.1", 104, binding=Binding(subscriber="a"))
    contracts.cancel(ADMIN, "a", reason="r", images_to=[])
    with pytest.raises(EntryConflicts, match="images of a are still held"):
        contracts.remove(ADMIN, "a")
    archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r", registrant="a")
    with pytest.raises(EntryConflicts, match="images of a are still held"):
        contracts.remove(ADMIN, "a")  # the deletion can still be undone
    assert [one.ae_title for one in archive.peers.list(ADMIN)] == ["CT1"]


def test_there_is_room_for_so_many(tmp_path: Path) -> None:
    bounds = {
        "subscriber__max_subscribers": "2",
        "subscriber__max_users": "1",
        "subscriber__max_agreements": "1",
    }
    with opened(tmp_path, **bounds) as archive:
        contracts, terms = attached.contracts(archive), attached.terms(archive)
        for name in "ab":
            contracts.add(ADMIN, contract(name))
        terms.add_user(ADMIN, "a", "u", None)
        terms.agree(ADMIN, "a", Agreement(owner=None))
        for more, setting in (
            (lambda: contracts.add(ADMIN, contract("c")), "max_subscribers"),
            (lambda: terms.add_user(ADMIN, "a", "v", None), "max_users"),
            (lambda: terms.agree(ADMIN, "a", Agreement(owner=SubscriberName("b"))),
             "max_agreements"),
        ):  # fmt: skip
            with pytest.raises(EntryConflicts, match=setting):
                more()
        terms.add_user(ADMIN, "a", "u", b"another code")  # it is there already
        with pytest.raises(EntryConflicts, match="max_subscribers"):
            exchange = attached.exchange(archive)
            text = exchange.exported(ADMIN, ["b"]).replace('"name": "b"', '"name": "c"')
            exchange.imported(ADMIN, text)


def test_what_was_agreed_before_keeps_nobody_from_suspending(tmp_path: Path) -> None:
    """Neither a bound that was lowered nor an owner of whom nothing is left."""
    gone, b = SubscriberName("gone"), SubscriberName("b")
    with opened(tmp_path, storage__deletion_delay_s="0") as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant="gone")
        contracts = attached.contracts(archive)
        contracts.add(ADMIN, contract("b"))
        contracts.add(ADMIN, contract(agreements=(Agreement(owner=gone), Agreement(owner=b))))
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r", registrant="gone")
        archive.deletions.purge(ADMIN)
        with pytest.raises(EntryNotFound, match="gone"):
            attached.terms(archive).agree(ADMIN, "b", Agreement(owner=gone))
    with opened(tmp_path, subscriber__max_agreements="1") as archive:
        attached.contracts(archive).suspend(ADMIN, "a", reason="unpaid")
        attached.terms(archive).disagree(ADMIN, "a", Agreement(owner=gone))
        attached.contracts(archive).cancel(ADMIN, "a", reason="r", images_to=[])
        assert found(archive).state is ContractState.CANCELLED


# --- terms --------------------------------------------------------------------------


def test_users_have_a_passcode_or_a_token_and_one_subscriber(
    archive: Archive, contracts: Contracts, terms: Terms
) -> None:
    for name in "ab":
        contracts.add(ADMIN, contract(name))
    terms.add_user(ADMIN, "a", "jane", b"first passcode")
    terms.add_user(ADMIN, "a", "robot", None)
    kept = archive.snapshots.newest().users
    assert matches(b"first passcode", kept["jane"].passcode)
    assert (kept["robot"].passcode, kept["robot"].proof) == ("", "token")
    terms.add_user(ADMIN, "a", "desk", None, named=True)
    assert archive.snapshots.newest().users["desk"].proof == "name"
    assert whats(contracts, "a")[-1] == "user desk added, name only"
    terms.remove_user(ADMIN, "a", "desk")
    terms.add_user(ADMIN, "a", "jane", b"second passcode")
    assert matches(b"second passcode", archive.snapshots.newest().users["jane"].passcode)
    with pytest.raises(EntryConflicts, match="another subscriber is named jane"):
        terms.add_user(ADMIN, "b", "jane", None)
    with pytest.raises(EntryNotFound, match="b has no user jane"):
        terms.remove_user(ADMIN, "b", "jane")
    refused = [("", b"long enough"), (" x", None), ("x\n", None), ("x", b"short")]
    for name, passcode in [*refused, ("enrol", None), ("enrol:1", None)]:
        with pytest.raises(EntryConflicts):
            terms.add_user(ADMIN, "a", name, passcode)
    terms.remove_user(ADMIN, "a", "jane")
    assert [one.name for one in terms.users(ADMIN, "a")] == ["robot"]
    everything = "".join(one.read_text() for one in (archive.home / "audit").iterdir())
    everything += str(contracts.history(ADMIN, "a"))
    assert "user jane changed, passcode" in everything
    for secret in ("first passcode", "second passcode", "argon2"):
        assert secret not in everything


def test_agreements_are_made_once_and_ended_as_they_were_made(
    archive: Archive, contracts: Contracts, terms: Terms
) -> None:
    contracts.add(ADMIN, contract())
    contracts.add(ADMIN, contract("b", purposes=(Purpose(name="teaching"),)))
    whole = Agreement(owner=SubscriberName("a"), purpose="teaching")
    terms.agree(ADMIN, "b", whole)
    terms.agree(ADMIN, "b", Agreement(owner=SubscriberName("local")))
    with pytest.raises(EntryConflicts, match="already"):
        terms.agree(ADMIN, "b", whole)
    with pytest.raises(EntryNotFound, match="no subscriber is named nobody"):
        terms.agree(ADMIN, "b", Agreement(owner=SubscriberName("nobody")))
    with pytest.raises(EntryNotFound, match="no agreement"):
        terms.disagree(ADMIN, "b", replace(whole, purpose=""))
    with pytest.raises(EntryConflicts, match="holds under teaching"):
        terms.remove_purpose(ADMIN, "b", "teaching")
    terms.disagree(ADMIN, "b", whole)
    assert found(archive, "b").agreements == (Agreement(owner=SubscriberName("local")),)
    terms.remove_purpose(ADMIN, "b", "teaching")
    assert found(archive, "b").purposes == ()
    assert whats(contracts, "b")[-2:] == [
        "may no longer see the images of a for teaching",
        "purpose teaching removed",
    ]


def test_a_bound_is_never_lifted_by_removing_the_purpose_that_sets_it(
    archive: Archive, contracts: Contracts, terms: Terms
) -> None:
    contracts.add(ADMIN, contract())
    terms.add_purpose(ADMIN, "a", "teaching", PurposeEdits(max_matrix=256), default=True)
    terms.add_purpose(ADMIN, "a", "teaching", PurposeEdits(max_matrix=512), default=False)
    assert found(archive).purpose == "teaching", "changing it is not ending it"
    assert [one.max_matrix for one in found(archive).purposes] == [512]
    with pytest.raises(EntryConflicts, match="change that first"):
        terms.remove_purpose(ADMIN, "a", "teaching")
    contracts.change(ADMIN, "a", Edits(purpose=""))
    terms.remove_purpose(ADMIN, "a", "teaching")
    with pytest.raises(EntryNotFound):
        terms.remove_purpose(ADMIN, "a", "teaching")


def test_a_bound_of_a_purpose_stays_until_it_is_lifted_by_name(
    archive: Archive, contracts: Contracts, terms: Terms
) -> None:
    contracts.add(ADMIN, contract())

    def said(edits: PurposeEdits) -> Purpose:
        terms.add_purpose(ADMIN, "a", "teaching", edits, default=False)
        (made,) = found(archive).purposes
        return made

    narrow = Purpose(
        name="teaching", modalities=frozenset({"CT"}), max_matrix=256, process=False, report=False
    )
    assert said(PurposeEdits()) == Purpose(name="teaching")
    assert said(PurposeEdits(
        modalities=narrow.modalities, max_matrix=256, process=False, report=False
    )) == narrow  # fmt: skip
    assert said(PurposeEdits()) == narrow
    assert said(PurposeEdits(max_matrix=512)) == replace(narrow, max_matrix=512)
    assert said(PurposeEdits(modalities=frozenset({"MR"}))).modalities == {"MR"}
    assert said(PurposeEdits(process=True)).report is False
    assert whats(contracts, "a")[-1] == (
        "purpose teaching, of MR, up to 512 rows and columns, no reports"
    )
    assert said(PurposeEdits(modalities=None, max_matrix=None, report=True)) == Purpose(
        name="teaching"
    )


def test_destinations(archive: Archive, contracts: Contracts, terms: Terms) -> None:
    contracts.add(ADMIN, contract())
    terms.add_destination(ADMIN, "a", "WS 1")
    terms.add_destination(ADMIN, "a", "WS2")
    assert found(archive).destinations == {"WS 1", "WS2"}
    terms.remove_destination(ADMIN, "a", "WS 1")
    with pytest.raises(EntryNotFound, match="WS 1 is no destination"):
        terms.remove_destination(ADMIN, "a", "WS 1")
    with pytest.raises(EntryConflicts, match="AE title"):
        terms.add_destination(ADMIN, "a", "SEVENTEEN_LETTERS")


# --- devices -------------------------------------------------------------------------


def test_what_a_peer_is_bound_to_is_not_dropped_by_silence(
    archive: Archive, contracts: Contracts
) -> None:
    for name in "ab":
        contracts.add(ADMIN, contract(name))
    peers, bound = archive.peers, Binding(subscriber="a", certificate_fingerprint="ab" * 32)
    peers.add(ADMIN, "CT1", "10.0.0.1", 104, SendingPolicy(tls=True), bound)
    near = Binding(networks=("10.0.0.0/24",))
    for binding in (Binding(), near, Binding(subscriber="a")):
        peers.add(ADMIN, "CT1", "10.0.0.2", 104, binding=binding)
        (kept,) = peers.list(ADMIN)
        assert (kept.host, kept.tls, kept.subscriber) == ("10.0.0.2", True, "a")
        assert kept.certificate_fingerprint == "ab" * 32
    assert kept.networks == ("10.0.0.0/24",), "said once, and not dropped since"
    peers.add(ADMIN, "CT1", "10.0.0.2", 104, binding=Binding(certificate_fingerprint=""))
    (kept,) = peers.list(ADMIN)
    assert (kept.networks, kept.certificate_fingerprint) == (("10.0.0.0/24",), "")
    peers.add(ADMIN, "CT1", "10.0.0.2", 104, SendingPolicy(tls=False), Binding(networks=()))
    (kept,) = peers.list(ADMIN)
    assert (kept.tls, kept.networks, kept.subscriber) == (False, (), "a")
    with pytest.raises(EntryConflicts, match="name the network"):
        peers.add(ADMIN, "CT1", "ct1.example", 104)
    moved = Binding(subscriber="b", networks=("10.0.0.0/24", "fd00::/64"),
                    certificate_fingerprint="")  # fmt: skip
    peers.add(ADMIN, "CT1", "ct1.example", 104, binding=moved)
    (kept,) = archive.snapshots.newest().peers.values()
    assert (kept.subscriber, kept.networks) == ("b", ("10.0.0.0/24", "fd00::/64"))
    assert kept.certificate_fingerprint == ""
    peers.remove(ADMIN, "CT1")
    assert [what.partition(",")[0] for what in whats(contracts, "a")] == [
        "added as active", "peer CT1 added", *["peer CT1 changed"] * 5, "peer CT1 removed",
    ]  # fmt: skip
    assert whats(contracts, "b")[1:] == [
        "peer CT1 added, ct1.example:104, from 10.0.0.0/24, fd00::/64",
        "peer CT1 removed",
    ]


def test_the_networks_and_the_certificate_of_one_facility_are_not_anothers(
    archive: Archive, contracts: Contracts
) -> None:
    for name in "ab":
        contracts.add(ADMIN, contract(name))
    peers, near = archive.peers, Binding(subscriber="a", networks=("10.0.0.0/24",))
    peers.add(ADMIN, "CT1", "10.0.0.1", 104, binding=near)
    peers.add(ADMIN, "CT1", "192.168.7.9", 104, binding=Binding(subscriber="b"))
    (kept,) = peers.list(ADMIN)
    assert (kept.subscriber, kept.host, kept.networks) == ("b", "192.168.7.9", ())
    certified = Binding(certificate_fingerprint="ab" * 32)
    peers.add(ADMIN, "CT1", "192.168.7.9", 104, binding=certified)
    with pytest.raises(EntryConflicts, match="--certificate or --no-certificate"):
        peers.add(ADMIN, "CT1", "10.0.0.1", 104, binding=Binding(subscriber="a"))
    assert peers.list(ADMIN) == [replace(kept, certificate_fingerprint="ab" * 32)]


def test_devices_nobody_could_recognize_are_refused(archive: Archive, contracts: Contracts) -> None:
    contracts.add(ADMIN, contract())
    for host, binding in (
        ("10.0.0.1", Binding(networks=("10.0.0.0/24",))),
        ("10.0.0.1", Binding(certificate_fingerprint="ab" * 32)),
        ("10.0.0.1", Binding(subscriber="a", networks=("10.0.0.1/24",))),
        ("10.0.0.1", Binding(subscriber="a", networks=("everywhere",))),
        ("10.0.0.1", Binding(subscriber="a", networks=("0.0.0.0/0",))),
        ("10.0.0.1", Binding(subscriber="a", networks=("10.0.0.0/24", "::/0"))),
        ("10.0.0.1", Binding(subscriber="a", certificate_fingerprint="AB" * 32)),
        ("ct1.example", Binding(subscriber="a")),
    ):
        with pytest.raises(EntryConflicts):
            archive.peers.add(ADMIN, "CT1", host, 104, binding=binding)
            pytest.fail(str(binding))
    with pytest.raises(EntryNotFound, match="nobody"):
        archive.peers.add(ADMIN, "CT1", "10.0.0.1", 104, binding=Binding(subscriber="nobody"))
    assert archive.peers.list(ADMIN) == []


# --- as a file ------------------------------------------------------------------------


def furnished(archive: Archive) -> None:
    """Two subscribers that name each other, with all a contract may have."""
    contracts, terms = attached.contracts(archive), attached.terms(archive)
    contracts.add(ADMIN, contract("b"))
    contracts.add(
        ADMIN,
        contract(
            rights=frozenset({Right.QUERY, Right.READ}),
            destinations=frozenset({AETitle("WS")}),
            purposes=(Purpose(name="teaching", modalities=frozenset({"CT"}), report=False),),
            purpose="teaching",
            agreements=(Agreement(owner=SubscriberName("b"), purpose="teaching"),),
            allocation_bytes=7,
            begins_utc=NOW,
        ),
    )
    terms.agree(
        ADMIN, "b",
        Agreement(owner=SubscriberName("a"), study_instance_uid=StudyInstanceUID("1.2")),
    )  # fmt: skip
    terms.add_user(ADMIN, "a", "jane", b"first passcode")
    terms.add_user(ADMIN, "a", "robot", None)
    terms.add_user(ADMIN, "a", "desk", None, named=True)
    archive.peers.add(
        ADMIN, "CT1", "10.0.0.1", 104, SendingPolicy(rate_mbit_s=2.5, tls=True),
        Binding(subscriber="a", networks=("10.0.0.0/24",), certificate_fingerprint="ab" * 32),
    )  # fmt: skip
    contracts.suspend(ADMIN, "b", reason="unpaid")


def state(archive: Archive) -> tuple[object, ...]:
    snapshot = archive.snapshots.newest()
    return snapshot.contracts, snapshot.users, snapshot.peers


def test_what_is_exported_is_imported_elsewhere(url: str, tmp_path: Path) -> None:
    with opened(tmp_path / "one") as one, opened(tmp_path / "two", url) as two:
        furnished(one)
        text = attached.exchange(one).exported(ADMIN)
        assert "first passcode" not in text
        taken = attached.exchange(two).imported(ADMIN, text)
        assert [each.subscriber for each in taken] == ["a", "b"]
        assert state(two) == state(one)
        assert whats(attached.contracts(two)) == ["added from a file, active"]
        with pytest.raises(EntryConflicts, match="named a already"):
            attached.exchange(two).imported(ADMIN, text)
        attached.terms(two).remove_user(ADMIN, "a", "jane")
        attached.terms(two).add_user(ADMIN, "a", "joe", None)
        two.peers.add(ADMIN, "MR1", "10.0.0.2", 104, binding=Binding(subscriber="a"))
        attached.exchange(two).imported(ADMIN, text, replacing=True)
        assert state(two) == state(one), "as the file says, nothing beside it"
        (only,) = json.loads(attached.exchange(two).exported(ADMIN, ["b"]))["subscribers"]
        assert only["name"] == "b"


def test_a_file_that_is_none_or_contradicts_is_taken_in_not_at_all(
    archive: Archive, exchange: Exchange, contracts: Contracts, terms: Terms
) -> None:
    furnished(archive)
    text = exchange.exported(ADMIN)
    with archive.database.transaction():
        for table in ("peer", "subscriber_user", "subscriber_agreement", "subscriber_purpose",
                      "subscriber_destination", "subscriber"):  # fmt: skip
            archive.database.write(f"DELETE FROM {table}")
        archive.database.write("UPDATE revision SET number = number + 1")
    contracts.add(ADMIN, contract("other"))
    terms.add_user(ADMIN, "other", "joe", None)
    archive.peers.add(ADMIN, "MR1", "10.0.0.2", 104)
    before = state(archive)
    for wrong in (
        "[",
        "[" * 100_000,
        "{}",
        text.replace('"pacs_subscribers": 1', '"pacs_subscribers": 2'),
        text.replace('"name": "b"', '"name": "a"'),
        text.replace('"name": "b"', '"name": "c"'),  # then b is nobody
        text.replace('"name": "robot"', '"name": "joe"'),
        text.replace('"CT1"', '"MR1"'),
        text.replace('"query"', '"everything"'),
        text.replace('"suspended"', '"gone"'),
        text.replace('"allocation_bytes": 7', '"allocation_bytes": true'),
        text.replace('"allocation_bytes": 7,', ""),
        text.replace('"tls": true', '"tls": 1'),
        text.replace("$argon2id$", "$argon2d$"),
        text.replace("m=19456", "m=9999999"),
        text.replace("m=19456", "m=7"),
        text.replace("t=2", "t=0"),
        text.replace("p=1$", "p=0$"),
        text.replace("p=1$", "p=17$"),
        text.replace('"2026-05-04T00:00:00+00:00"', '"2026-05-04T00:00:00"'),
        text.replace('"users": [', '"users": [7,'),
        text.replace('"10.0.0.0/24"', '"10.0.0.1/24"'),
    ):
        assert wrong != text
        with pytest.raises((EntryConflicts, EntryNotFound)):
            exchange.imported(ADMIN, wrong, replacing=True)
    assert state(archive) == before
    exchange.imported(ADMIN, text, replacing=True)


def test_who_changes_is_named_by_user_where_there_is_one(archive: Archive) -> None:
    desk = Desk(ContractTable(archive.database), archive.audit, Bounds())
    Contracts(desk).add(replace(ADMIN, user="jane"), contract())
    (entry,) = Contracts(desk).history(ADMIN, "a")
    assert entry.who == "jane"
