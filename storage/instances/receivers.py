"""Names of worker processes that receive beside others: one each at a time, however they end.

A name is a lock file in the store's folder ``receivers``; the kernel gives it
up with its process, on a network file system with its machine's lease. Owns
nothing of what was received: ``DiskStore`` has the folders of these names.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.core.errors import CapacityExhausted

_PREFIX = "worker-"
_MOST = 4_096
"""Worker processes on all machines that share a store."""

# A process never contends with itself for such locks, and closing a file once would give it up.
_ours: set[Path] = set()
_lock = threading.Lock()


def is_worker(name: str) -> bool:
    """Tell whether a receiver has its name from here.

    >>> is_worker("worker-0"), is_worker("listener-0"), is_worker("")
    (True, False, False)
    """
    return name.startswith(_PREFIX)


@contextmanager
def receiver(store: Path) -> Iterator[str]:
    """Hold the first free name for the block: the replacement of a crashed process gets its name."""
    for number in range(_MOST):
        with unattended(store, f"{_PREFIX}{number}") as free:
            if free:
                yield f"{_PREFIX}{number}"
                return
    raise CapacityExhausted(f"{_MOST} workers receive into one store")


@contextmanager
def unattended(store: Path, name: str) -> Iterator[bool]:
    """Tell whether nobody has a name; then nobody gets it until the block ends."""
    folder = store / "receivers"
    folder.mkdir(exist_ok=True)
    path = (folder / f"{name}.lock").resolve()
    with _lock:
        free = path not in _ours
        descriptor = _locked(path) if free else None
        if descriptor is not None:
            _ours.add(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with _lock:
                os.close(descriptor)
                _ours.discard(path)


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
