"""Which connections are open, in memory that all listeners of one server share.

Owns the memory, its lock and what lies where: one slot a connection, with its
owner (a listener's number), its host and whether it has associated. Refuses to
know how many may be. A process that dies leaves its slots as they are, never
the lock: the kernel gives a record lock back, and ``clear`` the slots.
"""

import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pacs.association.failures import SIZE_BYTES as FAILURES_BYTES
from pacs.association.failures import FailureTable
from pacs.association.throttle import SIZE_BYTES as THROTTLE_BYTES
from pacs.association.throttle import Throttle
from pacs.core.ports import ATTEMPT, USER

MAX_LISTENERS: Final = 255
"""An owner is one byte, and 0 is nobody."""

_AFTER_SLOTS: Final = THROTTLE_BYTES + 3 * FAILURES_BYTES
_KEY_BYTES: Final = 16
_NOBODY: Final = b"\0"
_NO_HOST: Final = bytes(_KEY_BYTES)


class Board:
    """Slots for ``slots`` connections, of this process alone unless made of a descriptor."""

    def __init__(self, slots: int, descriptor: int = -1) -> None:
        self._slots = slots
        self._descriptor = descriptor
        # Accepting listeners; the owners, the associated and the hosts of all slots; the throttle;
        # failures of places, of names, and of names at places: none pushes out one of another kind.
        self._owners = MAX_LISTENERS + 1
        self._associated = self._owners + slots
        self._hosts = self._associated + slots
        self._end = self._hosts + slots * _KEY_BYTES
        self._memory = mmap.mmap(descriptor, self._end + _AFTER_SLOTS)
        self._throttle = Throttle(self._memory, self._end)
        failures = self._end + THROTTLE_BYTES
        self._of_places = FailureTable(self._memory, failures)
        self._of_names = FailureTable(self._memory, failures + FAILURES_BYTES)
        self._of_attempts = FailureTable(self._memory, failures + 2 * FAILURES_BYTES)
        self._lock = threading.RLock()
        self._depth = 0

    @classmethod
    def shared(cls, slots: int) -> "Board":
        """Make one whose ``descriptor`` can be handed to other processes."""
        size = MAX_LISTENERS + 1 + slots * (2 + _KEY_BYTES) + _AFTER_SLOTS
        descriptor = os.memfd_create("pacs-board", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        return cls(slots, descriptor)

    @property
    def descriptor(self) -> int:
        """What other processes map; -1 where there is nothing to share."""
        return self._descriptor

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other thread or process look or write meanwhile. May be nested."""
        with self._lock:
            self._depth += 1
            if self._depth == 1 and self._descriptor >= 0:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._descriptor >= 0:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    # --- asked and told within ``alone`` ------------------------------------------------

    def connections(self) -> int:
        """Slots taken."""
        return self._slots - self._column(self._owners).count(0)

    def associations(self) -> int:
        """Slots taken by connections that have associated."""
        return self._column(self._associated).count(1)

    def of_listener(self, number: int) -> int:
        """Slots a listener has taken."""
        return self._column(self._owners).count(number + 1)

    def least_of_accepting(self) -> int:
        """Slots of that listener among the accepting ones that has the fewest."""
        owners = self._column(self._owners)
        accepting = self._memory[:MAX_LISTENERS]
        return min(
            (owners.count(number + 1) for number in range(MAX_LISTENERS) if accepting[number]),
            default=0,
        )

    def accepting(self, number: int, accepts: bool) -> None:
        """Note whether a listener takes new connections."""
        self._memory[number] = int(accepts)

    def of_host(self, host: str) -> Iterator[tuple[int, int, bool]]:
        """Yield slot, owner and whether it has associated, for each connection of a host."""
        key = _key(host)
        at = self._memory.find(key, self._hosts, self._end)
        while at >= 0:
            slot, odd = divmod(at - self._hosts, _KEY_BYTES)
            if not odd and (owner := self._memory[self._owners + slot]):
                yield slot, owner - 1, bool(self._memory[self._associated + slot])
            at = self._memory.find(key, at + 1, self._end)

    def take(self, host: str, number: int) -> bool:
        """Take a slot for a listener's connection; ``False`` when all are taken."""
        slot = self._column(self._owners).find(_NOBODY)
        if slot < 0:
            return False
        place = self._hosts + slot * _KEY_BYTES
        self._memory[place : place + _KEY_BYTES] = _key(host)
        self._memory[self._associated + slot] = 0
        self._memory[self._owners + slot] = number + 1  # last: before, the slot is nobody's
        return True

    def may_associate(self, host: str, *, per_minute: int, now_s: float) -> bool:
        """Count an association of a host; ``False`` where it had as many within a minute."""
        return self._throttle.take(_key(host), per_minute=per_minute, now_s=now_s)

    def note_failure(
        self, key: str, *, most: int, window_s: float, lock_s: float, now_s: float
    ) -> None:
        """Count an identity that failed under a key of ``pacs.core.ports.Failures``."""
        self._failures(key).note(
            _key(key), most=most, window_s=window_s, lock_s=lock_s, now_s=now_s
        )

    def is_locked(self, key: str, now_s: float) -> bool:
        """Tell whether too many have failed under a key."""
        return self._failures(key).is_locked(_key(key), now_s)

    def associate(self, slot: int, associated: bool) -> None:
        """Note that the connection of a slot has associated, or no longer is."""
        self._memory[self._associated + slot] = int(associated)

    def give(self, slot: int) -> None:
        """Give a slot back."""
        place = self._hosts + slot * _KEY_BYTES
        self._memory[self._associated + slot] = 0
        self._memory[place : place + _KEY_BYTES] = _NO_HOST
        self._memory[self._owners + slot] = 0

    def clear(self, number: int) -> None:
        """Give back everything of a listener that has ended."""
        with self.alone():
            self.accepting(number, False)
            owners = self._column(self._owners)
            for slot, owner in enumerate(owners):
                if owner == number + 1:
                    self.give(slot)

    def close(self) -> None:
        """Let go of the memory; other processes keep theirs."""
        self._memory.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _failures(self, key: str) -> FailureTable:
        by_kind = {ATTEMPT: self._of_attempts, USER: self._of_names}
        return by_kind.get(key.partition(" ")[0], self._of_places)

    def _column(self, start: int) -> bytes:
        return self._memory[start : start + self._slots]


def _key(host: str) -> bytes:
    """Sixteen bytes that stand for a host or a name, never all zero."""
    return hashlib.blake2b(host.encode(), digest_size=_KEY_BYTES).digest()
