"""Removing the files of which the index no longer speaks, once nobody can still be reading them.

Before anything goes, the file that stays is read to its last byte. Where it is
damaged and another one holds what was received, the index speaks of that one
again; where none does, nothing is removed. It never removes the last good file.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from pacs.core.caller import Caller
from pacs.core.errors import InstanceCorrupt, InstanceNotFound
from pacs.core.form_ports import FormIndex, FormStore
from pacs.core.forms import Change
from pacs.core.identifiers import ObjectId
from pacs.core.ports import AuditTrail
from pacs.core.records import Held, Place
from pacs.services.compress.reencode import described

_AT_ONCE: Final = 20
_LOOK_AGAIN_S: Final = 86_400.0
_UNFINISHED_S: Final = 86_400.0


class Tidying:
    """Settles what compression, or its crash, has left. Several nodes may do so at once."""

    def __init__(
        self,
        *,
        index: FormIndex,
        store: FormStore,
        audit: AuditTrail,
        lease_s: float,
    ) -> None:
        self._index = index
        self._store = store
        self._audit = audit
        self._lease_s = lease_s

    def run(self, caller: Caller) -> int:
        """Settle everything that is due; gives how many files were removed."""
        removed = self._store.sweep_unfinished(_UNFINISHED_S)
        token = uuid.uuid4().hex
        while due := self._index.due(token, self._lease_s, _AT_ONCE):
            for change in due:
                removed += self._settle(caller, change)
        if removed:
            self._audit.record("forms-removed", caller, files=removed)
        return removed

    def _settle(self, caller: Caller, change: Change) -> int:
        held = self._index.held(change.object_id)
        if held is None:
            return self._gone(change)
        beside = held.place.name
        if not self._is_good(held):
            return self._mended(caller, change, held)
        with self._index.settling(change, held) as mine:
            return self._remove(change, beside, spare=beside) if mine else 0

    def _gone(self, change: Change) -> int:
        """Remove what a purge could not know of. What reindex forgot as damaged is not for us."""
        with self._index.settling(change, None) as mine:
            return self._remove(change, change.keep, spare="") if mine and change.purged else 0

    def _remove(self, change: Change, beside: str, *, spare: str) -> int:
        others = [one for one in self._files(beside, change) if one.name != spare]
        for one in others:
            self._store.remove(one)
        return len(others)

    def _files(self, beside: str, change: Change) -> Sequence[Place]:
        return self._store.files(beside, ObjectId(change.object_id))

    def _is_good(self, held: Held) -> bool:
        """Tell whether the file the index speaks of is whole, to its last byte."""
        try:
            self._store.verify(held.place, held.digest_at_rest)
        except (InstanceCorrupt, InstanceNotFound, OSError):
            return False
        return True

    def _mended(self, caller: Caller, change: Change, held: Held) -> int:
        """Let the index speak of the original again, where that is whole. Removes nothing."""
        good = self._original(held)
        mended = good is not None and self._index.mend(change, held, good)
        if not mended:
            self._index.postpone(change, _LOOK_AGAIN_S)
        self._audit.record("form-damaged", caller, object=change.object_id, mended=mended)
        return 0

    def _original(self, held: Held) -> Held | None:
        """The row as it would speak of the original, where that lies there and is whole."""
        place = self._store.original(held.place, held.digest)
        if place is None or place.name == held.place.name:
            return None
        try:
            meta, _ = self._store.read_meta(place)
        except (InstanceCorrupt, InstanceNotFound):
            return None
        good = described(held, place, meta, held.digest)
        return good if self._is_good(good) else None
