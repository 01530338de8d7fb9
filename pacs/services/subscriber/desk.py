"""What every change of contracts has: one transaction, an entry in the history, a line in the audit trail."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from config.settings import Subscriber as Bounds
from pacs.core.caller import Caller, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState
from pacs.core.contract_ports import ContractRows, ContractUnit, HistoryEntry
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.ports import AuditTrail
from pacs.services.subscriber.checks import (
    RESERVED,
    check_agreement_count,
    check_contract,
)


class Change:
    """One change while it is made."""

    def __init__(self, unit: ContractUnit, who: str, bounds: Bounds) -> None:
        self.unit = unit
        self._who = who
        self._bounds = bounds
        self.entries: list[HistoryEntry] = []

    def get(self, name: str) -> Contract:
        """The contract of that name. Raises ``EntryNotFound``."""
        return found(self.unit.find(name), name)

    def in_force(self, name: str) -> Contract:
        """The contract of that name, if it can still be changed. Raises ``EntryConflicts`` too."""
        contract = self.get(name)
        if contract.state is ContractState.CANCELLED:
            raise EntryConflicts(f"{name} is cancelled")
        return contract

    def put(self, contract: Contract) -> None:
        """Write a contract that makes sense. Raises ``EntryConflicts``, ``EntryNotFound`` for an owner.

        Only what is new is held against bounds and owners: a setting that was lowered, or an
        owner who is gone, keeps nobody from suspending.
        """
        check_contract(contract)
        before = self.unit.find(contract.subscriber)
        had = before.agreements if before else ()
        if len(contract.agreements) > len(had):
            check_agreement_count(contract, self._bounds)
        self.check_owners(set(contract.agreements) - set(had))
        self.unit.put(contract)

    def check_owners(self, agreements: Iterable[Agreement]) -> None:
        """Refuse agreements about somebody who has no contract and holds nothing."""
        for owner in {one.owner for one in agreements}:
            if owner is None or owner.lower() in RESERVED:
                continue
            if self.unit.find(owner) is None and not self.unit.holds_images(owner):
                raise EntryNotFound(f"no subscriber is named {owner}")

    def check_room(self) -> None:
        """Refuse one contract more than there may be."""
        most = self._bounds.max_subscribers
        if self.unit.count() >= most:
            raise EntryConflicts(f"there are {most} contracts already (subscriber.max_subscribers)")

    def note(self, subscriber: str, what: str, why: str = "") -> None:
        """Say what was changed."""
        entry = HistoryEntry(
            at_utc=datetime.now(UTC),
            subscriber=SubscriberName(subscriber),
            who=self._who,
            what=what,
            why=why,
        )
        self.unit.note(entry)
        self.entries.append(entry)


class Desk:
    """Where changes are made. Reasons are kept in the history and stay out of the audit trail."""

    def __init__(self, rows: ContractRows, audit: AuditTrail, bounds: Bounds) -> None:
        self.rows = rows
        self.bounds = bounds
        self._audit = audit

    @contextmanager
    def change(self, caller: Caller | None, *, event: str, who: str = "") -> Iterator[Change]:
        """Begin a change; it is on record once it is committed. Raises ``RecordsFailed``."""
        whose = who or (caller.user or caller.subscriber if caller else "")
        with self.rows.change() as unit:
            change = Change(unit, whose, self.bounds)
            yield change
        for one in change.entries:
            self._audit.record(event, caller, contract=one.subscriber, change=one.what)

    def edit(
        self,
        caller: Caller,
        name: str,
        what: str,
        edited: Callable[[Contract], Contract],
        *,
        why: str = "",
    ) -> Contract:
        """Change one contract that is not cancelled; gives what became of it.

        Raises ``EntryNotFound`` and ``EntryConflicts``.
        """
        with self.change(caller, event="contract-changed") as change:
            after = edited(change.in_force(name))
            change.put(after)
            change.note(name, what, why)
        return after

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        """Note in the audit trail what is no change of one contract."""
        self._audit.record(event, caller, **details)


def found(contract: Contract | None, name: str) -> Contract:
    """Give a contract that is there. Raises ``EntryNotFound``."""
    if contract is None:
        raise EntryNotFound(f"no subscriber is named {name}")
    return contract
