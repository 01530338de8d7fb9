"""What a contract can be: names, bounds and terms that make sense. Decides about no change."""

import re
from typing import Final

from config.settings import Subscriber as Bounds
from pacs.core.caller import Right
from pacs.core.contract import ENROL, Agreement, Contract, Purpose
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import is_ae_title, is_uid

RESERVED: Final = frozenset({"local", "admin"})
"""Loopback's subscriber and the command line's: never those of a contract, in whatever capitals."""
GRANTABLE: Final = frozenset(Right) - {Right.CONNECT}
LONGEST_NAME: Final = 64
LONGEST_REASON: Final = 500
MOST_DESTINATIONS: Final = 200
MOST_PURPOSES: Final = 32
MOST_ALLOCATED_BYTES: Final = 1 << 60
LARGEST_MATRIX: Final = 65_535
PASSCODE_BYTES: Final = (8, 1_024)
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}\Z")
_MODALITY = re.compile(r"[A-Z0-9_]{1,16}\Z")


def check_name(name: str) -> None:
    """Refuse what cannot name a subscriber: its images are held under it, and files say so."""
    if not _NAME.match(name):
        raise EntryConflicts(
            f"a subscriber's name has 1 to {LONGEST_NAME} letters, digits, dots, dashes or "
            "underscores, and begins with a letter or digit"
        )
    if name.lower() in RESERVED:
        raise EntryConflicts(f"{name} is the archive's own name")


def check_text(text: str, what: str, longest: int) -> None:
    """Refuse text that is too long, or that cannot be shown or sent."""
    if len(text) > longest or not text.isprintable() or "\\" in text:
        raise EntryConflicts(f"{what} has at most {longest} printable characters and no backslash")


def checked_reason(reason: str) -> str:
    """Give the reason as it is kept; every end and every pause has one."""
    if not reason.strip():
        raise EntryConflicts("a reason is needed")
    check_text(reason.strip(), "a reason", LONGEST_REASON)
    return reason.strip()


def check_user_name(name: str) -> None:
    """Refuse what cannot name a user: it travels as UTF-8 text (PS3.7 D.3.3.7)."""
    if not name or name != name.strip():
        raise EntryConflicts("a user's name is not empty and has no blanks around it")
    if name == ENROL or name.startswith(f"{ENROL}:"):
        raise EntryConflicts(f"as {ENROL} a device introduces itself: no user is named so")
    check_text(name, "a user's name", LONGEST_NAME)


def check_passcode(passcode: bytes) -> None:
    """Refuse a passcode that is guessed too soon or too long to be one."""
    least, most = PASSCODE_BYTES
    if not least <= len(passcode) <= most:
        raise EntryConflicts(f"a passcode has {least} to {most} bytes")


def check_rights(rights: frozenset[Right]) -> None:
    """Refuse what no contract grants."""
    if Right.CONNECT in rights:
        raise EntryConflicts("to connect is granted by admission itself")


def check_agreement_count(contract: Contract, bounds: Bounds) -> None:
    """Refuse more agreements than one subscriber may have."""
    if len(contract.agreements) > bounds.max_agreements:
        raise EntryConflicts(
            f"a subscriber has at most {bounds.max_agreements} agreements "
            "(subscriber.max_agreements)"
        )


def check_contract(contract: Contract) -> None:
    """Refuse a contract that contradicts itself. Raises ``EntryConflicts``."""
    check_name(contract.subscriber)
    check_text(contract.reason, "a reason", LONGEST_REASON)
    check_text(contract.issuer_of_patient_id, "an issuer of patient IDs", LONGEST_NAME)
    check_rights(contract.rights)
    _check_extent(contract)
    _check_destinations(contract)
    _check_purposes(contract)
    _check_agreements(contract)


def _check_extent(contract: Contract) -> None:
    allocation = contract.allocation_bytes
    if allocation is not None and not 0 <= allocation <= MOST_ALLOCATED_BYTES:
        raise EntryConflicts("a storage allocation is not negative, and less than an exabyte")
    begins, ends = contract.begins_utc, contract.ends_utc
    if begins is not None and ends is not None and ends <= begins:
        raise EntryConflicts("a contract ends after it begins")


def _check_destinations(contract: Contract) -> None:
    if len(contract.destinations) > MOST_DESTINATIONS:
        raise EntryConflicts(f"a subscriber has at most {MOST_DESTINATIONS} move destinations")
    if not all(map(is_ae_title, contract.destinations)):
        raise EntryConflicts("an AE title has 1 to 16 printable characters, no backslash")


def _check_purposes(contract: Contract) -> None:
    names = [one.name for one in contract.purposes]
    if len(names) > MOST_PURPOSES or len(set(names)) != len(names):
        raise EntryConflicts(f"a subscriber has at most {MOST_PURPOSES} purposes, each once")
    if contract.purpose and contract.purpose not in names:
        raise EntryConflicts(f"{contract.subscriber} has no purpose {contract.purpose}")
    for one in contract.purposes:
        _check_purpose(one)


def _check_purpose(purpose: Purpose) -> None:
    if not _NAME.match(purpose.name):
        raise EntryConflicts(
            f"a purpose's name has 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"
        )
    modalities = purpose.modalities
    if modalities is not None and not (modalities and all(map(_MODALITY.match, modalities))):
        raise EntryConflicts("modalities are written as in Modality (0008,0060), for example CT")
    if purpose.max_matrix is not None and not 1 <= purpose.max_matrix <= LARGEST_MATRIX:
        raise EntryConflicts(f"a matrix has 1 to {LARGEST_MATRIX} rows and columns")


def _check_agreements(contract: Contract) -> None:
    agreements = contract.agreements
    if len(set(agreements)) != len(agreements):
        raise EntryConflicts("an agreement is made once")
    for one in agreements:
        _check_agreement(one, contract)


def _check_agreement(agreement: Agreement, contract: Contract) -> None:
    study = agreement.study_instance_uid
    if study is not None and (agreement.owner is None or not is_uid(study)):
        raise EntryConflicts("a study is named by its UID, and together with its owner")
    if agreement.owner == contract.subscriber:
        raise EntryConflicts("a subscriber sees its own images without an agreement")
    if agreement.purpose and agreement.purpose not in {one.name for one in contract.purposes}:
        raise EntryConflicts(f"{contract.subscriber} has no purpose {agreement.purpose}")
