"""Writing contracts, within the transaction of one change."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Contract, User
from pacs.core.contract_ports import Enrolled, HistoryEntry
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer
from storage.database.connection import Database
from storage.database.job_rows import text_utc
from storage.database.peer import write_peer
from storage.database.subscriber_rows import (
    HISTORY,
    agreement_columns,
    contract_columns,
    proposal_text,
    purpose_columns,
    utc_or_none,
    words,
)

_CHILDREN: Mapping[str, str] = {
    "subscriber_destination": "ae_title",
    "subscriber_agreement": "owner, study_instance_uid, purpose",
    "subscriber_purpose": "name, modalities, max_matrix, process, report",
}


def note_history(database: Database, entry: HistoryEntry) -> None:
    """Add to the history of contracts, within whatever transaction changes one."""
    database.write(
        f"INSERT INTO contract_history ({HISTORY}) VALUES (?, ?, ?, ?, ?)",
        (text_utc(entry.at_utc), entry.subscriber, entry.who, entry.what, entry.why),
    )


class ContractWrites:
    """The writing half of ``pacs.core.contract_ports.ContractUnit``."""

    _database: Database

    def put(self, contract: Contract) -> None:
        columns = contract_columns(contract)
        changes = ", ".join(f"{one} = excluded.{one}" for one in columns if one != "name")
        self._database.write(
            f"INSERT INTO subscriber ({', '.join(columns)}, added_utc) VALUES "
            f"({', '.join('?' * len(columns))}, ?) ON CONFLICT (name) DO UPDATE SET {changes}",
            (*columns.values(), _now()),
        )
        name = contract.subscriber
        self._put_children(
            name, "subscriber_destination", ((one,) for one in contract.destinations)
        )
        self._put_children(
            name, "subscriber_agreement", map(agreement_columns, contract.agreements)
        )
        self._put_children(name, "subscriber_purpose", map(purpose_columns, contract.purposes))

    def _put_children(self, subscriber: str, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Write what differs: a contract may have a thousand agreements."""
        columns = _CHILDREN[table]
        wanted = set(map(tuple, rows))
        there = {
            tuple(row)
            for row in self._database.write(
                f"SELECT {columns} FROM {table} WHERE subscriber = ?", (subscriber,)
            ).fetchall()
        }
        same = " AND ".join(f"{one} IS NOT DISTINCT FROM ?" for one in columns.split(", "))
        if self._database.dialect == "sqlite":
            same = same.replace("IS NOT DISTINCT FROM", "IS")
        for gone in there - wanted:
            self._database.write(
                f"DELETE FROM {table} WHERE subscriber = ? AND {same}", (subscriber, *gone)
            )
        marks = ", ".join("?" * (1 + len(columns.split(", "))))
        for new in sorted(wanted - there, key=repr):
            self._database.write(
                f"INSERT INTO {table} (subscriber, {columns}) VALUES ({marks})", (subscriber, *new)
            )

    def rename(self, old: SubscriberName, new: SubscriberName) -> None:
        rest = (
            "state, reason, issuer_of_patient_id, rights, purpose, allocation_bytes, begins_utc, "
            "ends_utc, enrolment_code, proposal, added_utc"
        )
        self._database.write(
            f"INSERT INTO subscriber (name, {rest}) SELECT ?, {rest} FROM subscriber WHERE name = ?",
            (new, old),
        )
        for table in (*_CHILDREN, "subscriber_user", "peer"):
            self._database.write(
                f"UPDATE {table} SET subscriber = ? WHERE subscriber = ?", (new, old)
            )
        self._database.write(
            "UPDATE subscriber_agreement SET owner = ? WHERE owner = ?", (new, old)
        )
        self._database.write("DELETE FROM subscriber WHERE name = ?", (old,))

    def remove(self, name: SubscriberName) -> None:
        self._database.write("DELETE FROM subscriber_agreement WHERE owner = ?", (name,))
        for table in (*_CHILDREN, "subscriber_user", "peer"):
            self._database.write(f"DELETE FROM {table} WHERE subscriber = ?", (name,))
        self._database.write("DELETE FROM subscriber WHERE name = ?", (name,))

    def put_user(self, user: User) -> None:
        self._database.write(
            "INSERT INTO subscriber_user (name, subscriber, passcode, added_utc) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "subscriber = excluded.subscriber, passcode = excluded.passcode",
            (user.name, user.subscriber, user.passcode, _now()),
        )

    def remove_user(self, name: str) -> None:
        self._database.write("DELETE FROM subscriber_user WHERE name = ?", (name,))

    def put_peer(self, peer: Peer) -> None:
        write_peer(self._database, peer)

    def remove_peer(self, ae_title: AETitle) -> None:
        self._database.write("DELETE FROM peer WHERE ae_title = ?", (ae_title,))

    def enrol(self, enrolled: Enrolled) -> None:
        self._database.write(
            "UPDATE subscriber SET enrolment_code = ?, proposal = ? WHERE name = ?",
            (enrolled.code, proposal_text(enrolled.proposal), enrolled.subscriber),
        )
        self._database.write(
            "UPDATE enrolment_code SET uses_left = uses_left - 1 WHERE id = ?", (enrolled.code,)
        )

    def add_code(
        self, *, digest: str, rights: frozenset[Right], until_utc: datetime | None, uses: int
    ) -> int:
        (number,) = self._database.write(
            "INSERT INTO enrolment_code (digest, rights, until_utc, uses_left, added_utc) "
            "VALUES (?, ?, ?, ?, ?) RETURNING id",
            (digest, words(one.value for one in rights), utc_or_none(until_utc), uses, _now()),
        ).fetchone()
        return int(number)

    def remove_code(self, number: int) -> bool:
        gone = self._database.write("DELETE FROM enrolment_code WHERE id = ?", (number,))
        return bool(gone.rowcount)

    def note(self, entry: HistoryEntry) -> None:
        note_history(self._database, entry)


def _now() -> str:
    return text_utc(datetime.now(UTC))
