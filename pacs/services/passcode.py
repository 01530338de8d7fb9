"""Passcodes at rest: Argon2id (RFC 9106) with a salt of its own for each, as a PHC string.

Owns cost and form. Every call costs memory and time on purpose, so no more than
``AT_ONCE`` run in one process; the others wait their turn. What it takes is imported by
who calls: most processes never do.
"""

import os
import re
import threading
from functools import cache
from typing import Final

AT_ONCE: Final = 2
_MEMORY_KIB: Final = 19_456
_ITERATIONS: Final = 2
_LENGTH: Final = 32
_SALT_BYTES: Final = 16
_turns = threading.BoundedSemaphore(AT_ONCE)


def hashed(passcode: bytes) -> str:
    """Give what is kept of a passcode.

    >>> matches(b"secret", hashed(b"secret")), matches(b"other", hashed(b"secret"))
    (True, False)
    """
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    hashing = Argon2id(
        salt=os.urandom(_SALT_BYTES),
        length=_LENGTH,
        iterations=_ITERATIONS,
        lanes=1,
        memory_cost=_MEMORY_KIB,
    )
    with _turns:
        return hashing.derive_phc_encoded(passcode)


_KEPT = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}\Z"
)
_MOST_MEMORY_KIB: Final = 262_144
_MOST_PASSES: Final = 10
_MOST_LANES: Final = 16
_LEAST_KIB_PER_LANE: Final = 8  # RFC 9106 Section 3.1


def is_hashed(kept: str) -> bool:
    """Tell whether text that came from elsewhere is what ``hashed`` gives, at a cost we can bear.

    >>> is_hashed(hashed(b"secret")), is_hashed("secret")
    (True, False)
    """
    said = _KEPT.match(kept)
    if said is None:
        return False
    memory_kib, passes, lanes = map(int, said.groups())
    return (
        _LEAST_KIB_PER_LANE * lanes <= memory_kib <= _MOST_MEMORY_KIB
        and 1 <= passes <= _MOST_PASSES
        and 1 <= lanes <= _MOST_LANES
    )


@cache
def _nobodys() -> str:
    """What no passcode matches: made once, by the first who compares."""
    return hashed(os.urandom(_SALT_BYTES))


def matches(passcode: bytes, kept: str) -> bool:
    """Tell whether a passcode is the one kept; takes as long where none is (``kept`` is empty)."""
    from cryptography.exceptions import InvalidKey
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    nobodys = _nobodys()  # whoever is asked for: the first comparison must not tell either
    with _turns:
        try:
            Argon2id.verify_phc_encoded(passcode, kept or nobodys)
        except (InvalidKey, ValueError):  # it is another's, or nothing that could be compared
            return False
    return bool(kept)
