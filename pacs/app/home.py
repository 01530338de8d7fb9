"""The home directory: made once, served by one process at a time."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from config.load import Loaded
from pacs.app.archive import LOCK, store_folder
from pacs.app.extension import Extension, installed
from pacs.core.errors import HomeInUse, SettingsInvalid
from storage.database.connection import Database

LOCK_WAIT_S = 10.0
"""How long the listeners of a server that was killed may take to end."""
_LOOK_AGAIN_S = 0.02


def initialize(home: Path, loaded: Loaded, extensions: Sequence[Extension] | None = None) -> None:
    """Make store and database, extensions' tables included; what is there already stays."""
    attached = installed() if extensions is None else extensions
    scripts = {one.name: one.migrations for one in attached if one.migrations is not None}
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_store(store_folder(home, loaded.settings))
    (home / "work").mkdir(exist_ok=True)
    database = Database(loaded.settings.database, home)
    try:
        database.migrate(scripts)
    finally:
        database.close()
    store = store_folder(home, loaded.settings)
    for folder in (store, store.parent, home, home.parent):
        _make_durable(folder)


def _make_store(folder: Path) -> None:
    """Make the store's folders. Raises ``SettingsInvalid`` where that cannot be."""
    try:
        (folder / "incoming").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"storage.path {folder}: {error.strerror}") from error


def _make_durable(folder: Path) -> None:
    """Fsync a folder: what it names is found again after power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(home: Path) -> Iterator[int]:
    """Be the only one who serves or rebuilds this home; gives the lock's descriptor. Raises ``HomeInUse``.

    The lock ends with the last process that has the descriptor, however it
    ends: listeners have it too, so nobody else begins before they are gone.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, home)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Path) -> None:
    """Take the lock; wait for it where its owner has ended and only its listeners are still ending."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            if _lives(owner) or time.monotonic() >= deadline:
                raise HomeInUse(f"{home} is in use by process {owner or 'unknown'}") from error
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _lives(process: str) -> bool:
    """Tell whether a process runs; one that has ended and was not collected yet does not."""
    try:
        stat = Path(f"/proc/{int(process)}/stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
