"""Walking the structure of a Data Set to its last byte, within bounds, without recursion.

It decides where elements, items and fragments begin and end, and holds the raw
values that were wished for. What they mean is for others. PS3.5 Section 7 and
Annex A.4 (fragments).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config.settings import Parsing
from pacs.core.attributes import BY_TAG
from pacs.core.errors import InstanceTooDeep, InstanceTruncated, InstanceUnreadable
from pacs.services.header.encoding import IMPLICIT_LITTLE, Encoding
from pacs.services.header.heads import SHORT_VRS, UNDEFINED, Head, Heads, vr_of
from pacs.services.header.window import Window

ITEM: Final = 0xFFFE_E000
_ITEM_DELIMITATION: Final = 0xFFFE_E00D
_SEQUENCE_DELIMITATION: Final = 0xFFFE_E0DD
_FIRST_DATA_SET_GROUP: Final = 0x0003_0000
_LAST_INDEXED_TAG: Final = max(BY_TAG)
_PIXEL_GROUP: Final = 0x7FE0
_LONGEST_PADDING_BYTES: Final = 4_096
_COST_OF_HOLDING_BYTES: Final = 256
_FIRST_COMMON_GROUP: Final = 0x0008
_HEAD_BYTES: Final = 8

Raw = tuple[str, bool, "bytes | list[Item]"]
"""VR, whether it is little endian, and the value's bytes or the sequence's items."""
Item = dict[int, Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to hold: ``tags`` of the top level, all for ``None``, and all within their items.

    With ``lenient``, what is too large to be held is left out; otherwise a
    top-level value is cut off and too many are refused.
    """

    tags: frozenset[int] | None
    lenient: bool


class Frame:
    """One open sequence, item or run of fragments, or the Data Set itself."""

    __slots__ = ("at", "defined", "encoding", "end", "head", "held", "items", "step", "tag")

    def __init__(self, step: "Callable[[Frame, int], int]", heads: Heads, end: int) -> None:
        self.step = step
        self.encoding = heads.encoding
        self.head = heads.explicit if heads.encoding.explicit else heads.implicit
        self.end = end
        self.defined = True
        self.held: Item | None = None
        self.items: list[Item] | None = None
        self.at = 0
        self.tag = 0


class Walker:
    """Walks one Data Set once. ``walk`` returns what was wished for."""

    def __init__(self, window: Window, encoding: Encoding, limits: Parsing, wish: Wish) -> None:
        self._window = window
        self._limits = limits
        self._wish = wish
        self._heads = Heads(window, encoding)
        self._unknown = Heads(window, IMPLICIT_LITTLE)
        self._stack: list[Frame] = []
        self._elements_left = limits.max_elements
        self._bytes_left = limits.max_header_bytes

    def walk(self) -> Item:
        """Walk to the end of the Data Set; raise what it is refused for."""
        root = Frame(self._elements, self._heads, self._window.size_bytes)
        held: Item = {}
        root.held = held
        self._stack.append(root)
        position = 0
        while self._stack:
            frame = self._stack[-1]
            try:
                position = frame.step(frame, position)
            except InstanceTooDeep:
                raise
            except InstanceUnreadable as fault:
                position = self._recover(fault)
        return held

    # --- steps: each walks on within the innermost frame, returns where to go on ---

    def _elements(self, frame: Frame, position: int) -> int:
        head, held, end = frame.head, frame.held, frame.end
        tags = self._wish.tags if len(self._stack) == 1 else None
        while position < end:
            position = self._plain_elements(frame, position, tags)
            if position == end:
                break
            frame.at = position
            tag, vr, start, length = head(position, end)
            frame.tag = tag
            self._count()
            if tag >= 0xFFFE_0000 and not vr:
                return self._delimited(frame, tag, position)
            if tag < _FIRST_DATA_SET_GROUP and tag >> 16 != 1 and len(self._stack) == 1:
                raise InstanceUnreadable("command or file meta elements within the Data Set")
            wanted = held is not None and (tags is None or tag in tags)
            if length == UNDEFINED or vr == "SQ" or (wanted and vr == "UN" and vr_of(tag) == "SQ"):
                return self._open(frame, (tag, vr, start, length), wanted)
            position = start + length
            if position > end:
                raise InstanceTruncated("a value reaches beyond the end")
            if wanted:
                self._hold(frame, (tag, vr, start, length))
        return self._ended(frame, position)

    def _plain_elements(self, frame: Frame, position: int, tags: frozenset[int] | None) -> int:
        """Take the elements of the top level that leave no question; tell where the first other stands.

        They have a short VR and lie in the window whole: most of any header.
        What is odd, large, nested or beyond a bound is for the slower steps.
        """
        held, data = frame.held, self._window.data
        if tags is None or held is None or not frame.encoding.explicit:
            return position
        base, unpack, little = self._window.base, self._heads.short, frame.encoding.little
        limit = min(len(data), frame.end - base)
        at, most = position - base, self._limits.max_value_bytes
        while 0 <= at <= limit - _HEAD_BYTES:
            group, number, letters, length = unpack(data, at)
            vr, after = SHORT_VRS.get(letters), at + _HEAD_BYTES + length
            if vr is None or not _FIRST_COMMON_GROUP <= group < _PIXEL_GROUP:
                break
            tag = group << 16 | number
            if after > limit or self._elements_left < 1 or (tag in tags and length > most):
                break
            if tag in tags:
                if length + _COST_OF_HOLDING_BYTES > self._bytes_left:
                    break
                self._bytes_left -= length + _COST_OF_HOLDING_BYTES
                held[tag] = (vr, little, data[at + _HEAD_BYTES : after])
            self._elements_left -= 1
            frame.at, frame.tag = base + at, tag
            at = after
        return base + at

    def _items(self, frame: Frame, position: int) -> int:
        if position >= frame.end:
            return self._ended(frame, position)
        frame.at = position
        tag, _, start, length = frame.head(position, frame.end)
        self._count()
        if tag == _SEQUENCE_DELIMITATION:
            self._stack.pop()
            return start
        if tag != ITEM:
            raise InstanceUnreadable("a sequence holds something else than items")
        item = self._push(frame, self._elements, start, length)
        if frame.items is not None and self._affordable(0):
            item.held = {}
            frame.items.append(item.held)
        return start

    def _fragments(self, frame: Frame, position: int) -> int:
        while position < frame.end:
            frame.at = position
            tag, _, start, length = frame.head(position, frame.end)
            self._count()
            if tag == _SEQUENCE_DELIMITATION:
                self._stack.pop()
                return start
            if tag != ITEM or length == UNDEFINED:
                raise InstanceUnreadable("encapsulated values hold something else than fragments")
            position = start + length
            if position > frame.end:
                raise InstanceTruncated("a fragment reaches beyond the end")
        return self._ended(frame, position)

    # --- opening and closing frames ---

    def _open(self, parent: Frame, head: Head, wanted: bool) -> int:
        tag, vr, start, length = head
        encapsulated = length == UNDEFINED and (vr[0] == "O" or tag >> 16 == _PIXEL_GROUP)
        step = self._fragments if encapsulated else self._items
        frame = self._push(parent, step, start, length)
        if vr == "UN" and not encapsulated:  # PS3.5 Section 6.2.2, note on UN
            frame.head, frame.encoding = self._unknown.implicit, IMPLICIT_LITTLE
        if wanted and not encapsulated and parent.held is not None and self._affordable(0):
            frame.items = []
            parent.held[tag] = ("SQ", frame.encoding.little, frame.items)
        return start

    def _push(
        self, parent: Frame, step: Callable[[Frame, int], int], start: int, length: int
    ) -> Frame:
        if len(self._stack) > 2 * self._limits.max_depth:
            raise InstanceTooDeep("sequences nest too deep")
        defined = length != UNDEFINED
        if defined and start + length > parent.end:
            raise InstanceTruncated("a sequence or item reaches beyond the end")
        frame = Frame(step, self._heads, start + length if defined else parent.end)
        frame.head, frame.encoding, frame.defined = parent.head, parent.encoding, defined
        self._stack.append(frame)
        return frame

    def _delimited(self, frame: Frame, tag: int, position: int) -> int:
        """Obey a delimiter met among elements; one that belongs outside ends the item too."""
        after = position + 8
        if tag not in (_ITEM_DELIMITATION, _SEQUENCE_DELIMITATION):
            raise InstanceUnreadable("an item stands outside a sequence")
        if len(self._stack) == 1:
            return after
        if frame.defined:
            return after
        self._stack.pop()
        return after if tag == _ITEM_DELIMITATION else position

    def _ended(self, frame: Frame, position: int) -> int:
        # Delimiters that only end the Data Set carry nothing and are often left out.
        self._stack.pop()
        return position

    # --- faults ---

    def _recover(self, fault: InstanceUnreadable) -> int:
        """Skip what has a known end and is broken within; raise what cannot be skipped."""
        root = self._stack[0]
        if len(self._stack) == 1 and self._only_padding(root.at):
            self._stack.clear()
            return root.end
        for index, frame in enumerate(self._stack):
            if index and frame.defined:
                del self._stack[index:]
                for broken in (frame.items, frame.held):
                    if broken is not None:
                        broken.clear()
                return frame.end
        if not self._window.cut:
            raise fault
        if root.tag <= _LAST_INDEXED_TAG:
            raise InstanceTooDeep("the inflated header exceeds the bound")
        self._stack.clear()
        return root.end

    def _only_padding(self, position: int) -> bool:
        left = self._window.size_bytes - position
        if position == 0 or left > _LONGEST_PADDING_BYTES:
            return False
        return not self._window.value(position, left).strip(b"\0")

    def _count(self) -> None:
        self._elements_left -= 1
        if self._elements_left < 0:
            raise InstanceTooDeep("too many elements")

    # --- holding ---

    def _hold(self, frame: Frame, head: Head) -> None:
        tag, vr, start, length = head
        size_bytes = min(length, self._limits.max_value_bytes)
        cuttable = len(self._stack) == 1 and not self._wish.lenient
        if (size_bytes < length and not cuttable) or tag >> 16 == _PIXEL_GROUP:
            return
        if self._affordable(size_bytes) and frame.held is not None:
            value = self._window.value(start, size_bytes)
            frame.held[tag] = (vr, frame.encoding.little, value)

    def _affordable(self, size_bytes: int) -> bool:
        cost = size_bytes + _COST_OF_HOLDING_BYTES
        if cost > self._bytes_left:
            if self._wish.lenient:
                return False
            raise InstanceTooDeep("the header holds too much")
        self._bytes_left -= cost
        return True
