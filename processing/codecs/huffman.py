"""Huffman coding of the differences of lossless JPEG. ITU-T T.81 Sections C and H.1.2.2, Annex K.2.

Owns the code of one scan and the packing of its bits, many samples at a step.
Refuses to know what was predicted from what.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

CATEGORIES: Final = 17
"""SSSS of T.81 Table H.2: how many bits a difference takes; 16 stands for 32768 alone."""
LONGEST_BITS: Final = 16
_PATTERNS: Final = 1 << 16
_RESERVED: Final = CATEGORIES
"""Has the code of ones only, which T.81 Section C leaves unused; sorted after all others."""
_BLOCK: Final = 1 << 15
"""Differences packed at a step: what they need stays in the processor's cache."""
_WORD: Final = 64
_LENGTH_BITS: Final = 6

Words = npt.NDArray[np.uint64]


def _differences() -> tuple[npt.NDArray[np.int64], ...]:
    """Category, count of further bits and these bits, of each difference modulo 2**16."""
    values = np.arange(_PATTERNS, dtype=np.int64)
    values[_PATTERNS // 2 + 1 :] -= _PATTERNS
    sizes = np.abs(values)
    category = sum((sizes >> bits > 0).astype(np.int64) for bits in range(CATEGORIES))
    further = np.where(category == CATEGORIES - 1, 0, category)
    ones_complement = values + (1 << category) - 1  # T.81 Table F.2 and Section F.1.2.1.1
    bits = np.where(further > 0, np.where(values > 0, values, ones_complement), 0)
    return np.asarray(category), further, bits


_CATEGORY, _FURTHER, _BITS = _differences()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Code words of the categories that occur, shortest first: category, its word, its length in bits."""

    words: tuple[tuple[int, int, int], ...]

    def table(self) -> bytes:
        """Give BITS and HUFFVAL of the DHT segment, T.81 Section B.2.4.2."""
        lengths = [length for _, _, length in self.words]
        counts = bytes(lengths.count(length) for length in range(1, LONGEST_BITS + 1))
        return counts + bytes(category for category, _, _ in self.words)


def code_of(differences: npt.NDArray[np.uint16]) -> Code:
    """Make the best code for these differences, modulo 2**16."""
    found = np.bincount(differences, minlength=_PATTERNS)
    counts = np.bincount(_CATEGORY, weights=found, minlength=CATEGORIES)
    occurring = {one: int(count) for one, count in enumerate(counts) if count}
    lengths = _lengths(occurring)
    while max(lengths.values()) > LONGEST_BITS:
        occurring = {one: (count + 1) // 2 for one, count in occurring.items()}
        lengths = _lengths(occurring)
    return Code(words=tuple(_words(lengths)))


def _lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """Length of each word of a Huffman code; the reserved one is no shorter than any other."""
    waiting: list[tuple[int, int, Sequence[int]]] = [(0, _RESERVED, (_RESERVED,))]
    waiting += [(count, one, (one,)) for one, count in counts.items()]
    heapq.heapify(waiting)
    lengths = dict.fromkeys((_RESERVED, *counts), 0)
    while len(waiting) > 1:
        rare, _, some = heapq.heappop(waiting)
        less_rare, order, others = heapq.heappop(waiting)
        joined = (*some, *others)
        for one in joined:
            lengths[one] += 1
        heapq.heappush(waiting, (rare + less_rare, order, joined))
    return lengths


def _words(lengths: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Number the words as T.81 Section C.2 does, the reserved one last and left out."""
    words, word, before = [], 0, 0
    for length, one in sorted((length, one) for one, length in lengths.items()):
        word <<= length - before
        words.append((one, word, length))
        word, before = word + 1, length
    return words[:-1]


def packed(differences: npt.NDArray[np.uint16], code: Code) -> bytes:
    """Give the entropy-coded segment: the differences' words and bits, padded with ones, bytes stuffed."""
    table = _word_and_length(code)
    pieces: list[bytes] = []
    carried, used = 0, 0
    for start in range(0, len(differences), _BLOCK):
        words, used = _gathered(*_pairs(table[differences[start : start + _BLOCK]]), used)
        words[0] |= np.uint64(carried)
        whole = len(words) if used == 0 else len(words) - 1
        pieces.append(words[:whole].astype(">u8").tobytes())
        carried = 0 if used == 0 else int(words[-1])
    if used:
        ones = (1 << _WORD - used) - 1
        pieces.append((carried | ones).to_bytes(_WORD // 8, "big")[: (used + 7) // 8])
    return b"".join(pieces).replace(b"\xff", b"\xff\0")


def _word_and_length(code: Code) -> Words:
    """For each difference the bits that stand for it, and below them how many they are."""
    words = np.zeros(CATEGORIES, np.int64)
    lengths = np.zeros(CATEGORIES, np.int64)
    for category, word, length in code.words:
        words[category], lengths[category] = word, length
    bits = words[_CATEGORY] << _FURTHER | _BITS
    return (bits << _LENGTH_BITS | lengths[_CATEGORY] + _FURTHER).astype(np.uint64)


def _pairs(coded: Words) -> tuple[Words, Words]:
    """Join neighbours, of 31 bits at most each: half as many to pack. Gives bits and lengths."""
    if len(coded) % 2:
        coded = np.append(coded, np.uint64(0))
    lengths = coded & np.uint64((1 << _LENGTH_BITS) - 1)
    bits = coded >> np.uint64(_LENGTH_BITS)
    return bits[0::2] << lengths[1::2] | bits[1::2], lengths[0::2] + lengths[1::2]


def _gathered(bits: Words, lengths: Words, used: int) -> tuple[Words, int]:
    """Lay bits end to end into words, the first ``used`` bits left free; tell how far the last is filled.

    Nothing is longer than a word, so in each word something begins, and at most
    one thing reaches into the next.
    """
    ends = np.cumsum(lengths).astype(np.int64) + used
    places = (ends - lengths.astype(np.int64)) // _WORD
    beyond = ends - (places + 1) * _WORD
    fits = beyond <= 0
    shifted = bits << np.where(fits, -beyond, 0).astype(np.uint64)
    shifted >>= np.where(fits, 0, beyond).astype(np.uint64)
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    words = np.zeros(int(ends[-1] - 1) // _WORD + 1, np.uint64)
    words[: len(firsts)] = np.bitwise_or.reduceat(shifted, firsts)
    split = np.flatnonzero(~fits)
    words[places[split] + 1] |= bits[split] << (_WORD - beyond[split]).astype(np.uint64)
    return words, int(ends[-1]) % _WORD


def differences_of(samples: npt.NDArray[Any], precision: int) -> npt.NDArray[np.uint16]:
    """Predict each sample from its left neighbour and give what differs, modulo 2**16, in scan order.

    Selection Value 1, T.81 Section H.1.2.1: the first of a line from the one above, the
    very first from half the range. Samples are rows × columns × components.
    """
    cells = samples.astype(np.uint16, copy=False)
    found = np.empty_like(cells)
    np.subtract(cells[:, 1:], cells[:, :-1], out=found[:, 1:])
    np.subtract(cells[1:, 0], cells[:-1, 0], out=found[1:, 0])
    np.subtract(cells[0, 0], np.uint16(1 << precision - 1), out=found[0, 0])
    return found.ravel()
