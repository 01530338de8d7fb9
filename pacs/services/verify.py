"""Comparing files and index, both ways, and re-reading every digest. Design law 1 looked at again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.core.caller import Caller
from pacs.core.errors import InstanceCorrupt, InstanceNotFound, TranscodingFailed
from pacs.core.form_ports import FormStore
from pacs.core.forms import FormMeta
from pacs.core.identifiers import Digest, ObjectId
from pacs.core.journal import IndexedFile
from pacs.core.ports import AuditTrail
from pacs.core.records import Held, IncomingMeta, Place
from pacs.core.restoring import Restorer
from pacs.services.received import as_received

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
    def is_surplus(self, place: Place) -> bool: ...


class Verification:
    """Looks for damage; mends nothing."""

    def __init__(
        self, *, index: VerifyIndex, store: FormStore, restorer: Restorer, audit: AuditTrail
    ) -> None:
        self._index = index
        self._store = store
        self._restorer = restorer
        self._audit = audit

    def count(self, caller: Caller) -> int:
        """How many files the index speaks of."""
        return self._index.count()

    def run(
        self, caller: Caller, looked_at: Callable[[], None], *, restore: bool = False
    ) -> Iterator[Damage]:
        """Yield every difference; ``looked_at`` is called after each file of the index.

        With ``restore``, of each re-encoded form what was received is made
        again and compared; without, the form's own digest is.
        """
        found = 0
        for damage in self._all(looked_at, restore=restore):
            found += 1
            yield damage
        self._audit.record("verified", caller, damages=found)

    def _all(self, looked_at: Callable[[], None], *, restore: bool) -> Iterator[Damage]:
        after = 0
        while page := self._index.files(after, _PAGE):
            after = page[-1].row
            for indexed in page:
                yield from self._file_of(indexed, restore=restore)
                looked_at()
        before = ""
        for place in self._store.places():
            # A name we never gave is among the strays.
            if place.object_id and self._is_forgotten(place):
                yield Damage(kind="not-indexed", file=place.name, detail="run pacs reindex")
            elif place.object_id and place.object_id == before:
                yield from self._surplus(place.object_id, beside=place.name)
            before = place.object_id
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

    def _surplus(self, object_id: ObjectId, *, beside: str) -> Iterator[Damage]:
        """Files of one object beside the one its row speaks of, which nothing will remove."""
        for place in self._store.files(beside, object_id):
            if self._index.is_surplus(place):
                yield Damage(kind="surplus", file=place.name, detail="run pacs reindex")

    def _file_of(self, indexed: IndexedFile, *, restore: bool) -> Iterator[Damage]:
        held = indexed.held
        try:
            meta, digest = self._store.read_meta(held.place)
            self._store.verify(held.place, held.digest_at_rest)
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
            elif restore and meta.form is not None:
                yield from self._restored(held, meta.form)

    def _restored(self, held: Held, form: FormMeta) -> Iterator[Damage]:
        """Make again what was received."""
        path, offset = self._store.path(held.place), held.place.data_set_offset
        stored = (path, offset, held.transfer_syntax_uid)
        try:
            with as_received(stored, form, self._store, self._restorer):
                return
        except TranscodingFailed as error:
            yield Damage(kind="not-restored", file=held.place.name, detail=str(error))


def _says(meta: IncomingMeta, digest: Digest) -> tuple[str, ...]:
    """What a file says of itself that the index says too; the digest does not cover it."""
    classified = (meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid)
    form = meta.form
    received = (digest, "") if form is None else (form.original_digest, form.original_syntax_uid)
    return (digest, *received, meta.provenance.registrant, *classified)


def _held(held: Held) -> tuple[str, ...]:
    classified = (held.sop_class_uid, held.sop_instance_uid, held.transfer_syntax_uid)
    received = (held.digest, "" if held.form is None else held.form.original_syntax_uid)
    return (held.digest_at_rest, *received, held.registrant, *classified)
