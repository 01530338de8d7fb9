"""A sliding window over a seekable file, so that values are skipped without being read.

It knows positions relative to the start of the Data Set and nothing of DICOM.
"""

from typing import BinaryIO, Final

from pacs.core.errors import InstanceTruncated

SHORTEST_HEAD_BYTES: Final = 8
_AHEAD_BYTES: Final = 32_768
_AFTER_JUMP_BYTES: Final = 512


class Window:
    """The bytes around the position being read: ``data`` starts at position ``base``.

    ``cut`` says that the source goes on behind ``size_bytes``, unread on purpose.
    """

    __slots__ = ("_file", "_origin", "base", "cut", "data", "size_bytes")

    def __init__(self, file: BinaryIO, size_bytes: int, *, cut: bool = False) -> None:
        self._file = file
        self._origin = file.tell()
        self.size_bytes = size_bytes
        self.cut = cut
        self.base = 0
        self.data = b""

    def load(self, position: int) -> int:
        """Make an element's head at ``position`` readable; return its index in ``data``.

        After a jump over a large value little is read: another value to jump
        over, as with the fragments of pixel data, is the rule there.
        """
        follows = position <= self.base + len(self.data) + _AFTER_JUMP_BYTES
        self._fill(position, _AHEAD_BYTES if follows else _AFTER_JUMP_BYTES)
        if len(self.data) < SHORTEST_HEAD_BYTES:
            raise InstanceTruncated("the Data Set ends within an element's head")
        return 0

    def value(self, position: int, size_bytes: int) -> bytes:
        """Read a value, at most ``size_bytes``; shorter only where the Data Set ends."""
        at = position - self.base
        if at < 0 or at + size_bytes > len(self.data):
            self._fill(position, max(size_bytes, _AHEAD_BYTES))
            at = 0
        return self.data[at : at + size_bytes]

    def _fill(self, position: int, size_bytes: int) -> None:
        self._file.seek(self._origin + position)
        left = max(0, self.size_bytes - position)
        self.data = self._file.read(min(size_bytes, left))
        self.base = position
