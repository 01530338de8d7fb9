"""Rows of contracts as facts: reading all of them in a few queries, and the text that columns hold.

Lists of words without blanks (rights, modalities, networks) stand in one column
each, so that a thousand contracts are read in four queries.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from pacs.core.caller import Certificate, Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose, User
from pacs.core.contract_ports import EnrolmentCode, HistoryEntry, Proposal
from pacs.core.identifiers import AETitle, SOPClassUID, StudyInstanceUID
from storage.database.connection import Database
from storage.database.job_rows import text_utc

_CONTRACT = (
    "name, state, reason, issuer_of_patient_id, rights, purpose, allocation_bytes, "
    "begins_utc, ends_utc"
)
CODE = "id, digest, rights, until_utc, uses_left, added_utc"
HISTORY = "at_utc, subscriber, who, what, why"


def read_contracts(database: Database, name: str | None = None) -> Sequence[Contract]:
    """All contracts by name, or the one of that name."""
    rows = database.execute(f"SELECT {_CONTRACT} FROM subscriber{_of(name, 'name')}", _bound(name))
    children = _Children(database, name)
    return [_contract(row, children) for row in rows]


def read_users(database: Database, subscriber: str | None = None) -> Sequence[User]:
    """All users by name, or those of one subscriber."""
    where = "" if subscriber is None else " WHERE subscriber = ?"
    rows = database.execute(
        f"SELECT name, subscriber, passcode FROM subscriber_user{where} ORDER BY name",
        _bound(subscriber),
    )
    return [
        User(name=name, subscriber=SubscriberName(owner), passcode=passcode)
        for name, owner, passcode in rows
    ]


class _Children:
    """What belongs to contracts, by the contract's name."""

    def __init__(self, database: Database, name: str | None) -> None:
        def read(columns: str, table: str, make: Callable[..., Any]) -> Mapping[str, Any]:
            where = "" if name is None else " WHERE subscriber = ?"
            found: dict[str, Any] = defaultdict(list)
            sql = f"SELECT subscriber, {columns} FROM subscriber_{table}{where} ORDER BY subscriber, {columns}"
            for subscriber, *values in database.execute(sql, _bound(name)):
                found[subscriber].append(make(*values))
            return found

        self.destinations = read("ae_title", "destination", AETitle)
        self.agreements = read("owner, study_instance_uid, purpose", "agreement", _agreement)
        self.purposes = read("name, modalities, max_matrix, process, report", "purpose", _purpose)


def _of(name: str | None, column: str) -> str:
    return f" ORDER BY {column}" if name is None else f" WHERE {column} = ?"


def _bound(name: str | None) -> Sequence[object]:
    return () if name is None else (name,)


def _contract(row: Sequence[Any], children: _Children) -> Contract:
    name, state, reason, issuer, rights, purpose, allocation, begins, ends = row
    return Contract(
        subscriber=SubscriberName(name),
        state=ContractState(state),
        reason=reason,
        issuer_of_patient_id=issuer,
        rights=rights_of(rights),
        destinations=frozenset(children.destinations.get(name, ())),
        agreements=tuple(children.agreements.get(name, ())),
        purposes=tuple(children.purposes.get(name, ())),
        purpose=purpose,
        allocation_bytes=None if allocation is None else int(allocation),
        begins_utc=_utc_or_none(begins),
        ends_utc=_utc_or_none(ends),
    )


def _agreement(owner: str, study: str, purpose: str) -> Agreement:
    return Agreement(
        owner=SubscriberName(owner) if owner else None,
        study_instance_uid=StudyInstanceUID(study) if study else None,
        purpose=purpose,
    )


def _purpose(
    name: str, modalities: str | None, matrix: int | None, process: int, report: int
) -> Purpose:
    return Purpose(
        name=name,
        modalities=None if modalities is None else _set_of(modalities),
        max_matrix=None if matrix is None else int(matrix),
        process=bool(process),
        report=bool(report),
    )


@lru_cache(maxsize=1_024)
def _set_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


def contract_columns(contract: Contract) -> Mapping[str, object]:
    """The columns of a contract's own row."""
    return {
        "name": contract.subscriber,
        "state": contract.state.value,
        "reason": contract.reason,
        "issuer_of_patient_id": contract.issuer_of_patient_id,
        "rights": words(one.value for one in contract.rights),
        "purpose": contract.purpose,
        "allocation_bytes": contract.allocation_bytes,
        "begins_utc": utc_or_none(contract.begins_utc),
        "ends_utc": utc_or_none(contract.ends_utc),
    }


def agreement_columns(agreement: Agreement) -> Sequence[object]:
    """Owner, study and purpose; empty for the whole archive, all studies, any purpose."""
    return agreement.owner or "", agreement.study_instance_uid or "", agreement.purpose


def purpose_columns(purpose: Purpose) -> Sequence[object]:
    """Name, modalities, matrix, processing and reporting."""
    modalities = None if purpose.modalities is None else words(purpose.modalities)
    return (
        purpose.name,
        modalities,
        purpose.max_matrix,
        int(purpose.process),
        int(purpose.report),
    )


def words(values: Iterable[str]) -> str:
    """Write words in one column, always in the same order."""
    return " ".join(sorted(values))


@lru_cache(maxsize=1_024)
def rights_of(text: str) -> frozenset[Right]:
    """Read rights back; many contracts have the same."""
    return frozenset(map(Right, text.split()))


def utc_or_none(moment: datetime | None) -> str | None:
    """Write a time, or that there is none."""
    return None if moment is None else text_utc(moment)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text)  # a tenth of what strptime takes


def _utc_or_none(text: str | None) -> datetime | None:
    return None if text is None else _utc(text)


def code_of(row: Sequence[Any]) -> EnrolmentCode:
    """Read a code's row, its columns as in ``CODE``."""
    number, digest, rights, until, uses, added = row
    return EnrolmentCode(
        id=int(number),
        digest=digest,
        rights=rights_of(rights),
        until_utc=_utc_or_none(until),
        uses_left=int(uses),
        added_utc=_utc(added),
    )


def entry_of(row: Sequence[Any]) -> HistoryEntry:
    """Read a row of the history, its columns as in ``HISTORY``."""
    at, subscriber, who, what, why = row
    return HistoryEntry(
        at_utc=_utc(at), subscriber=SubscriberName(subscriber), who=who, what=what, why=why
    )


def proposal_text(proposal: Proposal) -> str:
    """Write down how a device introduced itself."""
    shown = proposal.certificate
    return json.dumps(
        {
            "ae_title": proposal.ae_title,
            "called_ae_title": proposal.called_ae_title,
            "address": proposal.address,
            "tls": proposal.tls,
            "certificate": None
            if shown is None
            else {
                "fingerprint": shown.fingerprint,
                "subject": shown.subject,
                "not_after_utc": text_utc(shown.not_after_utc),
            },
            "sop_classes": proposal.sop_classes,
            "at_utc": text_utc(proposal.at_utc),
        },
        ensure_ascii=False,
    )


def proposal_of(text: str) -> Proposal:
    """Read it back."""
    said = json.loads(text)
    shown = said["certificate"]
    return Proposal(
        ae_title=AETitle(said["ae_title"]),
        called_ae_title=AETitle(said["called_ae_title"]),
        address=said["address"],
        tls=said["tls"],
        certificate=None
        if shown is None
        else Certificate(
            fingerprint=shown["fingerprint"],
            subject=shown["subject"],
            not_after_utc=_utc(shown["not_after_utc"]),
        ),
        sop_classes=tuple(map(SOPClassUID, said["sop_classes"])),
        at_utc=_utc(said["at_utc"]),
    )
