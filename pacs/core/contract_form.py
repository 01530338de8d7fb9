"""Contracts as JSON and back: what ``export`` writes, ``import`` reads and ``show`` prints.

Checks form and types only; what makes sense is for ``pacs.services.subscriber``.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from pacs.core.caller import Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose, User
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, StudyInstanceUID
from pacs.core.records import Peer, PeerEncoding

Form = Mapping[str, object]
_MISSING: Final = object()


def form_of(contract: Contract) -> dict[str, object]:
    """Write a contract as JSON has it."""
    return {
        "name": contract.subscriber,
        "state": contract.state.value,
        "reason": contract.reason,
        "issuer_of_patient_id": contract.issuer_of_patient_id,
        "rights": [one.value for one in Right if one in contract.rights],
        "destinations": sorted(contract.destinations),
        "agreements": [_agreement_form(one) for one in contract.agreements],
        "purposes": [_purpose_form(one) for one in contract.purposes],
        "purpose": contract.purpose,
        "allocation_bytes": contract.allocation_bytes,
        "begins_utc": _time_text(contract.begins_utc),
        "ends_utc": _time_text(contract.ends_utc),
    }


def _agreement_form(one: Agreement) -> Form:
    return {
        "owner": one.owner,
        "study_instance_uid": one.study_instance_uid,
        "purpose": one.purpose,
    }


def _purpose_form(one: Purpose) -> Form:
    return {
        "name": one.name,
        "modalities": None if one.modalities is None else sorted(one.modalities),
        "max_matrix": one.max_matrix,
        "process": one.process,
        "report": one.report,
    }


def peer_form(peer: Peer) -> dict[str, object]:
    """Write a peer as JSON has it, without its subscriber."""
    return {
        "ae_title": peer.ae_title,
        "host": peer.host,
        "port": peer.port,
        "associations": peer.associations,
        "encoding": peer.encoding.value,
        "rate_mbit_s": peer.rate_mbit_s,
        "tls": peer.tls,
        "networks": list(peer.networks),
        "certificate_fingerprint": peer.certificate_fingerprint,
    }


def contract_of(form: object) -> Contract:
    """Read a contract. Raises ``EntryConflicts``."""
    said = _Reader(form, "a subscriber")
    return Contract(
        subscriber=SubscriberName(said.text("name")),
        state=_state(said.text("state")),
        reason=said.text("reason"),
        issuer_of_patient_id=said.text("issuer_of_patient_id"),
        rights=frozenset(map(_right, said.texts("rights"))),
        destinations=frozenset(map(AETitle, said.texts("destinations"))),
        agreements=tuple(map(_agreement_of, said.items("agreements"))),
        purposes=tuple(map(_purpose_of, said.items("purposes"))),
        purpose=said.text("purpose"),
        allocation_bytes=said.number("allocation_bytes"),
        begins_utc=_time(said.optional_text("begins_utc")),
        ends_utc=_time(said.optional_text("ends_utc")),
    )


def _agreement_of(form: object) -> Agreement:
    said = _Reader(form, "an agreement")
    owner, study = said.optional_text("owner"), said.optional_text("study_instance_uid")
    return Agreement(
        owner=None if owner is None else SubscriberName(owner),
        study_instance_uid=None if study is None else StudyInstanceUID(study),
        purpose=said.text("purpose"),
    )


def _purpose_of(form: object) -> Purpose:
    said = _Reader(form, "a purpose")
    modalities = None if said.value("modalities") is None else frozenset(said.texts("modalities"))
    return Purpose(
        name=said.text("name"),
        modalities=modalities,
        max_matrix=said.number("max_matrix"),
        process=said.flag("process"),
        report=said.flag("report"),
    )


def peer_of(form: object, subscriber: SubscriberName) -> Peer:
    """Read a peer of that subscriber. Raises ``EntryConflicts``."""
    said = _Reader(form, "a peer")
    encodings = {one.value: one for one in PeerEncoding}
    if said.text("encoding") not in encodings:
        raise EntryConflicts("the encoding of a peer is none")
    rate = said.value("rate_mbit_s")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))):
        raise EntryConflicts("a peer: rate_mbit_s is no number")
    return Peer(
        ae_title=AETitle(said.text("ae_title")),
        host=said.text("host"),
        port=said.number("port") or 0,
        associations=said.number("associations") or 0,
        encoding=encodings[said.text("encoding")],
        rate_mbit_s=None if rate is None else float(rate),
        tls=said.flag("tls"),
        subscriber=subscriber,
        networks=tuple(said.texts("networks")),
        certificate_fingerprint=said.text("certificate_fingerprint"),
    )


def user_of(form: object, subscriber: SubscriberName) -> User:
    """Read a user of that subscriber. Raises ``EntryConflicts``."""
    said = _Reader(form, "a user")
    return User(name=said.text("name"), subscriber=subscriber, passcode=said.text("passcode"))


class _Reader:
    """One JSON object, asked for its keys. Every answer has its type, or is refused."""

    def __init__(self, form: object, what: str) -> None:
        if not isinstance(form, dict):
            raise EntryConflicts(f"{what} of the file is no JSON object")
        self._form: Form = form
        self._what = what

    def value(self, key: str) -> object:
        value = self._form.get(key, _MISSING)
        if value is _MISSING:
            raise EntryConflicts(f"{self._what} of the file lacks {key}")
        return value

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise EntryConflicts(f"{self._what}: {key} is no text")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.value(key) is None else self.text(key)

    def number(self, key: str) -> int | None:
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise EntryConflicts(f"{self._what}: {key} is no whole number")
        return value

    def flag(self, key: str) -> bool:
        value = self.value(key)
        if not isinstance(value, bool):
            raise EntryConflicts(f"{self._what}: {key} is neither true nor false")
        return value

    def items(self, key: str) -> Sequence[object]:
        value = self.value(key)
        if not isinstance(value, list):
            raise EntryConflicts(f"{self._what}: {key} is no list")
        return value

    def texts(self, key: str) -> Sequence[str]:
        values = self.items(key)
        if not all(isinstance(one, str) for one in values):
            raise EntryConflicts(f"{self._what}: {key} is no list of texts")
        return [str(one) for one in values]


def _state(text: str) -> ContractState:
    try:
        return ContractState(text)
    except ValueError as error:
        raise EntryConflicts("the state of a subscriber is none") from error


def _right(text: str) -> Right:
    try:
        return Right(text)
    except ValueError as error:
        raise EntryConflicts("a right of a subscriber is none") from error


def _time_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise EntryConflicts("a time of the file is none, as 2026-01-31T07:30:00+00:00") from error
    if read.tzinfo is None:
        raise EntryConflicts("a time of the file has no time zone")
    return read.astimezone(UTC)
