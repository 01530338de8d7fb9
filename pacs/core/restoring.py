"""The port through which what was received is made again of a re-encoded form."""

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from pacs.core.identifiers import Digest, TransferSyntaxUID

Stored = tuple[str, int, TransferSyntaxUID]
"""Path, offset of the Data Set, transfer syntax."""


class Restorer(Protocol):
    """Makes the Data Set as received of a form again. Bounded like ``Transcoder``."""

    def recipe(self, original: Stored, form: Stored) -> str:
        """Say how ``original`` is made of ``form``. Raises ``TranscodingFailed``; proves nothing."""
        ...

    def prove(self, form: Stored, recipe: str, digest: Digest) -> None:
        """Restore and throw away. Raises ``TranscodingFailed`` unless the digest is that one."""
        ...

    def restored(self, form: Stored, recipe: str, digest: Digest) -> AbstractContextManager[str]:
        """Yield a file that holds only the Data Set as received; removed afterwards.

        Raises ``TranscodingFailed``, also where its digest is another.
        """
        ...

    def head(self, data_set: BinaryIO, recipe: str) -> bytes:
        """Give the Data Set as received without Pixel Data; no codec is asked.

        ``data_set`` is the form's. Raises ``InstanceCorrupt``.
        """
        ...
