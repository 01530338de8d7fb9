"""Contracts as rows keep their promises on both databases: whole, bounded, one change at a time, in the snapshot."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.caller import Certificate, Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose, User
from pacs.core.contract_ports import Enrolled, HistoryEntry, Proposal
from pacs.core.errors import EntryConflicts, RecordsFailed
from pacs.core.identifiers import AETitle, SOPClassUID, StudyInstanceUID
from pacs.core.records import Peer
from storage.database.connection import Database
from storage.database.snapshot import DatabaseSnapshots
from storage.database.subscriber import ContractTable

A, B = SubscriberName("a"), SubscriberName("b")
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
PLAIN = Contract(subscriber=B, state=ContractState.PENDING)
FULL = Contract(
    subscriber=A,
    state=ContractState.SUSPENDED,
    reason="unpaid",
    issuer_of_patient_id="Klinik Süd",
    rights=frozenset({Right.QUERY, Right.SOFTWARE_VENDOR}),
    destinations=frozenset({AETitle("X 1"), AETitle("Y")}),
    agreements=(
        Agreement(owner=None, purpose="teaching"),
        Agreement(owner=B),
        Agreement(owner=B, study_instance_uid=StudyInstanceUID("1.2")),
    ),
    purposes=(
        Purpose(name="care"),
        Purpose(
            name="teaching",
            modalities=frozenset({"CT", "MR"}),
            max_matrix=512,
            process=False,
            report=False,
        ),
    ),
    purpose="teaching",
    allocation_bytes=5_000_000_000_000,
    begins_utc=NOW,
    ends_utc=NOW + timedelta(days=1),
)
PEER = Peer(
    ae_title=AETitle("CT1"),
    host="10.0.0.1",
    port=104,
    tls=True,
    subscriber=A,
    networks=("10.0.0.0/24", "fd00::/64"),
    certificate_fingerprint="ab" * 32,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    made = Database(DatabaseSettings(url=url), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def table(database: Database) -> ContractTable:
    return ContractTable(database)


def put(table: ContractTable, *contracts: Contract) -> None:
    with table.change() as unit:
        for one in contracts:
            unit.put(one)


def proposal(ae_title: str = "CT1") -> Proposal:
    return Proposal(
        ae_title=AETitle(ae_title),
        called_ae_title=AETitle("PACS"),
        address="10.0.0.1",
        tls=True,
        certificate=Certificate(fingerprint="ab" * 32, subject="CN=ct1", not_after_utc=NOW),
        sop_classes=(SOPClassUID("1.2.840.10008.1.1"),),
        at_utc=NOW,
    )


def test_what_is_put_is_what_is_read_and_stands_in_the_snapshot(
    database: Database, table: ContractTable
) -> None:
    before = DatabaseSnapshots(database).current().revision
    user = User(name="müller", subscriber=A, passcode="kept")
    with table.change() as unit:
        unit.put(PLAIN)
        unit.put(FULL)
        unit.put_user(user)
        unit.put_peer(PEER)
    assert table.list() == [FULL, PLAIN]
    assert (table.find("a"), table.find("nobody"), table.count()) == (FULL, None, 2)
    assert table.peers("a") == [PEER] == [table.peer(PEER.ae_title)]
    snapshot = DatabaseSnapshots(database).current()
    assert snapshot.revision == before + 1, "one change"
    assert snapshot.contracts == {A: FULL, B: PLAIN}
    assert snapshot.users == {"müller": user}
    assert snapshot.peers == {"CT1": PEER}


def test_a_contract_is_replaced_whole(table: ContractTable) -> None:
    put(table, PLAIN, FULL)
    changed = replace(
        FULL,
        state=ContractState.ACTIVE,
        reason="",
        rights=frozenset(),
        destinations=frozenset({AETitle("Y")}),
        agreements=FULL.agreements[:1],
        purposes=(replace(FULL.purposes[0], max_matrix=1), FULL.purposes[1]),
        allocation_bytes=None,
        begins_utc=None,
        ends_utc=None,
    )
    put(table, changed)
    assert table.list() == [changed, PLAIN]
    put(table, replace(changed, agreements=(), purposes=(), destinations=frozenset()))
    found = table.find("a")
    assert found is not None
    assert (found.agreements, found.purposes, found.destinations) == ((), (), frozenset())


def test_a_change_that_fails_leaves_nothing(database: Database, table: ContractTable) -> None:
    put(table, PLAIN)
    before = DatabaseSnapshots(database).current()
    with pytest.raises(EntryConflicts), table.change() as unit:
        unit.put(FULL)
        unit.put_user(User(name="u", subscriber=A))
        unit.note(HistoryEntry(at_utc=NOW, subscriber=A, who="x", what="y"))
        raise EntryConflicts
    with pytest.raises(RecordsFailed), table.change() as unit:
        unit.put_user(User(name="u", subscriber=A))  # there is no such contract
    assert table.list() == [PLAIN]
    assert table.history("a") == []
    assert DatabaseSnapshots(database).current() == before


def test_changes_wait_for_each_other(table: ContractTable) -> None:
    """Two that read, and write what they read plus one, end at plus two."""
    put(table, replace(PLAIN, allocation_bytes=0))
    both = threading.Barrier(2)

    def add() -> None:
        both.wait()
        for _ in range(10):
            with table.change() as unit:
                found = unit.find("b")
                assert found is not None and found.allocation_bytes is not None
                unit.put(replace(found, allocation_bytes=found.allocation_bytes + 1))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    found = table.find("b")
    assert found is not None and found.allocation_bytes == 20


def test_history_only_grows_and_survives_removal(table: ContractTable) -> None:
    entries = [
        HistoryEntry(at_utc=NOW, subscriber=A, who="admin", what="added", why=""),
        HistoryEntry(at_utc=NOW, subscriber=A, who="admin", what="suspended", why="unpaid"),
    ]
    put(table, PLAIN, FULL)
    with table.change() as unit:
        for one in entries:
            unit.note(one)
        unit.note(replace(entries[0], subscriber=B))
    with table.change() as unit:
        unit.remove(A)
    assert table.history("a") == entries
    assert len(table.history("b")) == 1


def test_removing_takes_what_is_its_own_and_what_others_agreed_about_it(
    table: ContractTable,
) -> None:
    put(table, PLAIN, FULL)
    with table.change() as unit:
        unit.put_user(User(name="u", subscriber=B))
        unit.put_peer(replace(PEER, subscriber=B))
        assert unit.grantees("b") == [A]
        unit.remove(B)
    left = table.find("a")
    assert left is not None and left.agreements == FULL.agreements[:1]
    assert (table.users(), table.peer(PEER.ae_title), table.find("b")) == ([], None, None)


def test_another_name_takes_everything_along(table: ContractTable) -> None:
    put(table, PLAIN, FULL)
    with table.change() as unit:
        unit.put_user(User(name="u", subscriber=B))
        unit.put_peer(replace(PEER, subscriber=B))
        unit.enrol(Enrolled(subscriber=B, code=7, proposal=proposal()))
        unit.rename(B, SubscriberName("c"))
    moved, other = table.find("c"), table.find("a")
    assert moved == replace(PLAIN, subscriber=SubscriberName("c"))
    assert other is not None and {one.owner for one in other.agreements} == {None, "c"}
    assert [one.subscriber for one in table.users()] == ["c"]
    assert [one.ae_title for one in table.peers("c")] == ["CT1"]
    assert table.enrolled("c") == Enrolled(
        subscriber=SubscriberName("c"), code=7, proposal=proposal()
    )
    assert table.find("b") is None


def test_codes_are_counted_down_and_say_who_waits(table: ContractTable) -> None:
    put(table, PLAIN, FULL)
    rights = frozenset({Right.REGISTER, Right.QUERY})
    with table.change() as unit:
        first = unit.add_code(digest="d1", rights=rights, until_utc=NOW, uses=2)
        second = unit.add_code(digest="d2", rights=frozenset(), until_utc=None, uses=1)
        unit.enrol(Enrolled(subscriber=B, code=first, proposal=proposal()))
        unit.enrol(Enrolled(subscriber=A, code=second, proposal=proposal()))
    one, two = table.codes()
    assert (one.id, one.digest, one.rights, one.until_utc, one.uses_left) == (
        first, "d1", rights, NOW, 1,
    )  # fmt: skip
    assert (two.until_utc, two.uses_left) == (None, 0)
    assert table.pending() == [first], "a is suspended"
    assert table.enrolled("b") == Enrolled(subscriber=B, code=first, proposal=proposal())
    with table.change() as unit:
        assert unit.remove_code(first)
        assert not unit.remove_code(first)
    assert [code.id for code in table.codes()] == [second]


def test_names_are_found_whatever_their_capitals(table: ContractTable) -> None:
    put(table, replace(PLAIN, subscriber=SubscriberName("Radiology")))
    assert table.namesake("RADIOLOGY") == "Radiology"
    assert table.namesake("radiolog") is None
    assert not table.holds_images("Radiology")
    assert table.held("Radiology") == (0, 0)


def test_a_thousand_contracts_are_read_in_as_many_queries_as_one(
    database: Database, table: ContractTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    plain = Database.execute

    def counting(self: Database, sql: str, params: tuple[object, ...] = ()) -> object:
        asked.append(sql)
        return plain(self, sql, params)

    monkeypatch.setattr(Database, "execute", counting)
    put(table, PLAIN)
    asked.clear()
    DatabaseSnapshots(database).newest()
    few = len(asked)
    many = [
        replace(FULL, subscriber=SubscriberName(f"s{number}"), agreements=())
        for number in range(1_000)
    ]
    put(table, *many)
    snapshots = DatabaseSnapshots(database)
    asked.clear()
    assert len(snapshots.newest().contracts) == 1_001
    assert len(asked) == few
    asked.clear()
    snapshots.newest()
    assert len(asked) == 1, "nothing changed"


def test_a_snapshot_is_of_one_moment(
    database: Database, table: ContractTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change between two of its queries has it read anew."""
    put(table, PLAIN)
    snapshots = DatabaseSnapshots(database)
    plain, changes = DatabaseSnapshots._read, iter([replace(PLAIN, reason="changed")])

    def interrupted(self: DatabaseSnapshots, revision: int) -> object:
        read = plain(self, revision)
        for one in changes:
            put(table, one)
        return read

    monkeypatch.setattr(DatabaseSnapshots, "_read", interrupted)
    read = snapshots.newest()
    assert read.contracts[B].reason == "changed"
    assert read.revision == DatabaseSnapshots(database).current().revision
