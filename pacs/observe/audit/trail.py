"""Writing the trail: one line per event in a file a day under home/audit, chained over all processes.

Every process of a home appends under one lock, which is held for some
microseconds. A record that cannot be written (no room, no lock) is counted and
said; nobody waits for it. docs/adr/0016 says why it is so.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path

from config.settings import Audit
from pacs.core.caller import Caller
from pacs.observe.audit.begin import HELD, begun, unaccounted
from pacs.observe.audit.chain import sealed
from pacs.observe.audit.heal import compact, healed
from pacs.observe.audit.keep import Busy, Head, Keep, append, file_of, sync_folder, this_boot
from pacs.observe.audit.verify import Finding, verify

LOG = logging.getLogger("pacs.audit")
PATIENCE_S = 0.25
"""Longest that a record waits for the lock, which others hold for microseconds."""
_DISTRUST_S = 5.0
"""For so long nobody waits for a lock that was not to be had."""
_SAY_EVERY_S = 60.0
_LONGEST_RECORD = 16_384


class FileAuditTrail:
    """``pacs.core.ports.AuditTrail`` over ``home/audit`` and ``home/audit-chain``."""

    def __init__(
        self, home: Path, settings: Audit, *, holds_instances: Callable[[], bool] = lambda: False
    ) -> None:
        self._holds_instances = holds_instances
        self.folder = home / "audit"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keep = Keep(home / "audit-chain")
        self._settings = settings
        self._lock = threading.Lock()
        self._key, self._openings = b"", 0
        self._boot = this_boot()
        self._day, self._file, self._path, self._inode = 0, -1, "", 0
        self._missed = 0
        self._said_s = -_SAY_EVERY_S
        self._distrusted_until_s = 0.0
        self._written = 0
        self._unsynced: set[int] = set()
        self._ending = threading.Event()
        self._syncing: threading.Thread | None = None

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        """Note one event. Never raises, and waits for nobody for long."""
        now = datetime.now(UTC)
        text = compact({"time": now.isoformat(), "event": event, **_who(caller), **details})
        if len(text) > _LONGEST_RECORD:
            text = compact(
                {"time": now.isoformat(), "event": event, **_who(caller), "cut": len(text)}
            )
        with self._lock:
            try:
                self._append(now.toordinal(), text)
            except (OSError, ValueError, RuntimeError) as error:
                self._miss(error)

    def verify(self) -> tuple[int, Iterator[Finding]]:
        """Is it as it was written? Gives how many records there should be, and what is found. Raises ``OSError``."""
        total, found = verify(self.folder, self.keep)
        if not total and self._holds_instances():
            found = chain([Finding(file="", line=0, kind="unknown", detail=HELD)], found)
        return total, found

    def sync(self) -> None:
        """Have on disk what this process has written. Raises ``OSError``."""
        with self._lock:
            written, unsynced = self._written, sorted(self._unsynced)
        if not unsynced:
            return
        for day in unsynced:
            _sync(file_of(self.folder, day))
        sync_folder(self.folder)
        with self._lock:
            with self.keep.alone(PATIENCE_S):
                head = self.keep.head()
                if head is not None and head.synced < written <= head.number:
                    self.keep.put_head(head._replace(synced=written))
            if self._written == written:
                self._unsynced.clear()
        self.keep.sync_head()

    def close(self) -> None:
        """Have everything on disk and close the files; the next record opens them again."""
        self._ending.set()
        if self._syncing is not None:
            self._syncing.join()
            self._syncing = None
        try:
            self.sync()
        except OSError as error:
            LOG.error("audit-not-synced: %s", error.strerror)
        with self._lock:
            self._forget()
            self.keep.close()

    # --- under self._lock ----------------------------------------------------------------

    def _append(self, today: int, text: str) -> None:
        distrusted = self._missed and time.monotonic() < self._distrusted_until_s
        patience_s = 0.0 if distrusted else PATIENCE_S
        self.keep.take(patience_s)
        try:
            head = self.keep.head()
            if head is None or self._openings != self.keep.openings:
                head, self._key = begun(self.folder, self.keep, today, self._boot)
                self._openings, self._written = self.keep.openings, 0
            head = self._looked_after(head, today)
            if not head.number:
                head = self._first(head)
            if self._missed:
                said = {"time": datetime.now(UTC).isoformat(), "event": "audit-missed"}
                head = self._put(head, compact({**said, "records": self._missed}))
                self._missed = 0
            self._put(head, text)
        finally:
            self.keep.release()

    def _put(self, head: Head, text: str) -> Head:
        line, last = sealed(self._key, head.last, head.number + 1, text)
        append(self._file, head.offset, line)
        number, day, offset, synced, missed, _, boot = head
        new = Head(number + 1, day, offset + len(line), synced, missed, last, boot)
        self.keep.put_head(new)
        self._written = new.number
        self._unsynced.add(day)
        if self._syncing is None:
            self._start_syncing()
        return new

    def _first(self, head: Head) -> Head:
        """A chain that begins where something was before says so, ahead of all else."""
        reason = unaccounted(self.folder, self._holds_instances)
        if not reason:
            return head
        LOG.error("audit-broken: %s", reason)
        said = {"time": datetime.now(UTC).isoformat(), "event": "audit-broken", "reason": reason}
        return self._put(head, compact(said))

    def _looked_after(self, head: Head, today: int) -> Head:
        """Open the file to write to; mend what was left in it."""
        size = self._size() if self._day == head.day else None
        if size is None:
            self._open(head.day)
            size = self._size()
        if size != head.offset or head.boot != self._boot:
            head = self._mended(head)
        if today > head.day:  # never back: a clock that is set back goes on in the newer file
            head = head._replace(day=today, offset=0)
            self._open(today)
            if self._size():  # somebody was ended between a day's first line and the head
                head = self._mended(head)
        return head

    def _mended(self, head: Head) -> Head:
        head, line = healed(file_of(self.folder, head.day), head, self._key, self._boot)
        if line:
            LOG.error("audit-mended file=%s", date.fromordinal(head.day).isoformat())
            append(self._file, head.offset - len(line), line)
        self.keep.put_head(head)
        return head

    def _size(self) -> int | None:
        """The length of the file in use; ``None`` where another or none has its name."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a Path of it costs as much as the rest of a record
        except FileNotFoundError:
            return None
        return found.st_size if found.st_ino == self._inode else None

    def _open(self, day: int) -> None:
        path = file_of(self.folder, day)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        opened = os.open(path, flags, 0o640)
        self._forget()
        self._day, self._file, self._path = day, opened, str(path)
        self._inode = os.fstat(opened).st_ino

    def _miss(self, error: Exception) -> None:
        """Count what is not written, and say so once a minute."""
        self._missed += 1
        now_s = time.monotonic()
        if isinstance(error, Busy):
            self._distrusted_until_s = now_s + _DISTRUST_S
        with suppress(OSError):  # the count in memory is told with the next record
            self.keep.add_missed()
        if now_s - self._said_s >= _SAY_EVERY_S:
            self._said_s = now_s
            LOG.error("audit-not-written records=%d: %s", self._missed, error)

    def _forget(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._day, self._file, self._path, self._inode = 0, -1, "", 0

    # --- in the background ---------------------------------------------------------------

    def _start_syncing(self) -> None:
        self._ending = threading.Event()
        self._syncing = threading.Thread(
            target=self._sync_often, args=(self._ending,), name="pacs-audit-sync", daemon=True
        )
        self._syncing.start()

    def _sync_often(self, ending: threading.Event) -> None:
        while not ending.wait(self._settings.sync_s):
            try:
                self.sync()
            except OSError as error:
                LOG.error("audit-not-synced: %s", error.strerror)


def record_once(home: Path, settings: Audit, event: str, caller: Caller, **details: object) -> None:
    """Put on record what was done without opening the archive, where the home holds one."""
    if (home / "audit").is_dir():
        trail = FileAuditTrail(home, settings)
        try:
            trail.record(event, caller, **details)
        finally:
            trail.close()


def _sync(path: Path) -> None:
    """Have a file on disk; one that is gone is for ``verify`` to tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _who(caller: Caller | None) -> dict[str, str]:
    if caller is None:
        return {}
    named = {
        "subscriber": caller.subscriber,
        "ae_title": caller.ae_title,
        "address": caller.address,
        "association": caller.association,
    }
    if caller.user:
        named["user"] = caller.user
    if caller.purpose:
        named["purpose"] = caller.purpose
    return named
