"""Rows of contracts: what can be asked, and one change as one transaction.

``pacs.core.contract_ports`` states the promises. What a change may do is
decided in ``pacs.services.subscriber``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pacs.core.caller import SubscriberName
from pacs.core.contract import Contract, User
from pacs.core.contract_ports import Enrolled, EnrolmentCode, HistoryEntry
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer
from storage.database.connection import Database
from storage.database.peer import read_peers
from storage.database.revision import bump_revision
from storage.database.subscriber_change import ContractWrites
from storage.database.subscriber_rows import (
    CODE,
    HISTORY,
    code_of,
    entry_of,
    proposal_of,
    read_contracts,
    read_users,
)


class ContractTable:
    """``pacs.core.contract_ports.ContractRows``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def change(self) -> Iterator["ContractChange"]:
        """Begin a change: whoever comes second waits here and sees what the first has done."""
        with self._database.transaction():
            bump_revision(self._database)
            yield ContractChange(self._database)

    def list(self) -> Sequence[Contract]:
        return read_contracts(self._database)

    def find(self, name: str) -> Contract | None:
        return next(iter(read_contracts(self._database, name)), None)

    def users(self, subscriber: str | None = None) -> Sequence[User]:
        return read_users(self._database, subscriber)

    def peers(self, subscriber: str) -> Sequence[Peer]:
        return read_peers(self._database, "subscriber", subscriber)

    def peer(self, ae_title: AETitle) -> Peer | None:
        return next(iter(read_peers(self._database, "ae_title", ae_title)), None)

    def enrolled(self, name: str) -> Enrolled | None:
        rows = self._database.execute(
            "SELECT enrolment_code, proposal FROM subscriber "
            "WHERE name = ? AND enrolment_code IS NOT NULL",
            (name,),
        )
        for code, proposal in rows:
            return Enrolled(
                subscriber=SubscriberName(name), code=int(code), proposal=proposal_of(proposal)
            )
        return None

    def codes(self) -> Sequence[EnrolmentCode]:
        rows = self._database.execute(f"SELECT {CODE} FROM enrolment_code ORDER BY id")
        return [code_of(row) for row in rows]

    def pending(self) -> Sequence[int]:
        rows = self._database.execute(
            "SELECT enrolment_code FROM subscriber "
            "WHERE state = 'pending' AND enrolment_code IS NOT NULL"
        )
        return [int(row[0]) for row in rows]

    def count(self) -> int:
        return int(self._one("SELECT COUNT(*) FROM subscriber")[0])

    def grantees(self, owner: str) -> Sequence[SubscriberName]:
        rows = self._database.execute(
            "SELECT DISTINCT subscriber FROM subscriber_agreement WHERE owner = ? "
            "ORDER BY subscriber",
            (owner,),
        )
        return [SubscriberName(row[0]) for row in rows]

    def namesake(self, name: str) -> SubscriberName | None:
        rows = self._database.execute(
            "SELECT name FROM subscriber WHERE LOWER(name) = ?", (name.lower(),)
        )
        return next((SubscriberName(row[0]) for row in rows), None)

    def holds_images(self, name: str) -> bool:
        # Whatever is held hangs below a patient, and there are far fewer of these.
        return bool(
            self._one("SELECT EXISTS (SELECT 1 FROM patient WHERE registrant = ?)", name)[0]
        )

    def history(self, subscriber: str) -> Sequence[HistoryEntry]:
        rows = self._database.execute(
            f"SELECT {HISTORY} FROM contract_history WHERE subscriber = ? ORDER BY id",
            (subscriber,),
        )
        return [entry_of(row) for row in rows]

    def held(self, subscriber: str) -> tuple[int, int]:
        files, size_bytes = self._one(
            "SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM instance WHERE registrant = ?",
            subscriber,
        )
        return int(files), int(size_bytes)

    def _one(self, sql: str, *params: object) -> tuple[Any, ...]:
        return next(self._database.execute(sql, params))


class ContractChange(ContractTable, ContractWrites):
    """``pacs.core.contract_ports.ContractUnit``: asks and writes within one transaction."""
