"""Ports of re-encoded forms: what compression at rest asks of files, index and codecs."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pacs.core.forms import Change, Scope
from pacs.core.identifiers import Digest, ObjectId
from pacs.core.ports import InstanceStore
from pacs.core.records import Held, IncomingMeta, Place


class NewForm(Protocol):
    """A finished file that has no name in the store yet. Leaving the block without ``keep`` removes it."""

    @property
    def path(self) -> str:
        """Where it lies for now."""
        ...

    @property
    def offset(self) -> int:
        """Where its Data Set begins."""
        ...

    @property
    def digest(self) -> Digest:
        """Digest of its Data Set."""
        ...

    def keep(self) -> Place:
        """Give it its name. When this returns, it survives power loss.

        Raises ``CapacityExhausted`` or ``StorageFailed``; then it is gone.
        """
        ...


class FormStore(InstanceStore, Protocol):
    """A store that keeps several files of one object id beside each other."""

    def beside(
        self, place: Place, meta: IncomingMeta, data_set: str, *, algorithm: str
    ) -> AbstractContextManager[NewForm]:
        """Make a durable file of the Data Set in ``data_set``, to be kept beside ``place``.

        ``algorithm`` is that of its digest: ``blake3`` or ``sha256``.
        Raises ``CapacityExhausted`` or ``StorageFailed``.
        """
        ...

    def original(self, place: Place, digest: Digest) -> Place | None:
        """The file of the Data Set as received beside a form, ``None`` where it is gone."""
        ...

    def files(self, beside: str, object_id: ObjectId) -> Sequence[Place]:
        """Every kept file of an object id in the folder of the file named ``beside``."""
        ...

    def sweep_unfinished(self, older_s: float) -> int:
        """Remove what ``beside`` of a process that has died left unnamed so long ago."""
        ...


class FormIndex(Protocol):
    """What is asked of the index; see ``storage.database.compress``. Raises ``RecordsFailed``.

    Of one object id one process at a time makes or removes files: it holds a
    claim, whose ``token`` every later change names.
    """

    def count(self, scope: Scope, target: str | None, *, again: bool) -> int:
        """How many instances ``page`` would give in all."""
        ...

    def page(
        self, scope: Scope, target: str | None, *, again: bool, after: int, limit: int
    ) -> Sequence[tuple[int, Held]]:
        """Native instances not yet held as ``target``, or with ``None`` those held as a form.

        Those refused before are left out, unless ``again``.
        """
        ...

    def claim(self, held: Sequence[Held], token: str, lease_s: float) -> Sequence[Held]:
        """Claim those that still lie where they did; gives which. Before the first byte of a file."""
        ...

    def swap(self, held: Held, new: Held, token: str, keep_s: float) -> bool:
        """Let the index speak of another file of the same object, and note that the rest is to go.

        ``False`` where the claim is lost or the row is another by now: nothing is changed then.
        """
        ...

    def refuse(self, held: Held, target: str, reason: str, token: str) -> None:
        """Remember that it is not held as ``target``, and give the claim back."""
        ...

    def release(self, held: Held, token: str) -> None:
        """Let ``due`` give it at once: files may have been left."""
        ...

    def due(self, token: str, lease_s: float, limit: int) -> Sequence[Change]:
        """Claim changes whose time has come."""
        ...

    def held(self, object_id: str) -> Held | None:
        """The row of an object, deleted or not."""
        ...

    def settling(self, change: Change, held: Held | None) -> AbstractContextManager[bool]:
        """Begin a transaction in which surplus files are removed; commits that the change is over.

        Gives ``False`` where the row is another by now: then nothing may be removed.
        """
        ...

    def mend(self, change: Change, held: Held, good: Held) -> bool:
        """Let the index speak of a good file instead of a damaged one, and keep both."""
        ...

    def postpone(self, change: Change, after_s: float) -> None:
        """Give a change back, to be looked at later."""
        ...


class FormChanges(Protocol):
    """What reindex asks: which file of an object was the one the index spoke of."""

    def kept_names(self) -> Mapping[ObjectId, str]:
        """The file to keep of each object of which several may lie there."""
        ...

    def add_change(self, object_id: ObjectId, keep: str) -> None:
        """Note that what else lies there under this object id is to go."""
        ...
