"""Makes of what is held what can travel, now or ahead of its turn. PS3.4 Annex B, PS3.5 Annex A.

Owns the tries: one form after the other until one can be made. Refuses to
choose the forms (``choice``) and to bound what is made ahead (``ahead``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from pacs.core.errors import TranscodingFailed
from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.ports import InstanceStore
from pacs.core.records import Held, Payload
from pacs.core.sending_ports import Transcoder
from pacs.services.delivery.ahead import Ahead, Making
from pacs.services.delivery.choice import NATIVE, Choice
from pacs.services.delivery.received import payload_as_received

Prepare = Callable[[Held, Payload], AbstractContextManager[Payload]]
"""Changes a copy before it is sent; the copy lives as long as the block, which another thread may leave."""

Accepts = Callable[[SOPClassUID], tuple[TransferSyntaxUID, ...]]
"""The transfer syntaxes that the receiver takes for a class; asked by any thread."""
_GROWTH = 4
"""How much larger than its stored form a decompressed instance is taken to be until it is there."""


def length_of(payload: Payload) -> int:
    """Tell how many bytes of Data Set travel, while the payload is there."""
    whole = payload.size_bytes
    return (Path(payload.path).stat().st_size if whole is None else whole) - payload.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A change of what is sent: how, of which of it, and of which further classes it may be then."""

    make: Prepare
    applies: Callable[[Held], bool] = lambda _: True
    sop_classes: tuple[SOPClassUID, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Payloads:
    """Makes of what is held what one receiver can get; for any number of threads.

    ``most_ahead`` bounds what is made ahead for one association.
    """

    store: InstanceStore
    transcoder: Transcoder
    choice: Choice
    ahead: Ahead
    preparation: Preparation | None = None
    most_ahead: int = 1

    def at_once(self, held: Held, accepts: Accepts) -> Payload | None:
        """Give the stored bytes, where they are what is to be sent."""
        if self._prepare(held) is not None:
            return None
        source = held.transfer_syntax_uid
        forms = self.choice.forms(held.sop_class_uid, source, accepts(held.sop_class_uid))
        return self._as_it_lies(held) if forms and forms[0] == source else None

    def begin(self, held: Held, accepts: Accepts) -> Making | None:
        """Have it made by another thread; ``None`` where there is no room for it now."""
        size_bytes = held.place.size_bytes
        expected_bytes = size_bytes * (1 if held.transfer_syntax_uid in NATIVE else _GROWTH)
        if self._prepare(held) is not None:
            expected_bytes += size_bytes
        return self.ahead.begin(lambda: self.made(held, accepts), expected_bytes)

    def begin_now(self, held: Held, accepts: Accepts) -> Making | None:
        """Have one made whose turn has come; ``None`` where nothing is begun any more."""
        return self.ahead.begin_now(lambda: self.made(held, accepts))

    @contextmanager
    def made(self, held: Held, accepts: Accepts) -> Iterator[Payload]:
        """Yield it in a syntax the receiver takes.

        Raises ``TranscodingFailed``, ``InstanceNotFound`` and what its preparation raises.
        """
        with self.store.open(held.place):
            pass  # a missing file is InstanceNotFound here, not a codec's failure
        with ExitStack() as stack:
            payload = self._as_it_lies(held)
            prepare = self._prepare(held)
            if prepare is not None:
                payload = stack.enter_context(prepare(held, payload))
                yield self._formed(payload, accepts, stack)
            else:
                yield self._formed(payload, accepts, stack, as_received=held)

    def _prepare(self, held: Held) -> Prepare | None:
        change = self.preparation
        return change.make if change is not None and change.applies(held) else None

    def _as_it_lies(self, held: Held) -> Payload:
        return Payload(
            sop_class_uid=held.sop_class_uid,
            sop_instance_uid=held.sop_instance_uid,
            transfer_syntax_uid=held.transfer_syntax_uid,
            path=self.store.path(held.place),
            offset=held.place.data_set_offset,
            size_bytes=held.place.size_bytes,
        )

    def _formed(
        self,
        payload: Payload,
        accepts: Accepts,
        stack: ExitStack,
        *,
        as_received: Held | None = None,
    ) -> Payload:
        """Give it in the first form that can be made; what was made lives as long as the stack.

        What is held in another form than it came in goes bit for bit as it came where the
        receiver gets that syntax: never by the codec alone, for what no longer has its
        digest is damaged.
        """
        source, sop_class = payload.transfer_syntax_uid, payload.sop_class_uid
        forms = self.choice.forms(sop_class, source, accepts(sop_class))
        failure = TranscodingFailed(f"no accepted syntax can be made of {source}")
        for target in forms:
            if target == source:
                return payload
            if target in NATIVE and _came_in_one_of(as_received, forms):
                return stack.enter_context(
                    payload_as_received(as_received, self.store, self.transcoder.restorer)
                )
            if not self.transcoder.convertible(source, target):
                continue
            converting = self.transcoder.convert(payload.path, payload.offset, source, target)
            try:
                path = stack.enter_context(converting)
            except TranscodingFailed as failed:
                self.choice.tried((sop_class, source, target), well=False)
                failure = failed
                continue
            self.choice.tried((sop_class, source, target), well=True)
            return replace(
                payload, transfer_syntax_uid=target, path=path, offset=0, size_bytes=None
            )
        raise failure


def _came_in_one_of(held: Held | None, forms: Sequence[TransferSyntaxUID]) -> TypeGuard[Held]:
    """Tell whether it is held in another form than it came in, and the receiver gets that one."""
    return held is not None and held.form is not None and held.form.original_syntax_uid in forms
