"""Planes and volumes in the patient: where pixels lie, in mm. PS3.3 Section C.7.6.2.1.1.

Owns the maths of directions, tilted stacks and sampling between slices. Refuses
to know where the numbers came from: ``processing.datasets.geometry`` reads them.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from processing.operations.operation import MAX_RESULTS, NotProcessable, Values

Vector = npt.NDArray[np.float64]
"""Three numbers: towards the left, back and head of the patient."""

Item = TypeVar("Item")

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

    def moved(self, way_mm: Vector) -> "Grid":
        """Give the same grid elsewhere."""
        return replace(self, origin_mm=self.origin_mm + way_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """One result made of a volume, where it lies, and how much it stands for.

    ``number`` is its place among all results, from 1; 0 where they are given in order and whole.
    """

    values: Values
    grid: Grid
    thickness_mm: float
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Parallel slices, one size, equally far apart, ordered along their normal.

    Slice ``k`` lies at ``first`` moved by ``k`` times ``step_mm``, which is the normal
    unless the gantry was tilted. ``read`` gives the values of a slice, from any
    thread; nothing keeps more than a few slices. ``scratch`` is a folder for the rest.
    Of ``parts`` that share the results out, this is ``part``, counted from 0.
    """

    first: Grid
    step_mm: Vector
    count: int
    read: Callable[[int], Values]
    scratch: str
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

    @contextmanager
    def sampler(self) -> Iterator["Sampler"]:
        """Lay all slices into a file, from which any plane can be sampled."""
        shape = (self.count, self.first.rows, self.first.columns)
        with (
            tempfile.TemporaryFile(dir=self.scratch) as values_file,
            tempfile.TemporaryFile(dir=self.scratch) as measured_file,
        ):
            values = np.memmap(values_file, dtype=np.float32, mode="w+", shape=shape)
            measured = np.memmap(measured_file, dtype=np.uint8, mode="w+", shape=shape)

            def lay(k: int) -> bool:
                slice_ = self.read(k)
                missing = np.isnan(slice_)
                values[k] = np.where(missing, 0, slice_)
                measured[k] = ~missing
                return bool(missing.any())

            with ThreadPoolExecutor(self.threads) as pool:
                gaps = any(list(pool.map(lay, range(self.count))))
            yield Sampler(self, values, measured if gaps else None)


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

    @cached_property
    def _to_voxels(self) -> npt.NDArray[np.float64]:
        first = self._volume.first
        steps = (self._volume.step_mm, first.row_step_mm, first.column_step_mm)
        return np.asarray(np.linalg.inv(np.array(steps).T), dtype=np.float64)

    def values(self, grid: Grid) -> Values:
        """Sample a plane; NaN outside of the volume and where less than half is measured."""
        at, inside = self._voxels(grid)
        result = ndimage.map_coordinates(self._values, at, order=1, mode="nearest")
        if self._measured is not None:
            share = ndimage.map_coordinates(
                self._measured, at, output=np.float32, order=1, mode="nearest"
            )
            inside &= share >= _HALF
            result = np.divide(result, share, where=inside, out=result)
        result[~inside] = np.nan
        sampled: Values = result
        return sampled

    def _voxels(self, grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        start = self._to_voxels @ (grid.origin_mm - self._volume.first.origin_mm)
        down = self._to_voxels @ grid.row_step_mm
        right = self._to_voxels @ grid.column_step_mm
        rows, columns = np.arange(grid.rows)[:, None], np.arange(grid.columns)[None, :]
        at = np.empty((3, grid.rows, grid.columns))
        inside = np.ones((grid.rows, grid.columns), dtype=bool)
        for axis, length in enumerate(self._values.shape):
            there = start[axis] + rows * down[axis] + columns * right[axis]
            inside &= (there >= -_EDGE) & (there <= length - 1 + _EDGE)
            at[axis] = np.clip(there, 0, length - 1)
        return at, inside


def in_turn(
    work: Callable[[int], Values], numbers: Sequence[int], threads: int
) -> Iterator[tuple[int, Values]]:
    """Do ``work`` for each number on several threads, in order, few of them ahead."""
    with ThreadPoolExecutor(threads) as pool:
        ahead = [(n, pool.submit(work, n)) for n in numbers[: 2 * threads]]
        for following in [*numbers[2 * threads :], *[None] * len(ahead)]:
            number, done = ahead.pop(0)
            if following is not None:
                ahead.append((following, pool.submit(work, following)))
            yield number, done.result()


def required_slices(volume: Volume, least: int) -> None:
    """Refuse what is no volume. Raises ``NotProcessable``."""
    if volume.count < least:
        raise NotProcessable(f"a volume of {least} slices or more is needed, not {volume.count}")
