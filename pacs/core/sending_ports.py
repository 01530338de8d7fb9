"""Ports of what leaves: ways to receivers, and who makes the form a receiver takes.

The other ports are in ``pacs.core.ports``.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pacs.core.identifiers import SOPClassUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, Peer, SendOutcome
from pacs.core.restoring import Restorer


class Delivery(Protocol):
    """A way to a receiver that is open: an association on which C-STOREs can go out."""

    @property
    def last_status(self) -> int | None:
        """The Status the receiver gave to the last Data Set; ``None`` where that was not sent or answered."""
        ...

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        """Transfer syntaxes the receiver accepted for this SOP Class, in context order."""
        ...

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Callable[[], Payload | None] | None = None,
    ) -> SendOutcome:
        """Send one Data Set. Raises ``PeerUnreachable`` when the way is closed for good.

        ``PeerLeft`` where it was closed before anything of this one had left.
        ``following`` is asked, while the receiver's response is awaited, for
        what will be sent next, so that it is open and its beginning read by
        then; it does not raise.
        """
        ...

    def close(self) -> None:
        """Let go of what was opened ahead and is not going to be sent."""
        ...

    def abort(self) -> None:
        """Close the way for good, from any thread: a ``send`` under way raises ``PeerUnreachable``."""
        ...


class Sender(Protocol):
    """Opens ways to peers."""

    def open(
        self, peer: Peer, offers: Sequence[tuple[SOPClassUID, tuple[TransferSyntaxUID, ...]]]
    ) -> AbstractContextManager[Delivery]:
        """Associate with ``peer``, one presentation context per offer, at most 128.

        Raises ``PeerUnreachable``.
        """
        ...


class Transcoder(Protocol):
    """Makes another encoding of the same instance."""

    @property
    def restorer(self) -> Restorer:
        """What makes of a re-encoded form what was received."""
        ...

    def convertible(self, source: TransferSyntaxUID, target: TransferSyntaxUID) -> bool:
        """Tell whether ``convert`` may be tried between these syntaxes. Cheap: ask as often as you like.

        Never so from a lossy syntax to a compressed one.
        """
        ...

    def convert(
        self, path: str, offset: int, source: TransferSyntaxUID, target: TransferSyntaxUID
    ) -> AbstractContextManager[str]:
        """Yield the path of a file holding only the Data Set in ``target``; removed afterwards.

        To a compressed ``target`` the pixels are encoded without loss, decoded
        again, and compared sample by sample before the path is yielded; every
        element but Pixel Data, its offset tables and Planar Configuration is
        what it is in Explicit VR Little Endian.

        Raises ``TranscodingFailed`` where the standard lets ``target`` not
        carry this instance without loss, as where it is malformed or too large,
        and of its kind ``EncodingUnproved``, where the comparison failed, and
        ``TranscodingInterrupted``, where another try may go well.
        Bounded in memory and time, and a crash of a codec does not reach the caller.
        """
        ...

    def same_content(
        self,
        left: tuple[str, int, TransferSyntaxUID],
        right: tuple[str, int, TransferSyntaxUID],
    ) -> bool:
        """Tell whether two files (path, Data Set offset, syntax) hold the same elements and pixels.

        ``False`` whenever it cannot be proved within the bounds.
        """
        ...
