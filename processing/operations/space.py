"""Planes and volumes in the patient: where pixels lie, in mm. PS3.3 Section C.7.6.2.1.1.

Owns the maths of directions, tilted stacks and sampling between slices. Refuses
to know where the numbers came from: ``processing.datasets.geometry`` reads them.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy

from processing.operations.operation import MAX_RESULTS, Mask, NotProcessable, Values

Vector = npt.NDArray[np.float64]
"""Three numbers: towards the left, back and head of the patient."""

Item = TypeVar("Item")
Made = TypeVar("Made")

_EDGE = 1e-3
"""Voxels beyond the outermost centre that still count as on it: rounding of decimal strings."""
_HALF = 0.5
"""So much of what a sample is made of must be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One image in space. ``along_row`` points to higher columns, ``along_column`` to higher rows.

    ``origin_mm`` is the centre of the first pixel; ``spacing_mm`` is between rows, between columns.
    """

    origin_mm: Vector
    along_row: Vector
    along_column: Vector
    spacing_mm: tuple[float, float]
    rows: int
    columns: int

    @property
    def normal(self) -> Vector:
        """Direction away from the plane."""
        return np.cross(self.along_row, self.along_column)

    @property
    def row_step_mm(self) -> Vector:
        """From a row to the next."""
        return self.along_column * self.spacing_mm[0]

    @property
    def column_step_mm(self) -> Vector:
        """From a column to the next."""
        return self.along_row * self.spacing_mm[1]

    def corners_mm(self) -> npt.NDArray[np.float64]:
        """The centres of the four outermost pixels."""
        down = (self.rows - 1) * self.row_step_mm
        right = (self.columns - 1) * self.column_step_mm
        return np.array([self.origin_mm + a * down + b * right for a in (0, 1) for b in (0, 1)])

    def moved(self, way_mm: Vector) -> "Grid":
        """Give the same grid elsewhere."""
        return replace(self, origin_mm=self.origin_mm + way_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """One result made of a volume, where it lies, and how much it stands for.

    ``number`` is its place among all results, from 1; 0 where they are given in order and whole.
    ``planes`` are the outermost that it was made of, from which follows of which slices; none is all.
    """

    values: Values
    grid: Grid
    thickness_mm: float
    number: int = 0
    planes: tuple[Grid, ...] = ()


Cells = npt.NDArray[np.integer[Any]]
"""Samples as they are stored: whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSlices:
    """Slices that store values alike, larger samples standing for larger values: what needs no values reads them so.

    ``read`` gives the samples of a slice, and where they are padding, if anywhere; ``values``
    what samples, or means of them, stand for.
    """

    read: Callable[[int], tuple[Cells, Mask | None]]
    values: Callable[[npt.NDArray[Any]], Values]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Parallel slices, one size, equally far apart, ordered along their normal.

    Slice ``k`` lies at ``first`` moved by ``k`` times ``step_mm``, which is the normal
    unless the gantry was tilted. ``read`` gives the values of a slice, from any
    thread; nothing keeps more than a few slices. ``stored`` gives the same as samples,
    where that is possible. ``scratch`` is a folder for the rest.
    Of ``parts`` that share the results out, this is ``part``, counted from 0.
    """

    first: Grid
    step_mm: Vector
    count: int
    read: Callable[[int], Values]
    scratch: str
    stored: StoredSlices | None = None
    threads: int = 1
    part: int = 0
    parts: int = 1

    def share(self, wanted: Sequence[Item]) -> list[tuple[int, Item]]:
        """Give what is computed here of all that is ``wanted``, each with its number from 1.

        A share is what follows each other, so that neighbours are read once. Raises ``NotProcessable``.
        """
        if len(wanted) > MAX_RESULTS:
            raise NotProcessable(f"there would be {len(wanted)} results, more than {MAX_RESULTS}")
        start, end = (len(wanted) * one // self.parts for one in (self.part, self.part + 1))
        return [(place + 1, wanted[place]) for place in range(start, end)]

    @property
    def spacing_mm(self) -> float:
        """Distance between the planes of two slices."""
        return float(self.step_mm @ self.first.normal)

    @property
    def drift_px(self) -> tuple[float, float]:
        """Rows and columns by which a slice lies beside the one before, its gantry being tilted."""
        aside = self.step_mm - self.spacing_mm * self.first.normal
        between_rows, between_columns = self.first.spacing_mm
        return (
            float(aside @ self.first.along_column) / between_rows,
            float(aside @ self.first.along_row) / between_columns,
        )

    @property
    def finest_mm(self) -> float:
        """The smallest distance of two voxels along one of the axes."""
        return min(*self.first.spacing_mm, self.spacing_mm)

    def corners_mm(self) -> npt.NDArray[np.float64]:
        """The centres of the eight outermost voxels."""
        steps = (
            (self.count - 1) * self.step_mm,
            (self.first.rows - 1) * self.first.row_step_mm,
            (self.first.columns - 1) * self.first.column_step_mm,
        )
        ends = np.array(np.meshgrid((0, 1), (0, 1), (0, 1))).reshape(3, -1).T
        return np.asarray(self.first.origin_mm + ends @ np.array(steps))

    @cached_property
    def to_voxels(self) -> npt.NDArray[np.float64]:
        """From mm beside the first pixel to slices, rows and columns."""
        steps = (self.step_mm, self.first.row_step_mm, self.first.column_step_mm)
        return np.asarray(np.linalg.inv(np.array(steps).T), dtype=np.float64)

    def slices_of(self, *planes: Grid) -> range:
        """Tell which slices lie at and between planes, those beside them included; all where none are given."""
        if not planes:
            return range(self.count)
        depths = [
            self.to_voxels[0] @ (corner - self.first.origin_mm)
            for one in planes
            for corner in one.corners_mm()
        ]
        first, last = (
            int(one) for one in (np.floor(min(depths) + _EDGE), np.ceil(max(depths) - _EDGE))
        )
        return range(max(0, min(first, self.count - 1)), min(self.count, max(last, first, 0) + 1))

    @contextmanager
    def sampler(self) -> Iterator["Sampler"]:
        """Lay all slices into a file, from which any plane can be sampled."""
        shape = (self.count, self.first.rows, self.first.columns)
        with (
            tempfile.TemporaryFile(dir=self.scratch) as values_file,
            tempfile.TemporaryFile(dir=self.scratch) as measured_file,
        ):
            first, _ = self._read(0)
            values = np.memmap(values_file, dtype=first.dtype, mode="w+", shape=shape)
            measured = np.memmap(measured_file, dtype=np.uint8, mode="w+", shape=shape)

            def lay(k: int) -> bool:
                slice_, missing = self._read(k)
                values[k] = slice_ if missing is None else np.where(missing, 0, slice_)
                measured[k] = True if missing is None else ~missing
                return missing is not None

            with ThreadPoolExecutor(self.threads) as pool:
                gaps = any(list(pool.map(lay, range(self.count))))
            yield Sampler(self, values, measured if gaps else None)

    def _read(self, k: int) -> tuple[npt.NDArray[Any], Mask | None]:
        """Give a slice as samples where that is possible, else its values; and what of it is missing."""
        if self.stored is not None:
            return self.stored.read(k)
        values = self.read(k)
        missing = np.isnan(values)
        return values, missing if missing.any() else None


class Sampler:
    """Gives values between the voxels of a volume, linearly. May be used from many threads."""

    def __init__(
        self,
        volume: Volume,
        values: npt.NDArray[Any],
        measured: npt.NDArray[Any] | None,
    ) -> None:
        self._volume = volume
        self._values = values
        self._measured = measured

    def values(self, grid: Grid) -> Values:
        """Sample a plane; NaN outside of the volume and where less than half is measured."""
        at, inside = self._voxels(grid)
        result = self._between(self._values, at)
        if self._measured is not None:
            share = self._between(self._measured, at)
            inside &= share >= _HALF
            result = np.divide(result, share, where=inside, out=result)
        if self._volume.stored is not None:
            result = self._volume.stored.values(result)
        result[~inside] = np.nan
        return result

    def _between(self, voxels: npt.NDArray[Any], at: npt.NDArray[np.float64]) -> Values:
        """Sample linearly, in double precision whatever the voxels are."""
        sampled: Values = scipy.ndimage.map_coordinates(
            voxels, at, output=np.float64, order=1, mode="nearest"
        )
        return sampled

    def _voxels(self, grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        to_voxels = self._volume.to_voxels
        start = to_voxels @ (grid.origin_mm - self._volume.first.origin_mm)
        down = to_voxels @ grid.row_step_mm
        right = to_voxels @ grid.column_step_mm
        rows, columns = np.arange(grid.rows)[:, None], np.arange(grid.columns)[None, :]
        at = np.empty((3, grid.rows, grid.columns))
        inside = np.ones((grid.rows, grid.columns), dtype=bool)
        for axis, length in enumerate(self._values.shape):
            there = start[axis] + rows * down[axis] + columns * right[axis]
            inside &= (there >= -_EDGE) & (there <= length - 1 + _EDGE)
            at[axis] = np.clip(there, 0, length - 1)
        return at, inside


def in_turn(
    work: Callable[[Item], Made], items: Sequence[Item], threads: int
) -> Iterator[tuple[Item, Made]]:
    """Do ``work`` for each item on several threads, in order, few of them ahead."""
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque((one, pool.submit(work, one)) for one in items[: 2 * threads])
        following = iter(items[2 * threads :])
        while ahead:
            item, done = ahead.popleft()
            ahead.extend((one, pool.submit(work, one)) for one in islice(following, 1))
            yield item, done.result()


def required_slices(volume: Volume, least: int) -> None:
    """Refuse what is no volume. Raises ``NotProcessable``."""
    if volume.count < least:
        raise NotProcessable(f"a volume of {least} slices or more is needed, not {volume.count}")
