"""Devices that introduce themselves: who gets a pending contract by a code, and who gets nothing."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs.app import subscriber as attached
from pacs.app.archive import Archive
from pacs.core.caller import Candidate, Certificate, Right, SubscriberName
from pacs.core.contract import Contract, ContractState, Enrolments
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle, SOPClassUID
from pacs.services.peer import Binding
from pacs.services.subscriber import Enrolment
from pacs.services.subscriber import enrolment as module
from tests.keeping import ADMIN, data_set, keep, opened

RIGHTS = frozenset({Right.REGISTER, Right.QUERY})
CERTIFICATE = Certificate(
    fingerprint="cd" * 32, subject="CN=ct1", not_after_utc=datetime(2030, 1, 1, tzinfo=UTC)
)
CT = Candidate(
    calling_ae_title=AETitle("CT 1"),
    called_ae_title=AETitle("PACS"),
    address="10.0.0.7",
    port=50_000,
    sop_classes=(SOPClassUID("1.2.840.10008.1.1"), SOPClassUID("1.2.840.10008.5.1.4.1.1.2")),
    user_identity=b"never kept",
)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, subscriber__max_pending="5", subscriber__max_pending_per_code="3") as one:
        yield one


def desk_of(archive: Archive) -> Enrolment:
    return attached.enrolments(archive.database, archive.audit, archive.settings.subscriber)


@pytest.fixture
def desk(archive: Archive) -> Enrolment:
    return desk_of(archive)


def code_of(desk: Enrolment, *, uses: int = 1, until: datetime | None = None) -> bytes:
    return desk.add_code(ADMIN, rights=RIGHTS, until_utc=until, uses=uses).code.encode()


def device(name: str, address: str = "10.0.0.7") -> Candidate:
    return replace(CT, calling_ae_title=AETitle(name), address=address)


def revision(archive: Archive) -> int:
    return archive.snapshots.newest().revision


def test_a_device_that_knows_a_code_waits_as_what_it_said(
    archive: Archive, desk: Enrolment
) -> None:
    port: Enrolments = desk
    shown = replace(CT, tls=True, certificate=CERTIFICATE, address="::ffff:10.0.0.7")
    assert port.enrol(code_of(desk), shown) == "CT-1"
    snapshot = archive.snapshots.newest()
    assert snapshot.contracts == {
        "CT-1": Contract(
            subscriber=SubscriberName("CT-1"),
            state=ContractState.PENDING,
            issuer_of_patient_id="CT-1",
            rights=RIGHTS,
        )
    }
    assert not snapshot.contracts[SubscriberName("CT-1")].holds(datetime.now(UTC))
    peer = snapshot.peers[AETitle("CT 1")]
    assert (peer.host, peer.port, peer.tls) == ("10.0.0.7", 2_762, True)
    assert (peer.subscriber, peer.networks) == ("CT-1", ("10.0.0.7/32",))
    assert peer.certificate_fingerprint == CERTIFICATE.fingerprint
    came = attached.contracts(archive).show(ADMIN, "CT-1").enrolled
    assert came is not None and came.proposal.certificate == CERTIFICATE
    assert (came.proposal.sop_classes, came.proposal.tls) == (CT.sop_classes, True)
    assert [one.uses_left for one in desk.codes(ADMIN)] == [0]
    (entry,) = attached.contracts(archive).history(ADMIN, "CT-1")
    assert entry.who == "CT 1 at 10.0.0.7"


def test_the_same_device_again_changes_nothing(archive: Archive, desk: Enrolment) -> None:
    code = code_of(desk, uses=2)
    shown = replace(CT, certificate=CERTIFICATE)
    assert desk.enrol(code, shown) == "CT-1"
    before = revision(archive)
    spoken = code.lower().replace(b"-", b" ") + b"\n"
    assert desk.enrol(spoken, replace(shown, port=50_001)) == "CT-1", "as it is typed"
    for other in (
        replace(shown, address="10.0.0.8"),
        replace(shown, certificate=None),
        replace(shown, certificate=replace(CERTIFICATE, fingerprint="ef" * 32)),
    ):
        assert desk.enrol(code, other) is None
    assert desk.enrol(code_of(desk), shown) is None, "another code"
    assert [one.uses_left for one in desk.codes(ADMIN)] == [1, 1]
    assert revision(archive) == before + 1, "the code that was made"
    desk.accept(ADMIN, "CT-1", rights=None)
    assert desk.enrol(code, shown) == "CT-1", "what it may do now its contract says"
    assert (
        archive.snapshots.newest().contracts[SubscriberName("CT-1")].state is ContractState.ACTIVE
    )


def test_what_is_no_code_opens_nothing_and_costs_no_change(
    archive: Archive, desk: Enrolment
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    over, used = code_of(desk, until=past), code_of(desk)
    removed = desk.add_code(ADMIN, rights=RIGHTS, until_utc=None, uses=1)
    desk.remove_code(ADMIN, removed.number)
    assert desk.enrol(used, CT) == "CT-1"
    before = revision(archive)
    digests = [one.digest.encode() for one in desk.codes(ADMIN)]
    for code in (b"", b"x" * 100_000, over, used, removed.code.encode(), used[:-1], *digests):
        assert desk.enrol(code, device("MR1")) is None
    open_ = code_of(desk)
    for wrong in (device(""), device("  "), device("A\\B"), device("MR1", "not an address")):
        assert desk.enrol(open_, wrong) is None
    assert revision(archive) == before + 1
    assert list(archive.snapshots.newest().contracts) == ["CT-1"]
    with pytest.raises(EntryNotFound):
        desk.remove_code(ADMIN, removed.number)


def test_what_is_somebodys_is_not_taken_over(archive: Archive, desk: Enrolment) -> None:
    code = code_of(desk, uses=9)
    contracts = attached.contracts(archive)
    contracts.add(ADMIN, Contract(subscriber=SubscriberName("rad"), state=ContractState.ACTIVE))
    archive.peers.add(ADMIN, "NOBODYS", "10.0.0.7", 104)
    archive.peers.add(ADMIN, "RADS", "10.0.0.7", 104, binding=Binding(subscriber="rad"))
    before = archive.snapshots.newest().peers
    assert desk.enrol(code, device("NOBODYS")) is None
    assert desk.enrol(code, device("RADS")) is None
    assert archive.snapshots.newest().peers == before
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant="HELD")
    names = [desk.enrol(code, device(name)) for name in ("RAD", "HELD", "LOCAL")]
    assert names == ["RAD-2", "HELD-2", "LOCAL-2"], "neither a contract's name nor a registrant's"


def test_so_many_wait_and_no_more(archive: Archive, desk: Enrolment) -> None:
    one, two = code_of(desk, uses=9), code_of(desk, uses=9)
    first = [desk.enrol(one, device(f"A{number}")) for number in range(4)]
    assert first == ["A0", "A1", "A2", None]
    second = [desk.enrol(two, device(f"B{number}")) for number in range(3)]
    assert second == ["B0", "B1", None]
    before = revision(archive)
    assert desk.enrol(two, device("B9")) is None
    assert revision(archive) == before
    desk.accept(ADMIN, "A0", rights=None)
    assert desk.enrol(one, device("A3")) == "A3", "who is accepted does not wait"
    assert [code.uses_left for code in desk.codes(ADMIN)] == [5, 7]


def test_accepting_gives_rights_and_a_name(archive: Archive, desk: Enrolment) -> None:
    code = code_of(desk, uses=3)
    contracts = attached.contracts(archive)
    contracts.add(ADMIN, Contract(subscriber=SubscriberName("rad"), state=ContractState.ACTIVE))
    for name in ("A", "B", "C"):
        desk.enrol(code, device(name))
    assert desk.accept(ADMIN, "A", rights=None).rights == RIGHTS
    kept = desk.accept(ADMIN, "B", rights=frozenset({Right.READ}), new_name="ward-3")
    assert (kept.rights, kept.issuer_of_patient_id) == ({Right.READ}, "ward-3")
    snapshot = archive.snapshots.newest()
    assert snapshot.peers[AETitle("B")].subscriber == "ward-3"
    assert SubscriberName("B") not in snapshot.contracts
    assert contracts.history(ADMIN, "ward-3")[-1].what == "accepted with read, was B"
    for name, new_name in (("C", "RAD"), ("C", "local"), ("A", ""), ("rad", "")):
        with pytest.raises(EntryConflicts):
            desk.accept(ADMIN, name, rights=None, new_name=new_name)
    assert archive.snapshots.newest() == snapshot
    assert desk.accept(ADMIN, "C", rights=None, new_name="c").subscriber == "c"


def test_a_use_is_counted_once_however_many_come_at_once(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        desk = desk_of(archive)
        code, start = code_of(desk, uses=3), threading.Barrier(6)
        names: list[str | None] = []

        def introduce(name: str) -> Callable[[], None]:
            def run() -> None:
                start.wait(30)
                names.append(desk.enrol(code, device(name)))

            return run

        # Two connections each of two devices, and two of one connection.
        threads = [
            threading.Thread(target=introduce(one)) for one in ("A", "A", "B", "B", "C", "D")
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
        given = [one for one in names if one is not None]
        assert len(names) == 6 and len(set(given)) == 3
        assert sorted(archive.snapshots.newest().contracts) == sorted(set(given))
        assert [one.uses_left for one in desk.codes(ADMIN)] == [0]


def test_codes_are_told_once_and_bounded(tmp_path: Path) -> None:
    with opened(tmp_path, subscriber__max_codes="1") as archive:
        desk = desk_of(archive)
        made = desk.add_code(ADMIN, rights=RIGHTS, until_utc=None, uses=1)
        assert len(made.code.replace("-", "")) == 20
        for uses in (0, 10_001):
            with pytest.raises(EntryConflicts, match="times"):
                desk.add_code(ADMIN, rights=RIGHTS, until_utc=None, uses=uses)
        with pytest.raises(EntryConflicts, match="max_codes"):
            desk.add_code(ADMIN, rights=RIGHTS, until_utc=None, uses=1)
        desk.enrol(made.code.encode(), CT)
        kept = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
        for secret in (made.code.encode(), made.code.replace("-", "").encode(), b"never kept"):
            assert secret not in kept
        assert b"contract-enrolled" in kept


def test_codes_are_compared_in_the_same_time(
    archive: Archive, desk: Enrolment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kept one, to its end, wherever the right one stands."""
    codes = [code_of(desk) for _ in range(3)]
    compared: list[str] = []
    plain = module.hmac.compare_digest

    def counting(one: str, other: str) -> bool:
        compared.append(one)
        return plain(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", counting)
    for code in (b"wrong", codes[0], codes[2]):
        compared.clear()
        module._matching(desk._desk.rows, module._digest(code))
        assert len(compared) == 3
