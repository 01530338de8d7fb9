"""User identities: checked, and those that fail counted. PS3.7 Annex D.3.3.7.

Owns what proves a user. Refuses to know devices and contracts. All failures
look alike and take alike long, whether or not the user exists.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from pacs.core.caller import Candidate, Refusal
from pacs.core.contract import ENROL, NAME_ONLY, User
from pacs.core.errors import AdmissionRefused
from pacs.core.ports import ATTEMPT, USER, Failures
from pacs.services.gate.host_names import parsed

USER_NAME: Final = 1
USER_NAME_AND_PASSCODE: Final = 2
JSON_WEB_TOKEN: Final = 5
UNSUPPORTED: Final = {3: "Kerberos is not supported", 4: "SAML is not supported"}
"""User-Identity-Type, PS3.7 Table D.3-14."""

Matches = Callable[[bytes, str], bool]
"""``pacs.services.passcode.matches``."""

_SHOWN: Final = 64
_IPV6_SITE_BITS: Final = 64
"""A host has that many addresses to itself: they count as one."""


class Tokens(Protocol):
    """Verifies JSON Web Tokens."""

    def user_of(self, token: bytes) -> str | None:
        """The user a token was issued for; ``None`` unless it is valid in every respect."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user that was accepted, and what the peer is answered; ``proven`` is more than named."""

    user: User
    proven: bool
    response: bytes = field(default=b"", repr=False)


def refused(cause: str) -> AdmissionRefused:
    """The one answer to every identity that is not taken."""
    return AdmissionRefused(cause, refusal=Refusal.IDENTITY)


def enrolment_code(candidate: Candidate) -> bytes | None:
    """The code of a candidate that introduces itself, ``None`` where it does not.

    The passcode of the user ``enrol``, or ``enrol:CODE`` from devices that send no passcode.
    """
    if candidate.user_identity_type == USER_NAME_AND_PASSCODE:
        return candidate.user_passcode if candidate.user_identity == ENROL.encode() else None
    prefix = f"{ENROL}:".encode()
    if candidate.user_identity_type == USER_NAME and candidate.user_identity.startswith(prefix):
        return candidate.user_identity.removeprefix(prefix)
    return None


class Identities:
    """Checks identities, as few as the failures of late allow."""

    def __init__(self, *, matches: Matches, tokens: Tokens | None, failures: Failures) -> None:
        self._matches = matches
        self._tokens = tokens
        self._failures = failures

    def accepted(
        self, candidate: Candidate, users: Mapping[str, User], *, known_device: bool
    ) -> Identity:
        """Give the user a candidate proves to be, or names beside a known device.

        Raises ``AdmissionRefused``.
        """
        kind = candidate.user_identity_type
        if kind in UNSUPPORTED:
            raise refused(UNSUPPORTED[kind])
        name = candidate.user_identity.decode("utf-8", "replace")
        shown = "" if kind == JSON_WEB_TOKEN else f" {name[:_SHOWN]!r}"
        claimed = "" if kind == JSON_WEB_TOKEN else name
        if known_device:
            keys = device_keys(candidate.calling_ae_title, claimed)
        else:
            keys = stranger_keys(candidate.address, claimed)
        self.check_unlocked(keys)
        if kind == USER_NAME_AND_PASSCODE:
            identity = self._by_passcode(users.get(name), candidate.user_passcode)
        elif kind == JSON_WEB_TOKEN:
            identity = self._by_token(candidate.user_identity, users)
        elif kind == USER_NAME:
            identity = _named(users.get(name) if known_device else None)
        else:
            raise refused("User-Identity-Type is none of the standard's")
        if identity is None:
            self.failed(keys, f"no such user{shown}, or not proven")
        self.check_unlocked(keys)  # others may have failed while this one was looked at
        return identity

    def check_unlocked(self, keys: tuple[str, ...]) -> None:
        """Raise ``AdmissionRefused`` where too many have failed."""
        if any(self._failures.blocked(one) for one in keys):
            raise refused("locked after too many failures")

    def failed(self, keys: tuple[str, ...], cause: str) -> NoReturn:
        """Count a failure, and raise ``AdmissionRefused``."""
        for one in keys:
            self._failures.note(one)
        raise refused(cause)

    def _by_passcode(self, user: User | None, passcode: bytes) -> Identity | None:
        # Who has none is compared with nobody's, so that it takes as long.
        kept = "" if user is None or user.passcode == NAME_ONLY else user.passcode
        proven = self._matches(passcode, kept)
        return Identity(user=user, proven=True) if user is not None and proven else None

    def _by_token(self, token: bytes, users: Mapping[str, User]) -> Identity | None:
        name = None if self._tokens is None else self._tokens.user_of(token)
        user = None if name is None else users.get(name)
        return None if user is None else Identity(user=user, proven=True, response=token)


def device_keys(ae_title: str, name: str) -> tuple[str, ...]:
    """Under what a failure counts at a known device: itself, and the name at it.

    What others do elsewhere, be it from its address, locks nobody out of the device one works at.
    """
    return _keys(f"device {ae_title}", name)


def stranger_keys(address: str, name: str) -> tuple[str, ...]:
    """Under what one counts anywhere else: its address, the name at it, and the name."""
    return (*_keys(_host_key(address), name), *([f"{USER} {name}"] if name else []))


def code_keys(address: str) -> tuple[str, ...]:
    """Under what a wrong enrolment code counts: nobody shall lock enrolment for all."""
    return _keys(_host_key(address), ENROL)


def _keys(place: str, name: str) -> tuple[str, ...]:
    return (place, *([f"{ATTEMPT} {place} {name}"] if name else []))


def _host_key(address: str) -> str:
    """An address, or an IPv6 host's whole network."""
    host = parsed(address)
    if isinstance(host, ipaddress.IPv6Address):
        return f"address {ipaddress.ip_network((host, _IPV6_SITE_BITS), strict=False)}"
    return f"address {host or address}"


def _named(user: User | None) -> Identity | None:
    """A name alone: for none who has anything to prove itself by, be it a passcode or a token."""
    if user is None or user.passcode != NAME_ONLY:
        return None
    return Identity(user=user, proven=False)
