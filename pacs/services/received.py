"""What was received, made again of a re-encoded form and held against its digest. docs/adr/0015."""

from collections.abc import Iterator
from contextlib import contextmanager

from pacs.core.errors import InstanceCorrupt, NotAsReceived
from pacs.core.forms import FormMeta
from pacs.core.ports import InstanceStore
from pacs.core.restoring import Restorer, Stored


@contextmanager
def as_received(
    form: Stored, meta: FormMeta, store: InstanceStore, restorer: Restorer
) -> Iterator[str]:
    """Yield a file that holds only the Data Set as received, byte for byte.

    Raises ``TranscodingFailed``, of which ``NotAsReceived`` is one: what was
    made has another digest.
    """
    with restorer.restored(form, meta.recipe) as data_set:
        try:
            store.check(data_set, meta.original_digest)
        except InstanceCorrupt as error:
            raise NotAsReceived from error
        yield data_set
