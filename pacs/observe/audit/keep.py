"""What the chain needs to be believed, kept apart from the trail: key, head, floor, lock.

They lie in home/audit-chain, which only the archive's own user may read: who
can write to home/audit alone can neither forge a line nor hide that the last
ones are gone. Owns their files and forms; decides nothing.
"""

import errno
import fcntl
import json
import os
import secrets
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pacs.observe.audit.chain import GENESIS, KEY_BYTES

PRIVATE = 0o600
_HEAD = struct.Struct("<8sQQQQQ32s16s")
_MAGIC = b"PACSAUD1"
_MISSED_AT = 8 + 4 * 8
_MOST = 10**18
"""More records, or bytes, than ever are: a head that says so is none."""
_FIRST_PAUSE_S = 0.000_05
_LONGEST_PAUSE_S = 0.01
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Head(NamedTuple):
    """Where the chain ends: the last record's number, in which day's file up to which byte, and the last hash.

    ``synced`` records are on disk whatever happens; ``missed`` ones could not be written.
    ``boot`` is the machine's run in which this was noted.
    """

    number: int
    day: int
    offset: int
    synced: int
    missed: int
    last: bytes
    boot: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Where the chain begins now: everything before ``day`` was removed on purpose."""

    day: int
    count: int
    last: str


class Busy(OSError):
    """Somebody holds the lock for longer than a record may wait."""


def this_boot() -> bytes:
    """Name this run of the machine; a process that ends does not change it, a power loss does."""
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


def file_of(folder: Path, day: int) -> Path:
    """The file of one day.

    >>> file_of(Path("audit"), 738_000).name
    '2021-07-29.jsonl'
    """
    return folder / f"{date.fromordinal(day).isoformat()}.jsonl"


def day_of(path: Path) -> int | None:
    """The day a file is of; ``None`` for a name we do not give."""
    try:
        return date.fromisoformat(path.stem).toordinal()
    except ValueError:
        return None


def days(folder: Path) -> list[int]:
    """The days of which files exist, oldest first."""
    found = (day_of(one) for one in folder.glob("*.jsonl"))
    return sorted(day for day in found if day is not None)


class Keep:
    """The folder, opened by one process; once closed, whatever is asked of it opens it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock_path = str(folder / "lock")
        self._opening = threading.Lock()
        self._lock = self._head = -1
        self._inode = 0
        self.openings = 0
        """How often it was opened: another time it may be the keep of another chain."""
        self._packed: bytes
        self._known: Head | None
        self._packed, self._known = b"", None
        self._open()

    @contextmanager
    def alone(self, patience_s: float) -> Iterator[None]:
        """Be the only one who writes, over all processes of this home. Raises ``Busy``."""
        self.take(patience_s)
        try:
            yield
        finally:
            self.release()

    def take(self, patience_s: float) -> None:
        """Take the lock. Raises ``Busy``."""
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while True:
            try:
                fcntl.flock(self._open()[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if waited_s >= patience_s:
                    raise Busy(error.errno, "the audit trail is locked") from error
                time.sleep(pause_s)
                waited_s += pause_s
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                if self._is_in_place():
                    return
                self.close()  # the folder was removed or replaced: its lock holds nobody off

    def release(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def renew(self) -> None:
        """Have every other process open the keep anew, as what it knows of the chain is over.

        Under the lock, and it stays held: that of the new name is taken before others can.
        """
        unnamed = self.folder / ".lock"
        lock = _opened(unnamed)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.replace(self._lock_path)
        with self._opening:
            os.close(self._lock)
            self._lock, self._inode = lock, os.fstat(lock).st_ino

    def head(self) -> Head | None:
        """Read where the chain ends; ``None`` before it begins, and where what is there is no head."""
        packed = os.pread(self._open()[1], _HEAD.size, 0)
        if packed != self._packed:  # another process has written meanwhile
            self._packed, self._known = packed, _head_of(packed)
        return self._known

    def put_head(self, head: Head) -> None:
        """Note where the chain ends."""
        self._packed, self._known = _HEAD.pack(_MAGIC, *head), head
        os.pwrite(self._open()[1], self._packed, 0)

    def add_missed(self) -> None:
        """Count one more record that could not be written; also where the disk is full."""
        file = self._open()[1]
        held = os.pread(file, 8, _MISSED_AT)
        if len(held) == 8:
            (missed,) = struct.unpack("<Q", held)
            os.pwrite(file, struct.pack("<Q", missed + 1), _MISSED_AT)

    def sync_head(self) -> None:
        """Have the head on disk."""
        os.fsync(self._open()[1])

    def key(self) -> bytes | None:
        """Read the key of the chain; ``None`` where there is none."""
        try:
            key = bytes.fromhex((self.folder / "key").read_text().strip())
        except (FileNotFoundError, ValueError):
            return None
        return key if len(key) == KEY_BYTES else None

    def new_key(self) -> bytes:
        """Make the key; whole, durable and readable by its owner only."""
        key = secrets.token_bytes(KEY_BYTES)
        replace(self.folder / "key", key.hex() + "\n")
        return key

    def floor(self) -> Floor:
        """Read from where the chain is kept."""
        try:
            return Floor(**json.loads((self.folder / "floor").read_text()))
        except FileNotFoundError:
            return Floor(day=0, count=0, last=GENESIS.hex())

    def put_floor(self, floor: Floor) -> None:
        """Note from where the chain is kept; durable when this returns."""
        replace(self.folder / "floor", json.dumps(asdict(floor)) + "\n")

    def clear(self) -> None:
        """Begin at the beginning: with no floor, and nothing sent."""
        for name in ("floor", "sent"):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        with self._opening:
            for descriptor in (self._lock, self._head):
                if descriptor >= 0:
                    os.close(descriptor)
            self._lock = self._head = -1
            self._packed, self._known = b"", None

    def _is_in_place(self) -> bool:
        """Tell whether the lock that is held is the one others take."""
        try:
            found = os.stat(self._lock_path)  # noqa: PTH116 - as for the trail: a Path costs more
        except FileNotFoundError:
            return False
        return found.st_ino == self._inode

    def _open(self) -> tuple[int, int]:
        """Have the lock and the head open; gives their descriptors."""
        if self._head < 0:
            with self._opening:
                if self._head < 0:
                    self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                    self._lock = _opened(self.folder / "lock")
                    self._inode = os.fstat(self._lock).st_ino
                    self._head = _opened(self.folder / "head")
                    self.openings += 1
        return self._lock, self._head


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)


def _head_of(packed: bytes) -> Head | None:
    """A head as it was packed; ``None`` for what power, or somebody, left in its place."""
    if len(packed) < _HEAD.size or not packed.startswith(_MAGIC):
        return None
    head = Head(*_HEAD.unpack(packed)[1:])
    sane = max(head.number, head.offset, head.synced, head.missed) <= _MOST
    return head if sane and 1 <= head.day <= date.max.toordinal() else None


def append(descriptor: int, offset: int, piece: bytes) -> None:
    """Write all of it at the end of a file that ends at ``offset``, or nothing. Raises ``OSError``."""
    if os.write(descriptor, piece) != len(piece):
        os.ftruncate(descriptor, offset)
        raise OSError(errno.ENOSPC, "No space left on device")


def replace(path: Path, text: str) -> None:
    """Write a small file: whole or not at all, durable, readable by its owner only."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
