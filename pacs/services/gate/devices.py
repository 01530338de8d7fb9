"""Whether a candidate is the device whose AE title it says it has: by address, certificate, or both.

An AE title alone never identifies: everybody can say it. Refuses to know of users and
contracts.
"""

import hmac
import ipaddress
from functools import lru_cache

from pacs.core.records import Peer
from pacs.services.gate.host_names import HostNames, parsed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=4_096)
def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


class Devices:
    """Tells devices by what the admin entered of them."""

    def __init__(self, names: HostNames) -> None:
        self._names = names

    def is_device(
        self, peer: Peer, *, address: str, fingerprint: str, patience_s: float
    ) -> bool | None:
        """Tell whether this is the peer; ``None`` where its host name is not looked up yet.

        ``fingerprint`` is that of a valid certificate, empty without one. A peer that a
        certificate is bound to needs it, and no address unless it was given networks.
        """
        bound = peer.certificate_fingerprint
        if bound and not hmac.compare_digest(bound.lower().encode(), fingerprint.encode()):
            return False
        if peer.networks:
            return self._within(address, peer)
        return True if bound else self._at_host(address, peer.host, patience_s)

    def _within(self, address: str, peer: Peer) -> bool:
        found = parsed(address)
        networks = (_network(one) for one in peer.networks)
        return found is not None and any(one is not None and found in one for one in networks)

    def _at_host(self, address: str, host: str, patience_s: float) -> bool | None:
        addresses = self._names.addresses(host, patience_s)
        return None if addresses is None else parsed(address) in addresses
