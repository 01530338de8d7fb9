"""What is held in a re-encoded form, sent as it was received: bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager

from pacs.core.errors import TranscodingFailed
from pacs.core.ports import InstanceStore
from pacs.core.records import Held, Payload
from pacs.core.restoring import Restorer
from pacs.services.received import as_received


@contextmanager
def payload_as_received(held: Held, store: InstanceStore, restorer: Restorer) -> Iterator[Payload]:
    """Yield the Data Set as received of an instance that is held in another form.

    Raises ``TranscodingFailed``, ``InstanceCorrupt`` or ``InstanceNotFound``.
    """
    meta, _ = store.read_meta(held.place)
    if meta.form is None:
        raise TranscodingFailed(f"not a re-encoded form: {held.place.name}")
    path, offset = store.path(held.place), held.place.data_set_offset
    stored = (path, offset, held.transfer_syntax_uid)
    with as_received(stored, meta.form, store, restorer) as data_set:
        yield Payload(
            sop_class_uid=held.sop_class_uid,
            sop_instance_uid=held.sop_instance_uid,
            transfer_syntax_uid=meta.form.original_syntax_uid,
            path=data_set,
            offset=0,
        )
