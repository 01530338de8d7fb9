"""The audit trail: one JSON line per access in a file a day, under home/audit.

Identifiers of associations, peers and operations, never patient data. A trail
that cannot be written is said in the log and slows nobody down.
"""

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from pacs.core.caller import Caller

_LOG = logging.getLogger("pacs.audit")
_encoded = json.JSONEncoder(default=str).encode


class FileAuditTrail:
    """``pacs.core.ports.AuditTrail`` appending to ``<folder>/<yyyy-mm-dd>.jsonl``.

    Lines are appended with one write each, so that several processes share a file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._day = 0
        self._descriptor = -1

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        """Note one event. Never raises."""
        now = datetime.now(UTC)
        line = {"time": now.isoformat(), "event": event, **_who(caller), **details}
        try:
            os.write(self._file(now), _encoded(line).encode() + b"\n")
        except OSError as error:
            _LOG.error("audit-not-written: %s", error.strerror)

    def _file(self, now: datetime) -> int:
        day = now.toordinal()
        with self._lock:
            if day != self._day:
                path = self._folder / f"{now:%Y-%m-%d}.jsonl"
                opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                self.close()
                self._day, self._descriptor = day, opened
            return self._descriptor

    def close(self) -> None:
        """Close the file; the next record opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._day, self._descriptor = 0, -1


def _who(caller: Caller | None) -> dict[str, str]:
    if caller is None:
        return {}
    return {
        "subscriber": caller.subscriber,
        "ae_title": caller.ae_title,
        "address": caller.address,
        "association": caller.association,
    }
