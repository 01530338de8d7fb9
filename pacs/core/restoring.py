"""The port through which what was received is made again of a re-encoded form."""

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from pacs.core.identifiers import TransferSyntaxUID

Stored = tuple[str, int, TransferSyntaxUID]
"""Path, offset of the Data Set, transfer syntax."""


class Restorer(Protocol):
    """Makes the Data Set as received of a form again. Bounded like ``Transcoder``."""

    def recipe(self, original: Stored, form: Stored) -> str:
        """Say how ``original`` is made of ``form``. Raises ``TranscodingFailed``; proves nothing."""
        ...

    def restored(self, form: Stored, recipe: str) -> AbstractContextManager[str]:
        """Yield a file that holds only the Data Set the recipe makes; removed afterwards.

        Raises ``TranscodingFailed``. It runs in a sandbox, so its word that this
        was received is not taken: ``pacs.services.received`` looks at the digest.
        """
        ...

    def head(self, data_set: BinaryIO, recipe: str) -> bytes:
        """Give the Data Set as received without Pixel Data; no codec is asked.

        ``data_set`` is the form's. Raises ``InstanceCorrupt``.
        """
        ...
