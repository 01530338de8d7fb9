"""Who may come in and what they may do, while no contract exists: loopback is the subscriber ``local``."""

import ipaddress
from functools import lru_cache

from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.errors import AdmissionRefused, NotAuthorized
from pacs.core.identifiers import Registrant, new_object_id

LOCAL = SubscriberName("local")
_LOCAL_RIGHTS = frozenset(Right) - {Right.ADMINISTER}


@lru_cache(maxsize=4_096)
def is_loopback(address: str) -> bool:
    """Tell whether an address never leaves this machine: 127.0.0.0/8, ::1 and its mapped forms."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


class LoopbackGate:
    """``pacs.core.ports.Gate``: any AE from loopback is ``local``; everybody else is refused."""

    def __init__(self, *, loopback_trust: bool, issuer_of_patient_id: str) -> None:
        self._loopback_trust = loopback_trust
        self._issuer_of_patient_id = issuer_of_patient_id

    def admit(self, candidate: Candidate) -> Caller:
        """Resolve who asks. Raises ``AdmissionRefused``."""
        if not (self._loopback_trust and is_loopback(candidate.address)):
            raise AdmissionRefused(f"no contract is bound to {candidate.address}")
        return Caller(
            subscriber=LOCAL,
            rights=_LOCAL_RIGHTS,
            visibility=Visibility(registrants=frozenset({Registrant(LOCAL)})),
            ae_title=candidate.calling_ae_title,
            address=candidate.address,
            association=new_object_id(),
            issuer_of_patient_id=self._issuer_of_patient_id,
        )

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """Give the caller back where it has ``right``. Raises ``NotAuthorized``; nobody has a purpose."""
        if purpose:
            raise NotAuthorized(f"{caller.subscriber} has no such purpose")
        if right is not Right.CONNECT and right not in caller.rights:
            raise NotAuthorized(f"{caller.subscriber} has no right to {right.value}")
        return caller

    def stands(self, caller: Caller) -> bool:
        """Loopback stays what it is."""
        return True
