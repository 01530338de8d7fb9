"""Projecting along the normal of a view: maximum, minimum or mean, a slice at a time.

Owns the memory bound: each thread holds one accumulator and one plane, however
many planes there are. Padding has no part in a projection.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from processing.operations.operation import Values
from processing.operations.space import Projected
from processing.operations.views import View


class Gathering(Protocol):
    """What has been seen so far of each pixel."""

    def add(self, values: Values) -> None: ...

    def join(self, other: "Gathering") -> None: ...

    def result(self) -> Values: ...


class _Extreme:
    def __init__(self, choose: np.ufunc) -> None:
        self._choose = choose
        self._found: Values | None = None

    def add(self, values: Values) -> None:
        if self._found is None:
            self._found = np.array(values)
        else:
            self._choose(self._found, values, out=self._found)

    def join(self, other: Gathering) -> None:
        self.add(other.result())

    def result(self) -> Values:
        assert self._found is not None, "a projection is of one plane at least"
        return self._found


class Maximum(_Extreme):
    """The largest value."""

    def __init__(self) -> None:
        super().__init__(np.fmax)


class Minimum(_Extreme):
    """The smallest value."""

    def __init__(self) -> None:
        super().__init__(np.fmin)


class Mean:
    """The mean of what was measured."""

    def __init__(self) -> None:
        self._sum: Values | None = None
        self._count: Values | None = None

    def add(self, values: Values) -> None:
        measured = ~np.isnan(values)
        self._gather(np.where(measured, values, 0).astype(np.float64), measured)

    def join(self, other: Gathering) -> None:
        assert isinstance(other, Mean) and other._sum is not None and other._count is not None
        self._gather(other._sum, other._count)

    def result(self) -> Values:
        assert self._sum is not None and self._count is not None
        empty = self._count == 0
        return np.where(empty, np.nan, self._sum / np.where(empty, 1, self._count))

    def _gather(self, total: Values, count: Values) -> None:
        if self._sum is None or self._count is None:
            self._sum, self._count = total, count.astype(np.float64)
        else:
            self._sum += total
            self._count += count


METHODS: Mapping[str, type[Gathering]] = {"maximum": Maximum, "minimum": Minimum, "mean": Mean}


def projected(
    view: View, depths: Sequence[int], gathering: type[Gathering], *, threads: int, number: int = 1
) -> Projected:
    """Project some planes of a view, that follow each other, onto the one in their middle."""
    parts = [part for part in np.array_split(np.array(depths), threads) if part.size]

    def gathered(part: Sequence[int]) -> Gathering:
        seen = gathering()
        for depth in part:
            seen.add(view.values(int(depth)))
        return seen

    with ThreadPoolExecutor(len(parts)) as pool:
        whole, *others = pool.map(gathered, parts)
    for other in others:
        whole.join(other)
    first, last = view.grid(depths[0]), view.grid(depths[-1])
    return Projected(
        values=whole.result(),
        grid=first.moved((last.origin_mm - first.origin_mm) / 2),
        thickness_mm=len(depths) * view.step_mm,
        number=number,
    )


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
