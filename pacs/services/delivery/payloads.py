"""Makes of what is held what can travel. PS3.4 Annex B, PS3.5 Annex A."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from pacs.core.errors import TranscodingFailed
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.ports import InstanceStore, Transcoder
from pacs.core.records import Held, Payload
from pacs.services.delivery.contexts import FALLBACKS

Prepare = Callable[[Held, Payload], AbstractContextManager[Payload]]
"""Changes a copy before it is sent; the copy lives as long as the block."""


class Payloads:
    """Makes of what is held what can travel."""

    def __init__(self, store: InstanceStore, transcoder: Transcoder) -> None:
        self._store = store
        self._transcoder = transcoder

    def as_it_lies(self, held: Held) -> Payload:
        """Give the stored bytes."""
        return Payload(
            sop_class_uid=held.sop_class_uid,
            sop_instance_uid=held.sop_instance_uid,
            transfer_syntax_uid=held.transfer_syntax_uid,
            path=self._store.path(held.place),
            offset=held.place.data_set_offset,
            size_bytes=held.place.size_bytes,
        )

    @contextmanager
    def made(
        self, held: Held, accepted: Sequence[TransferSyntaxUID], prepare: Prepare | None
    ) -> Iterator[Payload]:
        """Yield it in a syntax the receiver takes. Raises ``TranscodingFailed`` or ``InstanceNotFound``."""
        with self._store.open(held.place):
            pass  # a missing file is InstanceNotFound here, not a codec's failure
        stored = self.as_it_lies(held)
        if prepare is None:
            with self._converted(stored, accepted) as payload:
                yield payload
            return
        with prepare(held, stored) as changed, self._converted(changed, accepted) as payload:
            yield payload

    @contextmanager
    def _converted(
        self, payload: Payload, accepted: Sequence[TransferSyntaxUID]
    ) -> Iterator[Payload]:
        source = payload.transfer_syntax_uid
        if source in accepted:
            yield payload
            return
        for target in (*FALLBACKS, *accepted):
            if target in accepted and self._transcoder.convertible(source, target):
                with self._transcoder.convert(
                    payload.path, payload.offset, source, target
                ) as data_set:
                    yield replace(
                        payload,
                        transfer_syntax_uid=target,
                        path=data_set,
                        offset=0,
                        size_bytes=None,
                    )
                return
        raise TranscodingFailed
