"""Looking at a volume from a side: planes one behind another, as they are or sampled.

Owns which planes a view consists of, and the bounds on their number and size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from processing.operations.operation import NotProcessable, Values
from processing.operations.shift import shifted
from processing.operations.space import Grid, Sampler, StoredSlices, Vector, Volume, required_slices

MAX_SIDE_PX = 4096
MAX_PLANES = 8192

PLANES = ("axial", "coronal", "sagittal")
"""Planes of the patient; ``stack`` is the plane the slices lie in."""

_AXES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Along a row, along a column."""
_PARALLEL = 1 - 1e-6
_ROUNDING = 1e-6
_EDGE_PX = 1e-3
"""Drift of a whole stack that is none: rounding of decimal strings."""


class View(Protocol):
    """Planes one behind another, all of one size, ``step_mm`` apart along their normal."""

    @property
    def count(self) -> int: ...

    @property
    def step_mm(self) -> float: ...

    @property
    def stored(self) -> StoredSlices | None:
        """The planes as samples, where they are slices as they are."""
        ...

    def grid(self, depth: int) -> Grid:
        """Where a plane lies."""
        ...

    def values(self, depth: int) -> Values:
        """What is there; NaN where nothing was measured."""
        ...


class SlicesView:
    """The slices as they are; those of a tilted gantry moved to where they lie behind each other."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        drift = np.outer(np.arange(volume.count), volume.drift_px)
        low, high = np.floor(drift.min(axis=0) + _ROUNDING), drift.max(axis=0)
        more = np.ceil(high - low - _ROUNDING).astype(int)
        self._drift = drift - low
        self._shape = (volume.first.rows + int(more[0]), volume.first.columns + int(more[1]))
        self._still = not drift.any() or bool(np.abs(drift).max() < _EDGE_PX)
        first = volume.first
        start = first.origin_mm + low[0] * first.row_step_mm + low[1] * first.column_step_mm
        self._first = _sized(first, start, first.spacing_mm, self._shape)

    @property
    def count(self) -> int:
        return self._volume.count

    @property
    def step_mm(self) -> float:
        return self._volume.spacing_mm

    @property
    def stored(self) -> StoredSlices | None:
        return self._volume.stored if self._still else None

    def grid(self, depth: int) -> Grid:
        return self._first.moved(depth * self.step_mm * self._first.normal)

    def values(self, depth: int) -> Values:
        values = self._volume.read(depth)
        if self._still:
            return values
        down, right = self._drift[depth]
        return shifted(values, float(down), float(right), self._shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledView:
    """Planes sampled through the whole volume, in any direction."""

    sampler: Sampler
    first: Grid
    count: int
    step_mm: float
    stored: None = None

    def grid(self, depth: int) -> Grid:
        return self.first.moved(depth * self.step_mm * self.first.normal)

    def values(self, depth: int) -> Values:
        return self.sampler.values(self.grid(depth))


@contextmanager
def view(volume: Volume, plane: str, spacing_mm: float) -> Iterator[View]:
    """Look at a volume along the normal of a plane.

    Where the slices lie in that plane already, and nobody asks for another
    ``spacing_mm`` (0), they are looked at as they are. Raises ``NotProcessable``.
    """
    if plane == "stack" or (spacing_mm == 0 and _lie_in(volume, plane)):
        yield SlicesView(volume)
        return
    required_slices(volume, 2)
    along_row, along_column = map(np.array, _AXES[plane])
    with volume.sampler() as sampler:
        yield sampled(volume, sampler, (along_row, along_column), spacing_mm)


def sampled(
    volume: Volume, sampler: Sampler, axes: tuple[Vector, Vector], spacing_mm: float
) -> SampledView:
    """Cover a volume with planes along two axes, ``spacing_mm`` (0: as fine as it is) in all directions."""
    along_row, along_column = axes
    normal = np.cross(along_row, along_column)
    spacing_mm = spacing_mm or volume.finest_mm
    corners = volume.corners_mm() @ np.array((normal, along_column, along_row)).T
    low, high = corners.min(axis=0), corners.max(axis=0)
    planes, rows, columns = (int(one) for one in (high - low) / spacing_mm + _EDGE_PX + 1)
    if max(rows, columns) > MAX_SIDE_PX or planes > MAX_PLANES:
        raise NotProcessable(
            f"{planes} planes of {rows} rows and {columns} columns are too many: "
            "set a larger spacing_mm"
        )
    origin = low[0] * normal + low[1] * along_column + low[2] * along_row
    first = Grid(
        origin_mm=origin,
        along_row=along_row,
        along_column=along_column,
        spacing_mm=(spacing_mm, spacing_mm),
        rows=rows,
        columns=columns,
    )
    return SampledView(sampler=sampler, first=first, count=planes, step_mm=spacing_mm)


def _lie_in(volume: Volume, plane: str) -> bool:
    along_row, along_column = map(np.array, _AXES[plane])
    wanted = np.cross(along_row, along_column)
    return bool(abs(volume.first.normal @ wanted) > _PARALLEL)


def _sized(
    grid: Grid, origin: Vector, spacing: tuple[float, float], shape: tuple[int, int]
) -> Grid:
    return Grid(
        origin_mm=origin,
        along_row=grid.along_row,
        along_column=grid.along_column,
        spacing_mm=spacing,
        rows=shape[0],
        columns=shape[1],
    )
