"""Reading the header of a kept instance for C-FIND: that of what was received, in whatever form it is held."""

from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset

from config.settings import Parsing
from pacs.core.forms import SYNTAXES, FormMeta
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.ports import InstanceStore
from pacs.core.records import Place
from pacs.core.restoring import Restorer
from pacs.services.header import read_dataset

_FORMS = frozenset(SYNTAXES.values())


def header_reader(
    store: InstanceStore, restorer: Restorer, parsing: Parsing
) -> Callable[[Place, TransferSyntaxUID], Dataset]:
    """Give what reads all elements but pixel data; a form may say otherwise how its pixels lie."""

    def read(place: Place, transfer_syntax_uid: TransferSyntaxUID) -> Dataset:
        form = _form_of(store, place, transfer_syntax_uid)
        with store.open_data_set(place) as data_set:
            if form is None:
                size_bytes = place.size_bytes - place.data_set_offset
                return read_dataset(data_set, size_bytes, transfer_syntax_uid, parsing)
            head = restorer.head(data_set, form.recipe)
        return read_dataset(BytesIO(head), len(head), form.original_syntax_uid, parsing)

    return read


def _form_of(
    store: InstanceStore, place: Place, transfer_syntax_uid: TransferSyntaxUID
) -> FormMeta | None:
    """What a file says of what was received instead; only certain syntaxes are worth asking."""
    if transfer_syntax_uid not in _FORMS:
        return None
    return store.read_meta(place)[0].form
