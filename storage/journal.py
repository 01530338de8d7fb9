"""The journal: deletions, restorations and decisions as files beside the objects.

An entry is written and fsynced before its effect is committed, never changed
and never removed; start-up and ``reindex`` obey it. What an entry means is
decided by the services that write it.
"""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pacs.core.errors import InstanceCorrupt, StorageFailed
from pacs.core.identifiers import ObjectId, new_object_id, object_id_time_ms
from pacs.core.journal import EntryKind, JournalEntry

_MONTH = "[0-9][0-9][0-9][0-9]/[0-9][0-9]"


class Journal:
    """A folder of entries, one JSON file each, named by time-ordered id."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def append(
        self,
        kind: EntryKind,
        *,
        made_by: str,
        reason: str,
        about: Mapping[str, str],
        object_ids: Sequence[ObjectId],
    ) -> JournalEntry:
        """Write an entry so that it survives power loss. Raises ``StorageFailed``."""
        now_ms = self._next_ms()
        entry = JournalEntry(
            id=new_object_id(now_ms),
            kind=kind,
            made_utc=datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(),
            made_by=made_by,
            reason=reason,
            about=dict(about),
            object_ids=tuple(object_ids),
        )
        try:
            self._write(entry)
        except OSError as error:
            raise StorageFailed(f"the journal cannot be written: {error.strerror}") from error
        return entry

    def _next_ms(self) -> int:
        """Now, or just after the newest entry where the clock was set back.

        Entries are obeyed in the order of their ids: an undoing before what it
        undoes would undo nothing.
        """
        newest = max((path.stem for path in self._root.glob(f"{_MONTH}/*.json")), default="")
        after_ms = object_id_time_ms(ObjectId(newest)) + 1 if newest else 0
        return max(after_ms, time.time_ns() // 1_000_000)

    def _write(self, entry: JournalEntry) -> None:
        folder = self._root / f"{entry.made_utc[:4]}" / f"{entry.made_utc[5:7]}"
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{entry.id}.part"
        with unfinished.open("x", encoding="utf-8") as file:
            json.dump(asdict(entry), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(folder / f"{entry.id}.json")
        for changed in (folder, folder.parent, self._root, self._root.parent):
            descriptor = os.open(changed, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def sweep(self) -> None:
        """At start: remove what a crash left unfinished; nobody was told that it is on record."""
        for path in self._root.glob(f"{_MONTH}/*.part"):
            path.unlink(missing_ok=True)

    def entries(self, obeyed: Collection[str] = ()) -> Iterator[JournalEntry]:
        """Read the entries but those whose ids are given, oldest first. Raises ``InstanceCorrupt``."""
        for month in sorted(self._root.glob(_MONTH)):
            for path in sorted(month.glob("*.json")):
                if path.stem not in obeyed:
                    yield _read(path)


def _read(path: Path) -> JournalEntry:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["object_ids"] = tuple(fields["object_ids"])
        return JournalEntry(**fields)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InstanceCorrupt(f"journal entry is damaged: {path.name}") from error
