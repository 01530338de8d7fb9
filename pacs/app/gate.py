"""The gate, put together: contracts, devices, identities, and what must hold before a network sees it."""

import logging
from collections.abc import Container
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from config.settings import Settings
from pacs.association.lockout import Lockout
from pacs.core.contract import Enrolments
from pacs.core.errors import SettingsInvalid
from pacs.core.ports import AuditTrail, Failures, Gate, Snapshots
from pacs.core.records import Snapshot
from pacs.services.gate import ContractGate, is_loopback
from pacs.services.gate.contract import Trust
from pacs.services.gate.devices import Devices
from pacs.services.gate.host_names import HostNames
from pacs.services.gate.identities import Identities, Tokens
from pacs.services.gate.standing import Standing

_LOG = logging.getLogger("pacs.serve")
_EXAMPLE_ADDRESS = "192.0.2.7"
"""Nobody's, RFC 5737: typed as it stands it lets nobody in."""


def contract_gate(
    home: Path,
    settings: Settings,
    *,
    snapshots: Snapshots,
    audit: AuditTrail,
    failures: Failures | None = None,
    enrolments: Enrolments | None = None,
) -> Gate:
    """Join the parts. Failures are counted by this process alone unless given. Raises ``SettingsInvalid``."""
    legitimacy = settings.legitimacy
    return ContractGate(
        snapshots,
        standing=Standing(Devices(HostNames()), legitimacy.resolve_timeout_s),
        identities=Identities(
            matches=_matches,
            tokens=_tokens(home, settings),
            failures=failures or Lockout(legitimacy),
        ),
        audit=audit,
        trust=Trust(
            loopback=settings.dicom.loopback_trust,
            issuer_of_patient_id=settings.identity.issuer_of_patient_id,
            watch_s=legitimacy.watch_s,
        ),
        enrolments=enrolments,
    )


def _matches(passcode: bytes, kept: str) -> bool:
    """Compare; what it needs is slow to import and most processes compare nothing."""
    from pacs.services.passcode import matches

    return matches(passcode, kept)


def _tokens(home: Path, settings: Settings) -> Tokens | None:
    if not settings.legitimacy.jwt_keys:
        return None
    from pacs.services.gate.tokens import WebTokens

    return WebTokens(settings.legitimacy, home)


# --- beyond loopback ----------------------------------------------------------------------


def stays_on_loopback(host: str) -> bool:
    """Tell whether who listens on this address is reached from this machine only."""
    return host == "localhost" or is_loopback(host)


def refuse_strangers(settings: Settings, snapshot: Snapshot) -> None:
    """Beyond loopback, serve only where somebody can be told from everybody else.

    Raises ``SettingsInvalid`` with the command that mends it.
    """
    host = settings.dicom.host
    if not stays_on_loopback(host) and not identifies_somebody(snapshot):
        raise SettingsInvalid(
            f"dicom.host {host} is not loopback, and no contract that is active and in its time is "
            "bound to an address, client certificate or user: nobody could be admitted. Name one, "
            f"with its own name, AE title, address and port: {_mending(snapshot)}"
        )


def _mending(snapshot: Snapshot) -> str:
    """Commands that name somebody as they stand: with names that are nobody's yet."""
    name = _unused("clinic", {one.lower() for one in snapshot.contracts})
    ae_title = _unused("MODALITY", snapshot.peers)
    return (
        f"pacs subscriber add {name} --right register --right query --right receive && "
        f"pacs peer add {ae_title} {_EXAMPLE_ADDRESS} 104 --subscriber {name}"
    )


def _unused(name: str, used: Container[str]) -> str:
    names = chain([name], (f"{name}{number}" for number in count(2)))
    return next(one for one in names if one not in used)


def identifies_somebody(snapshot: Snapshot) -> bool:
    """Tell whether a contract that holds now has a device or a user to be known by."""
    now_utc = datetime.now(UTC)
    holding = {one.subscriber for one in snapshot.contracts.values() if one.holds(now_utc)}
    devices = {one.subscriber for one in snapshot.peers.values()}
    users = {one.subscriber for one in snapshot.users.values() if one.proof != "name"}
    return not holding.isdisjoint(devices | users)


def warn_of_plain_text(host: str, *, tls: bool) -> None:
    """Say that what peers send beyond this machine can be read on its way, passcodes included."""
    if not tls and not stays_on_loopback(host):
        _LOG.warning("serving-without-tls host=%s", host)
