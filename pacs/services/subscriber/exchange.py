"""Contracts as a file: all of what an admin said of a subscriber, for another archive or for a bad day.

Users go with what is kept of their passcodes, so the file is a secret. Enrolment
codes and the history stay where they are.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pacs.core.caller import Caller
from pacs.core.contract import NAME_ONLY, Contract, User
from pacs.core.contract_form import contract_of, form_of, peer_form, peer_of, user_of
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.records import Peer
from pacs.services.passcode import is_hashed
from pacs.services.peer import check_peer
from pacs.services.subscriber.checks import check_agreement_count, check_contract, check_user_name
from pacs.services.subscriber.contracts import check_free
from pacs.services.subscriber.desk import Change, Desk

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """One subscriber of a file."""

    contract: Contract
    users: Sequence[User]
    peers: Sequence[Peer]


class Exchange:
    """Writes and reads the file."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def exported(self, caller: Caller, names: Sequence[str] = ()) -> str:
        """Write all subscribers, or those named, as JSON. Raises ``EntryNotFound``."""
        rows = self._desk.rows
        contracts = {str(one.subscriber): one for one in rows.list()}
        if unknown := [one for one in names if one not in contracts]:
            raise EntryNotFound(f"no subscriber is named {unknown[0]}")
        forms = [
            {
                **form_of(one),
                "users": [
                    {"name": user.name, "passcode": user.passcode} for user in rows.users(name)
                ],
                "peers": [peer_form(peer) for peer in rows.peers(name)],
            }
            for name, one in contracts.items()
            if not names or name in names
        ]
        return json.dumps(
            {"pacs_subscribers": _VERSION, "subscribers": forms}, ensure_ascii=False, indent=1
        )

    def imported(self, caller: Caller, text: str, *, replacing: bool = False) -> Sequence[Contract]:
        """Take in what ``exported`` wrote, all or nothing; ``replacing`` makes those there as in the file.

        Raises ``EntryConflicts``, ``EntryNotFound``.
        """
        wholes = [self._read(one) for one in _forms(text)]
        names = [one.contract.subscriber.lower() for one in wholes]
        if len(set(names)) != len(names):
            raise EntryConflicts("two subscribers of the file have one name")
        with self._desk.change(caller, event="contract-changed") as change:
            for one in wholes:
                self._put(change, one, replacing=replacing)
            for one in wholes:  # an owner may come later in the file
                change.check_owners(one.contract.agreements)
        return [one.contract for one in wholes]

    def _read(self, form: object) -> _Whole:
        contract = contract_of(form)
        check_contract(contract)
        check_agreement_count(contract, self._desk.bounds)
        name = contract.subscriber
        users = [user_of(one, name) for one in _listed(form, "users")]
        peers = [peer_of(one, name) for one in _listed(form, "peers")]
        if len(users) > self._desk.bounds.max_users:
            raise EntryConflicts(f"{name} has too many users (subscriber.max_users)")
        for user in users:
            check_user_name(user.name)
            if user.passcode not in ("", NAME_ONLY) and not is_hashed(user.passcode):
                raise EntryConflicts(f"what is kept of the passcode of {user.name} is not readable")
        for peer in peers:
            check_peer(peer)
        return _Whole(contract=contract, users=users, peers=peers)

    def _put(self, change: Change, whole: _Whole, *, replacing: bool) -> None:
        unit, contract = change.unit, whole.contract
        name = contract.subscriber
        there = unit.find(name) is not None
        if not (there and replacing):
            check_free(change, name)
            change.check_room()
        unit.put(contract)
        _put_users(change, whole)
        _put_peers(change, whole)
        change.note(
            name, f"{'replaced by' if there else 'added from'} a file, {contract.state.value}"
        )


def _put_users(change: Change, whole: _Whole) -> None:
    unit, name = change.unit, whole.contract.subscriber
    owners = {one.name: one.subscriber for one in unit.users()}
    for user in whole.users:
        if owners.get(user.name, name) != name:
            raise EntryConflicts(f"a user of another subscriber is named {user.name}")
        unit.put_user(user)
    for gone in {one.name for one in unit.users(name)} - {one.name for one in whole.users}:
        unit.remove_user(gone)


def _put_peers(change: Change, whole: _Whole) -> None:
    unit, name = change.unit, whole.contract.subscriber
    for peer in whole.peers:
        known = unit.peer(peer.ae_title)
        if known is not None and known.subscriber != name:
            whose = f"of {known.subscriber}" if known.subscriber else "already"
            raise EntryConflicts(f"{peer.ae_title} is a peer {whose}")
        unit.put_peer(peer)
    for gone in {one.ae_title for one in unit.peers(name)} - {one.ae_title for one in whole.peers}:
        unit.remove_peer(gone)


def _forms(text: str) -> Sequence[object]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EntryConflicts("the file is no JSON") from error
    forms = said.get("subscribers") if isinstance(said, dict) else None
    if not isinstance(forms, list) or said.get("pacs_subscribers") != _VERSION:
        raise EntryConflicts(
            "the file is no export of subscribers: pacs_subscribers and subscribers are needed"
        )
    return forms


def _listed(form: object, key: str) -> Sequence[object]:
    listed = form.get(key) if isinstance(form, dict) else None
    if not isinstance(listed, list):
        raise EntryConflicts(f"a subscriber of the file lacks {key}")
    return listed
