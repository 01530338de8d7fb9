"""Rebuilding the index from files and journal, and settling at start what a crash left behind.

Files are taken in the order of their object ids; what the journal says of them
is known beforehand, so that a file which came again after a deletion is not
taken for a duplicate of the one deleted. Records are never touched.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from itertools import groupby
from typing import BinaryIO, Protocol

from config.settings import Parsing
from pacs.core.caller import Caller, Right, SubscriberName, Visibility
from pacs.core.errors import PacsError
from pacs.core.forms import Form
from pacs.core.identifiers import Digest, ObjectId
from pacs.core.journal import JournalEntry
from pacs.core.ports import AuditTrail, InstanceStore, Unit
from pacs.core.records import IncomingMeta, Instance, Place
from pacs.services.store import read_instance
from pacs.services.verify import Damage


class RebuildUnit(Unit, Protocol):
    """One transaction in which the index is emptied and filled again."""

    def empty(self) -> None: ...
    def add_instance(self, instance: Instance, deleted_by: str | None = None) -> bool: ...
    def obey(self, entry: JournalEntry) -> None: ...
    def kept_names(self) -> Mapping[ObjectId, str]: ...
    def add_change(self, object_id: ObjectId, keep: str) -> None: ...


class RebuildIndex(Protocol):
    """What is asked of the index; see ``storage.database.reindex``."""

    def rebuild(self) -> AbstractContextManager[RebuildUnit]: ...
    def has_object(self, object_id: ObjectId) -> bool: ...
    def applied(self) -> Collection[str]: ...
    def follow_policy(self) -> bool: ...


class EntryReader(Protocol):
    """Reads journal entries; see ``storage.journal``."""

    def sweep(self) -> None: ...
    def entries(self, obeyed: Collection[str] = ()) -> Iterator[JournalEntry]: ...


class Reindex:
    """Makes the index say what files and journal say."""

    def __init__(
        self,
        *,
        index: RebuildIndex,
        journal: EntryReader,
        store: InstanceStore,
        parsing: Parsing,
        facts: Callable[[Unit, Caller, Instance], None],
        audit: AuditTrail,
        head: Callable[[BinaryIO, str], bytes],
    ) -> None:
        self._index = index
        self._head = head
        self._journal = journal
        self._store = store
        self._parsing = parsing
        self._facts = facts
        self._audit = audit

    def run(self, caller: Caller, looked_at: Callable[[], None]) -> list[Damage]:
        """Rebuild, all or nothing; gives the files that could not be read.

        ``looked_at`` is called after each object. Raises ``RecordsFailed``; then
        the index is as it was.
        """
        damages: list[Damage] = []
        with self._index.rebuild() as unit:
            # Read only now: an entry made later waits for us before it is obeyed.
            entries = list(self._journal.entries())
            fate = fates(entries)
            unit.empty()
            kept = unit.kept_names()
            for _, files in groupby(
                self._store.places(), key=lambda one: one.object_id or one.name
            ):
                self._add(unit, list(files), fate, kept, damages)
                looked_at()
            for entry in entries:
                unit.obey(entry)
        self._index.follow_policy()
        self._audit.record("reindexed", caller, damages=len(damages))
        return damages

    def _add(
        self,
        unit: RebuildUnit,
        files: Sequence[Place],
        fate: Mapping[ObjectId, str],
        kept: Mapping[ObjectId, str],
        damages: list[Damage],
    ) -> None:
        """Add the rows of one object, of which several files may lie there."""
        object_id = files[0].object_id
        instance = self._first_readable(self._in_order(files, kept.get(object_id)), damages)
        if instance is None:
            return
        unit.add_instance(instance, fate.get(object_id))
        if len(files) > 1:
            unit.add_change(object_id, instance.place.name)

    def _in_order(self, files: Sequence[Place], kept: str | None) -> Sequence[Place]:
        """First the one noted as to be kept; then what was received, before forms made of it."""
        if len(files) == 1:
            return files
        return sorted(files, key=lambda one: (one.name != kept, self._is_form(one)))

    def _is_form(self, place: Place) -> bool:
        try:
            return self._store.read_meta(place)[0].form is not None
        except PacsError:
            return True  # it will say so itself when it is read

    def _first_readable(self, files: Sequence[Place], damages: list[Damage]) -> Instance | None:
        """Read the file the index shall speak of; one that cannot be read is damage."""
        for place in files:
            try:
                return self.read(place)
            except PacsError as error:
                detail = f"{type(error).__name__}: {error}"
                damages.append(Damage(kind="unreadable", file=place.name, detail=detail))
        return None

    def recover(self) -> int:
        """At start, before anyone is served: settle what was on its way; gives how many were taken in.

        First the files, see ``settle``. Then the journal entries that the
        index has not obeyed are obeyed, and the setting that says which
        versions are delivered.
        """
        taken = self.settle()
        self._journal.sweep()
        for entry in self._journal.entries(obeyed=self._index.applied()):
            with self._index.rebuild() as unit:
                unit.obey(entry)
        self._index.follow_policy()
        return taken

    def settle(self) -> int:
        """Settle the files that a process which has ended left on their way; gives how many were taken in.

        A file that was kept but has no rows was never acknowledged, yet it is
        whole: it is taken in as if it had arrived now, usage and jobs included,
        because nothing is lost by keeping it. Others may serve meanwhile, as
        long as nobody receives where the store looks.
        """
        taken = 0
        for place in self._store.unsettled():
            if place is not None and not self._index.has_object(place.object_id):
                taken += self._take_in(place)
        return taken

    def _take_in(self, place: Place) -> int:
        try:
            instance = self.read(place)
        except PacsError:
            self._store.remove(place)  # never acknowledged, and nothing that could be found again
            return 0
        with self._index.rebuild() as unit:
            added = unit.add_instance(instance)
            if added:
                self._facts(unit, _sender_of(instance), instance)
        if not added:
            self._store.remove(place)  # the sender has sent it again meanwhile
        return int(added)

    def read(self, place: Place) -> Instance:
        """Read one kept file as ingest read it. Raises ``InstanceCorrupt`` and what ingest raises.

        Of a re-encoded form, what is read is the header of what was received.
        """
        meta, digest = self._store.read_meta(place)
        with self._store.open_data_set(place) as data_set:
            if meta.form is None:
                size_bytes = place.size_bytes - place.data_set_offset
                return self._read(data_set, size_bytes, meta, digest, place)
            head = self._head(data_set, meta.form.recipe)
        received = replace(meta, transfer_syntax_uid=meta.form.original_syntax_uid)
        instance = self._read(BytesIO(head), len(head), received, meta.form.original_digest, place)
        form = Form(
            digest=digest,
            original_syntax_uid=meta.form.original_syntax_uid,
            original_bytes=meta.form.original_bytes,
        )
        return replace(instance, transfer_syntax_uid=meta.transfer_syntax_uid, form=form)

    def _read(
        self, data_set: BinaryIO, size_bytes: int, meta: IncomingMeta, digest: Digest, place: Place
    ) -> Instance:
        return read_instance(
            data_set,
            meta,
            digest=digest,
            place_of=lambda _: place,
            size_bytes=size_bytes,
            parsing=self._parsing,
        )


def _sender_of(instance: Instance) -> Caller:
    """Who sent a file, as far as it says so itself."""
    origin = instance.provenance
    return Caller(
        subscriber=SubscriberName(origin.registrant),
        rights=frozenset({Right.REGISTER}),
        visibility=Visibility(registrants=frozenset({origin.registrant})),
        ae_title=origin.source_ae_title,
        association=origin.association,
        issuer_of_patient_id=origin.issuer_of_patient_id,
    )


def fates(entries: Iterable[JournalEntry]) -> Mapping[ObjectId, str]:
    """Which deletion hides which file, after all entries."""
    hidden: dict[ObjectId, str] = {}
    for entry in entries:
        for object_id in entry.object_ids:
            if entry.kind == "delete":
                hidden.setdefault(object_id, entry.id)
            elif entry.kind == "restore":
                hidden.pop(object_id, None)
    return hidden
