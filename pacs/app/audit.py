"""Looking after the audit trail of a home: sent to the collector, old files removed, measured.

One process of a home does it, whichever takes the lock first: the server, or the
parent of workers where no server runs. It is a thread beside everything else.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from pacs.app.archive import Archive
from pacs.observe.audit.keep import PRIVATE
from pacs.observe.audit.message import Source
from pacs.observe.audit.retention import prune
from pacs.observe.audit.sender import Sender, noted
from pacs.observe.metrics import Figure

_LOG = logging.getLogger("pacs.audit")
_LOOK_EVERY_S = 0.25
_PRUNE_EVERY_S = 3_600.0
_LOCK_AGAIN_S = 5.0
_END_S = 10.0


@contextmanager
def audited(archive: Archive, begun: str, ended: str, **details: object) -> Iterator[None]:
    """Put the beginning and the end of the block on record, and look after the trail meanwhile."""
    stopping = threading.Event()
    caring = threading.Thread(
        target=_care, args=(archive, stopping), name="pacs-audit", daemon=True
    )
    archive.audit.record(begun, None, **details)
    caring.start()
    try:
        yield
    finally:
        archive.audit.record(ended, None)
        stopping.set()
        caring.join(_END_S)  # the collector has less time than that


def source_of(archive: Archive) -> Source:
    """Who we are in audit messages."""
    settings = archive.settings
    ae_title = settings.dicom.ae_title
    return Source(
        source_id=settings.audit.source_id or ae_title,
        site_id=settings.audit.site_id,
        ae_title=ae_title,
        host=socket.gethostname(),
    )


def audit_figures(archive: Archive) -> Sequence[Figure]:
    """Measure the trail: how long it is, what could not be written, what the collector lacks."""
    head = archive.audit.keep.head()
    sent = noted(archive.audit.keep.folder)
    count, missed = (0, 0) if head is None else (head.number, head.missed)
    behind = max(0, count - sent.spot.number) if archive.settings.audit.collector_host else 0
    figures = (
        ("pacs_audit_records", "Records the audit trail has ever had", count),
        ("pacs_audit_missed_records", "Records that could not be written", missed),
        ("pacs_audit_unsent_records", "Records the collector is not known to have", behind),
        ("pacs_audit_send_failures", "Failures in a row to send to the collector", sent.failures),
    )
    return [Figure(name=name, about=about, values={(): value}) for name, about, value in figures]


def _care(archive: Archive, stopping: threading.Event) -> None:
    path = archive.audit.keep.folder / "sender.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        while not _locked(lock):
            if stopping.wait(_LOCK_AGAIN_S):
                return
        _care_alone(archive, stopping)
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _care_alone(archive: Archive, stopping: threading.Event) -> None:
    trail, settings = archive.audit, archive.settings.audit
    with closing(Sender(trail.folder, trail.keep.folder, settings, source_of(archive))) as sender:
        prune_s = 0.0
        while not stopping.is_set():
            if time.monotonic() >= prune_s:
                prune_s = time.monotonic() + _PRUNE_EVERY_S
                _prune(archive, sender)
            busy = bool(settings.collector_host) and sender.turn()
            if not busy:
                stopping.wait(_LOOK_EVERY_S)
        sender.finish()


def _prune(archive: Archive, sender: Sender) -> None:
    """Remove the files whose time is over."""
    trail, settings = archive.audit, archive.settings.audit
    if not settings.keep_days:
        return
    taken = sender.sent.spot.number if settings.collector_host else None
    today = datetime.now(UTC).toordinal()
    try:
        removed = prune(
            trail.folder, trail.keep, before_day=today - settings.keep_days, taken=taken
        )
    except (OSError, ValueError) as error:
        _LOG.error("audit-not-pruned: %s", error)
        return
    if removed:
        trail.record("audit-pruned", None, files=removed)
