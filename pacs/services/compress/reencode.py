"""One instance made into another form, or back: proved, durable, then spoken of. Design law 1.

The file that is there stays what it is. The order is: make, prove what the
finished file gives back, name it durably, and only then let the index speak of
it. What goes wrong on the way leaves the index as it was.
"""

from dataclasses import replace

from pacs.core.errors import (
    InstanceCorrupt,
    InstanceNotFound,
    PacsError,
    RecordsFailed,
    TranscodingFailed,
    TranscodingInterrupted,
)
from pacs.core.form_ports import FormIndex, FormStore, NewForm
from pacs.core.forms import SYNTAXES, Form, FormMeta, Outcome
from pacs.core.identifiers import Digest
from pacs.core.records import Held, IncomingMeta, Place
from pacs.core.restoring import Restorer, Stored
from pacs.core.sending_ports import Transcoder
from pacs.services.compress.tally import Result
from pacs.services.received import as_received


class Reencoder:
    """Changes the form of claimed instances. Safe to use from many threads."""

    def __init__(
        self,
        *,
        index: FormIndex,
        store: FormStore,
        transcoder: Transcoder,
        restorer: Restorer,
        keep_s: float,
    ) -> None:
        self._index = index
        self._store = store
        self._transcoder = transcoder
        self._restorer = restorer
        self._keep_s = keep_s

    def change(self, held: Held, target: str | None, token: str) -> Result:
        """Hold a claimed instance as ``target``, or with ``None`` as it was received.

        Raises ``RecordsFailed``: then it is unknown whether the index speaks of
        the new file, so both stay, and the claim's end settles it.
        """
        try:
            return self._back(held, token) if target is None else self._make(held, target, token)
        except RecordsFailed:
            raise
        except TranscodingInterrupted as error:
            self._index.release(held, token)
            return Result(outcome=Outcome.FAILED, reason=str(error))
        except TranscodingFailed as error:
            return self._refused(held, target, token, str(error))
        except (PacsError, OSError) as error:
            self._index.release(held, token)
            return Result(outcome=Outcome.FAILED, reason=f"{type(error).__name__}")

    def _refused(self, held: Held, target: str | None, token: str, reason: str) -> Result:
        if target is None:  # a form that does not give its original back is damage
            self._index.release(held, token)
            return Result(outcome=Outcome.FAILED, reason=reason)
        self._index.refuse(held, target, reason, token)
        return Result(outcome=Outcome.REFUSED, reason=reason)

    # --- there -------------------------------------------------------------------------

    def _make(self, held: Held, target: str, token: str) -> Result:
        # What is damaged already must not become the origin of a proof.
        self._store.verify(held.place, held.digest)
        syntax = SYNTAXES[target]
        source = (self._store.path(held.place), held.place.data_set_offset)
        if not self._transcoder.convertible(held.transfer_syntax_uid, syntax):
            raise TranscodingInterrupted(f"no codec for {target}")
        with self._transcoder.convert(*source, held.transfer_syntax_uid, syntax) as data_set:
            original: Stored = (*source, held.transfer_syntax_uid)
            form = FormMeta(
                original_digest=held.digest,
                original_syntax_uid=held.transfer_syntax_uid,
                original_bytes=held.place.size_bytes - held.place.data_set_offset,
                recipe=self._restorer.recipe(original, (data_set, 0, syntax)),
            )
            meta = replace(self._meta(held), transfer_syntax_uid=syntax, form=form)
            with self._store.beside(
                held.place, meta, data_set, algorithm=_algorithm(held.digest)
            ) as made:
                stored = (made.path, made.offset, syntax)
                with as_received(stored, form, self._store, self._restorer):
                    pass  # proved: nothing more is wanted of it
                return self._spoken_of(held, made, meta, token)

    def _meta(self, held: Held) -> IncomingMeta:
        meta, _ = self._store.read_meta(held.place)
        return meta

    # --- and back ------------------------------------------------------------------------

    def _back(self, held: Held, token: str) -> Result:
        meta = self._meta(held)
        if meta.form is None or held.form is None or meta.form.original_digest != held.digest:
            raise InstanceCorrupt(f"index and file differ: {held.place.name}")
        plain = replace(meta, transfer_syntax_uid=meta.form.original_syntax_uid, form=None)
        if (there := self._still_there(held)) is not None:
            return self._swapped(described(held, there, plain, held.digest), held, token)
        form = (self._store.path(held.place), held.place.data_set_offset, held.transfer_syntax_uid)
        with (
            as_received(form, meta.form, self._store, self._restorer) as data_set,
            self._store.beside(
                held.place, plain, data_set, algorithm=_algorithm(held.digest)
            ) as made,
        ):
            if made.digest != held.digest:
                raise InstanceCorrupt(f"what was written differs: {held.place.name}")
            return self._spoken_of(held, made, plain, token)

    def _still_there(self, held: Held) -> Place | None:
        """The original file, where it has not gone yet and is whole."""
        place = self._store.original(held.place, held.digest)
        if place is None:
            return None
        try:
            self._store.verify(place, held.digest)
        except (InstanceCorrupt, InstanceNotFound):
            return None
        return place

    # --- both ------------------------------------------------------------------------------

    def _spoken_of(self, held: Held, made: NewForm, meta: IncomingMeta, token: str) -> Result:
        digest = made.digest
        return self._swapped(described(held, made.keep(), meta, digest), held, token)

    def _swapped(self, new: Held, held: Held, token: str) -> Result:
        if not self._index.swap(held, new, token, self._keep_s):
            # Whoever has the claim now, or takes it next, finds the file and removes it.
            self._index.release(held, token)
            return Result(outcome=Outcome.PASSED_OVER)
        return Result(
            outcome=Outcome.CHANGED,
            before_bytes=held.place.size_bytes,
            after_bytes=new.place.size_bytes,
        )


def described(held: Held, place: Place, meta: IncomingMeta, digest: Digest) -> Held:
    """The row of an object once the index speaks of the file at ``place``, which has that digest."""
    form = None
    if meta.form is not None:
        form = Form(
            digest=digest,
            original_syntax_uid=meta.form.original_syntax_uid,
            original_bytes=meta.form.original_bytes,
        )
    return replace(held, place=place, transfer_syntax_uid=meta.transfer_syntax_uid, form=form)


def _algorithm(digest: Digest) -> str:
    return digest.partition(":")[0]
