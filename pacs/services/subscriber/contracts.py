"""The life of a contract: made, changed, suspended, cancelled, removed; and what there is to see of it."""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pacs.core.caller import Caller, Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, User
from pacs.core.contract_ports import Enrolled, HistoryEntry
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer
from pacs.services.subscriber.checks import check_rights, checked_reason
from pacs.services.subscriber.desk import Change, Desk, found


class Unchanged(enum.Enum):
    """Says that a term stays as it is."""

    AS_IT_IS = 0


AS_IT_IS: Final = Unchanged.AS_IT_IS


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Terms to be changed; the fields are those of ``Contract``, ``None`` takes one away."""

    issuer_of_patient_id: str | Unchanged = AS_IT_IS
    allocation_bytes: int | Unchanged | None = AS_IT_IS
    begins_utc: datetime | Unchanged | None = AS_IT_IS
    ends_utc: datetime | Unchanged | None = AS_IT_IS
    purpose: str | Unchanged = AS_IT_IS

    def changed(self) -> Mapping[str, Any]:
        """What is changed, by the name of the field."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not AS_IT_IS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A contract with all that belongs to it. ``grantees`` may see its images by agreement."""

    contract: Contract
    peers: Sequence[Peer]
    users: Sequence[User]
    grantees: Sequence[SubscriberName]
    enrolled: Enrolled | None
    held_files: int
    held_bytes: int


class Contracts:
    """What an admin does with contracts; each change is in the history and on record."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def list(self, caller: Caller) -> Sequence[Contract]:
        """All contracts by name."""
        return self._desk.rows.list()

    def show(self, caller: Caller, name: str) -> Shown:
        """Everything of one contract. Raises ``EntryNotFound``."""
        rows = self._desk.rows
        contract = found(rows.find(name), name)
        files, size_bytes = rows.held(name)
        return Shown(
            contract=contract,
            peers=rows.peers(name),
            users=rows.users(name),
            grantees=rows.grantees(name),
            enrolled=rows.enrolled(name),
            held_files=files,
            held_bytes=size_bytes,
        )

    def history(self, caller: Caller, name: str) -> Sequence[HistoryEntry]:
        """What was ever changed under that name, oldest first. Raises ``EntryNotFound``."""
        entries = self._desk.rows.history(name)
        if not entries:
            raise EntryNotFound(f"no subscriber was ever named {name}")
        return entries

    def add(self, caller: Caller, contract: Contract) -> bool:
        """Make a contract; tells whether images are held under its name already.

        Raises ``EntryConflicts`` where the name is taken or a term makes no sense.
        """
        if contract.state not in (ContractState.ACTIVE, ContractState.PENDING):
            raise EntryConflicts("a contract begins as active or pending")
        with self._desk.change(caller, event="contract-changed") as change:
            check_free(change, contract.subscriber)
            change.check_room()
            change.put(contract)
            change.note(
                contract.subscriber, f"added as {contract.state.value}, {said_of(contract)}"
            )
            return change.unit.holds_images(contract.subscriber)

    def change(self, caller: Caller, name: str, edits: Edits) -> Contract:
        """Change terms. Raises ``EntryNotFound``, ``EntryConflicts``."""
        changed = edits.changed()
        if not changed:
            raise EntryConflicts("nothing is to be changed")
        what = "changed " + ", ".join(
            f"{key} to {'none' if value in (None, '') else value}" for key, value in changed.items()
        )
        return self._desk.edit(caller, name, what, lambda one: replace(one, **changed))

    def grant(self, caller: Caller, name: str, rights: Iterable[Right]) -> Contract:
        """Give rights. Raises ``EntryNotFound``, ``EntryConflicts``."""
        more = frozenset(rights)
        return self._desk.edit(
            caller, name, f"granted {rights_said(more)}",
            lambda one: replace(one, rights=one.rights | more),
        )  # fmt: skip

    def revoke(self, caller: Caller, name: str, rights: Iterable[Right]) -> Contract:
        """Take rights away. Raises ``EntryNotFound``, ``EntryConflicts``."""
        gone = frozenset(rights)
        return self._desk.edit(
            caller, name, f"revoked {rights_said(gone)}",
            lambda one: replace(one, rights=one.rights - gone),
        )  # fmt: skip

    def suspend(self, caller: Caller, name: str, *, reason: str) -> Contract:
        """Let an active contract grant nothing for now. Raises ``EntryNotFound``, ``EntryConflicts``."""
        why = checked_reason(reason)

        def edited(one: Contract) -> Contract:
            _check_state(one, ContractState.ACTIVE)
            return replace(one, state=ContractState.SUSPENDED, reason=why)

        return self._desk.edit(caller, name, "suspended", edited, why=why)

    def resume(self, caller: Caller, name: str) -> Contract:
        """Let a suspended contract hold again. Raises ``EntryNotFound``, ``EntryConflicts``."""

        def edited(one: Contract) -> Contract:
            _check_state(one, ContractState.SUSPENDED)
            return replace(one, state=ContractState.ACTIVE, reason="")

        return self._desk.edit(caller, name, "resumed", edited)

    def cancel(self, caller: Caller, name: str, *, reason: str, images_to: Sequence[str]) -> None:
        """End a contract for good; its images stay, and those named may see them, nobody else by name.

        Raises ``EntryNotFound``, ``EntryConflicts``.
        """
        why = checked_reason(reason)
        with self._desk.change(caller, event="contract-changed") as change:
            contract = change.in_force(name)
            change.put(replace(contract, state=ContractState.CANCELLED, reason=why))
            for other in change.unit.grantees(name):
                if other not in images_to:
                    change.note(other, f"lost sight of the images of {name}, which was cancelled")
                self._agree(change, other, name, ())
            for heir in dict.fromkeys(images_to):
                if heir == name:
                    raise EntryConflicts("a cancelled subscriber sees no images, not even its own")
                change.in_force(heir)
                self._agree(change, heir, name, (Agreement(owner=contract.subscriber),))
                change.note(heir, f"may see the images of {name}, which was cancelled")
            change.note(name, f"cancelled, images to {', '.join(images_to) or 'nobody'}", why)

    def _agree(self, change: Change, other: str, owner: str, agreed: tuple[Agreement, ...]) -> None:
        """Let ``other`` have just these agreements about ``owner``."""
        contract = change.get(other)
        rest = tuple(one for one in contract.agreements if one.owner != owner)
        change.put(replace(contract, agreements=(*rest, *agreed)))

    def remove(self, caller: Caller, name: str) -> Sequence[AETitle]:
        """Remove a cancelled contract under which no image is held; gives the peers that went with it.

        Raises ``EntryNotFound``, ``EntryConflicts``.
        """
        with self._desk.change(caller, event="contract-removed") as change:
            _check_state(change.get(name), ContractState.CANCELLED)
            if change.unit.holds_images(name):
                raise EntryConflicts(f"images of {name} are still held")
            peers = [one.ae_title for one in change.unit.peers(name)]
            change.unit.remove(SubscriberName(name))
            change.note(name, "removed")
        return peers


def check_free(change: Change, name: str) -> None:
    """Refuse a name some contract has, whatever its capitals."""
    taken = change.unit.namesake(name)
    if taken is not None:
        raise EntryConflicts(f"a subscriber is named {taken} already")


def _check_state(contract: Contract, state: ContractState) -> None:
    if contract.state is not state:
        raise EntryConflicts(f"{contract.subscriber} is {contract.state.value}, not {state.value}")


def rights_said(rights: frozenset[Right]) -> str:
    """Name rights in their order. Raises ``EntryConflicts`` for what is none of a contract's."""
    check_rights(rights)
    return ", ".join(one.value for one in Right if one in rights) or "no rights"


def said_of(contract: Contract) -> str:
    """Say for the history what a contract grants."""
    extent = [f"issuer {contract.issuer_of_patient_id}", rights_said(contract.rights)]
    if contract.allocation_bytes is not None:
        extent.append(f"{contract.allocation_bytes} bytes")
    if contract.begins_utc is not None:
        extent.append(f"from {contract.begins_utc:%Y-%m-%dT%H:%MZ}")
    if contract.ends_utc is not None:
        extent.append(f"until {contract.ends_utc:%Y-%m-%dT%H:%MZ}")
    return ", ".join(extent)
