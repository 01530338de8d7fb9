"""How many connections and associations are open, against how many may be.

Owns the counts. A connection that has not associated yet occupies a connection
and nothing else, so silent peers cannot keep others from associating.
"""

import threading
from collections import Counter


class Occupancy:
    """Counts what is open; thread-safe."""

    def __init__(
        self, *, max_connections: int, max_associations: int, max_associations_per_host: int
    ) -> None:
        self._max_connections = max_connections
        self._max_associations = max_associations
        self._max_per_host = max_associations_per_host
        self._connections = 0
        self._hosts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def associations(self) -> int:
        """Associations open now."""
        with self._lock:
            return self._hosts.total()

    def connect(self) -> bool:
        """Occupy a connection; ``False`` when all are taken."""
        with self._lock:
            if self._connections >= self._max_connections:
                return False
            self._connections += 1
            return True

    def disconnect(self) -> None:
        """Give a connection back."""
        with self._lock:
            self._connections -= 1

    def associate(self, host: str) -> bool:
        """Occupy an association for ``host``; ``False`` when all, or all of its own, are taken."""
        with self._lock:
            if self._hosts.total() >= self._max_associations:
                return False
            if self._hosts[host] >= self._max_per_host:
                return False
            self._hosts[host] += 1
            return True

    def leave(self, host: str) -> None:
        """Give an association of ``host`` back."""
        with self._lock:
            self._hosts[host] -= 1
            if self._hosts[host] <= 0:
                del self._hosts[host]
