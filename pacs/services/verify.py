"""Comparing files and index, both ways, and re-reading every digest. Design law 1 looked at again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.errors import InstanceCorrupt, InstanceNotFound
from pacs.core.identifiers import Digest, ObjectId
from pacs.core.journal import IndexedFile
from pacs.core.ports import AuditTrail, InstanceStore
from pacs.core.records import Held, IncomingMeta, Place

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One difference: what is wrong and with which file. Never patient data."""

    kind: str
    file: str
    detail: str = ""


class VerifyIndex(Protocol):
    """What is asked of the index; see ``storage.database.reindex``."""

    def count(self) -> int: ...
    def files(self, after_row: int, limit: int) -> Sequence[IndexedFile]: ...
    def has_object(self, object_id: ObjectId) -> bool: ...


class Verification:
    """Looks for damage; mends nothing."""

    def __init__(self, *, index: VerifyIndex, store: InstanceStore, audit: AuditTrail) -> None:
        self._index = index
        self._store = store
        self._audit = audit

    def count(self, caller: Caller) -> int:
        """How many files the index speaks of."""
        return self._index.count()

    def run(self, caller: Caller, looked_at: Callable[[], None]) -> Iterator[Damage]:
        """Yield every difference; ``looked_at`` is called after each file of the index."""
        found = 0
        for damage in self._all(looked_at):
            found += 1
            yield damage
        self._audit.record("verified", caller, damages=found)

    def _all(self, looked_at: Callable[[], None]) -> Iterator[Damage]:
        after = 0
        while page := self._index.files(after, _PAGE):
            after = page[-1].row
            for indexed in page:
                yield from self._file_of(indexed)
                looked_at()
        for place in self._store.places():
            # A name we never gave is among the strays.
            if place.object_id and self._is_forgotten(place):
                yield Damage(kind="not-indexed", file=place.name, detail="run pacs reindex")
        for name in self._store.strays():
            yield Damage(kind="stray", file=name, detail="not written by this archive")

    def _is_forgotten(self, place: Place) -> bool:
        """Tell a file without rows from one that is arriving, or was removed, while we look."""
        object_id = place.object_id
        if self._index.has_object(object_id) or self._store.is_arriving(object_id):
            return False
        try:
            self._store.open(place).close()
        except (InstanceNotFound, OSError):
            return False
        return not self._index.has_object(object_id)

    def _file_of(self, indexed: IndexedFile) -> Iterator[Damage]:
        held = indexed.held
        try:
            meta, digest = self._store.read_meta(held.place)
            self._store.verify(held.place, held.digest)
        except InstanceNotFound:
            # Between the two steps of a purge the row of a deleted file may be left.
            if not indexed.deleted and self._index.has_object(held.place.object_id):
                yield Damage(kind="missing", file=held.place.name)
        except InstanceCorrupt as error:
            yield Damage(kind="corrupt", file=held.place.name, detail=str(error))
        except OSError as error:
            yield Damage(kind="unreadable", file=held.place.name, detail=str(error.strerror))
        else:
            if _says(meta, digest) != _held(held):
                yield Damage(kind="mismatch", file=held.place.name, detail="index and file differ")


def _says(meta: IncomingMeta, digest: Digest) -> tuple[str, ...]:
    """What a file says of itself that the index says too; the digest does not cover it."""
    classified = (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid)
    return (digest, meta.provenance.registrant, *classified)


def _held(held: Held) -> tuple[str, ...]:
    classified = (held.sop_class_uid, held.sop_instance_uid, held.transfer_syntax_uid)
    return (held.digest, held.registrant, *classified)
