"""Projecting along the normal of a view: maximum, minimum or mean, a slice at a time.

Owns the memory bound: each thread holds two accumulators and one plane, however
many planes there are. Samples are gathered as they are stored, where all planes
store alike. Padding has no part in a projection.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from processing.operations.operation import Mask, Values
from processing.operations.space import Projected, in_turn
from processing.operations.views import View

Plane = npt.NDArray[Any]
"""Values, or samples as they are stored."""

_PIECE = 32
"""Planes that one thread gathers at a time."""


class Gathering(Protocol):
    """What has been seen so far of each pixel: values, NaN where there is none, or samples and where they are none."""

    def add(self, plane: Plane, missing: Mask | None = None) -> None: ...

    def join(self, other: Self) -> None: ...

    def result(self) -> tuple[Plane, Mask | None]: ...


class _Extreme:
    _choose: np.ufunc
    _choose_stored: np.ufunc

    def __init__(self) -> None:
        self._found: Plane | None = None
        self._missing: Mask | None = None
        self._whole = False

    def add(self, plane: Plane, missing: Mask | None = None) -> None:
        if missing is not None:
            plane = np.where(missing, self._least(plane.dtype), plane)
        self._gather(plane, missing)

    def join(self, other: Self) -> None:
        plane, missing = other.result()
        self._gather(plane, missing)

    def result(self) -> tuple[Plane, Mask | None]:
        assert self._found is not None, "a projection is of one plane at least"
        return self._found, None if self._whole else self._missing

    def _gather(self, plane: Plane, missing: Mask | None) -> None:
        """Missing stays what was missing in all planes."""
        self._whole = self._whole or missing is None
        if self._missing is None:
            self._missing = missing
        elif missing is not None:
            self._missing = self._missing & missing
        if self._found is None:
            self._found = np.array(plane)
            return
        choose = self._choose if plane.dtype.kind == "f" else self._choose_stored
        choose(self._found, plane, out=self._found)

    def _least(self, dtype: np.dtype[Any]) -> int:
        """The sample that any other wins against."""
        raise AssertionError("of a kind")


class Maximum(_Extreme):
    """The largest value."""

    _choose = np.fmax
    _choose_stored = np.maximum

    def _least(self, dtype: np.dtype[Any]) -> int:
        return int(np.iinfo(dtype).min)


class Minimum(_Extreme):
    """The smallest value."""

    _choose = np.fmin
    _choose_stored = np.minimum

    def _least(self, dtype: np.dtype[Any]) -> int:
        return int(np.iinfo(dtype).max)


class Mean:
    """The mean of what was measured."""

    def __init__(self) -> None:
        self._sum: Plane | None = None
        self._count: npt.NDArray[np.int64] | None = None

    def add(self, plane: Plane, missing: Mask | None = None) -> None:
        if plane.dtype.kind == "f":
            missing = np.isnan(plane)
        if missing is None:
            self._gather(plane, np.ones((), np.int64))
        else:
            self._gather(np.where(missing, 0, plane), (~missing).astype(np.int64))

    def join(self, other: Self) -> None:
        assert other._sum is not None and other._count is not None
        self._gather(other._sum, other._count)

    def result(self) -> tuple[Plane, Mask | None]:
        assert self._sum is not None and self._count is not None
        empty = np.broadcast_to(self._count == 0, self._sum.shape)
        return self._sum / np.where(empty, 1, self._count), empty

    def _gather(self, total: Plane, count: npt.NDArray[np.int64]) -> None:
        if self._sum is None or self._count is None:
            # Whole numbers are summed up exactly, whatever their order.
            wide = np.float64 if total.dtype.kind == "f" else np.int64
            self._sum, self._count = total.astype(wide), count
        else:
            self._sum += total
            self._count = self._count + count


METHODS: Mapping[str, type[Gathering]] = {"maximum": Maximum, "minimum": Minimum, "mean": Mean}


def projected(
    view: View, depths: Sequence[int], gathering: type[Gathering], *, threads: int, number: int = 1
) -> Projected:
    """Project some planes of a view, that follow each other, onto the one in their middle."""
    stored = view.stored

    def gathered(part: Sequence[int]) -> Gathering:
        seen = gathering()
        for depth in part:
            if stored is None:
                seen.add(view.values(depth))
            else:
                seen.add(*stored.read(depth))
        return seen

    whole = gathering()
    for _, part in in_turn(gathered, _pieces(depths), threads):
        whole.join(part)
    plane, missing = whole.result()
    values: Values = plane if stored is None else stored.values(plane)
    if missing is not None and missing.any():
        values = np.where(missing, np.nan, values)
    first, last = view.grid(depths[0]), view.grid(depths[-1])
    return Projected(
        values=values,
        grid=first.moved((last.origin_mm - first.origin_mm) / 2),
        thickness_mm=len(depths) * view.step_mm,
        number=number,
        planes=(first, last),
    )


def _pieces(depths: Sequence[int]) -> list[Sequence[int]]:
    """Cut always alike, however many threads there are: sums are rounded in the order they are made in."""
    return [depths[at : at + _PIECE] for at in range(0, len(depths), _PIECE)]


def slabs(count: int, thick: int, step: int) -> Iterator[range]:
    """Give the planes of each slab; the last one is whole, too.

    >>> list(slabs(10, 4, 3))
    [range(0, 4), range(3, 7), range(6, 10)]
    >>> list(slabs(3, 4, 3))
    [range(0, 3)]
    """
    thick = min(thick, count)
    for start in range(0, count - thick + 1, step):
        yield range(start, start + thick)
