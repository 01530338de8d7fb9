"""How fast Data Sets leave for a peer: a bucket for each, shared by its associations in this process.

Owns the reckoning; whoever sends waits its turn. A peer without a rate has no
bucket and costs nothing.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from pacs.core.identifiers import AETitle
from pacs.core.records import Peer

STEP_S: Final = 0.1
"""As much as the rate brings in this time leaves at once, and may be saved up by an idle line."""
LEAST_STEP_BYTES: Final = 1_024
"""Smaller fragments would be headers more than anything else."""
_BYTES_PER_MBIT: Final = 125_000

Clock = Callable[[], float]


class Rate:
    """The bucket of one peer. For any number of threads."""

    def __init__(self, mbit_s: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes_per_s = mbit_s * _BYTES_PER_MBIT
        self._free_s = clock() - STEP_S

    @property
    def step_bytes(self) -> int:
        """What may leave in one piece; an even number."""
        with self._lock:
            return max(LEAST_STEP_BYTES, int(self._bytes_per_s * STEP_S) // 2 * 2)

    def set(self, mbit_s: float) -> None:
        """Go on at another rate."""
        with self._lock:
            self._bytes_per_s = mbit_s * _BYTES_PER_MBIT

    def turn(self, size_bytes: int) -> float:
        """Stand in line with so many bytes; give the time, for ``rest_s``, when they may leave."""
        with self._lock:
            begins_s = max(self._free_s, self._clock() - STEP_S)
            self._free_s = begins_s + size_bytes / self._bytes_per_s
            return begins_s

    def rest_s(self, turn_s: float) -> float:
        """How long to wait still."""
        return max(0.0, turn_s - self._clock())


class Rates:
    """The buckets of one process, by AE title."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rates: dict[AETitle, Rate] = {}

    def of(self, peer: Peer) -> Rate | None:
        """Give the bucket of a peer, if it has a rate; the rate of the newest association holds for all."""
        if peer.rate_mbit_s is None:
            return None
        with self._lock:
            rate = self._rates.setdefault(peer.ae_title, Rate(peer.rate_mbit_s))
        rate.set(peer.rate_mbit_s)
        return rate


RATES: Final = Rates()
"""Of this process: every association it opens takes from the same bucket."""
