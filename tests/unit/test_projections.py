"""Operations across images: projections, reformats and subtractions, of volumes taken from any side."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from processing.operations.operation import Combined, Image, NotProcessable
from processing.operations.parameters import read
from processing.operations.registry import OPERATIONS
from processing.operations.shift import shifted
from processing.operations.space import Grid, Projected, Volume
from tests.phantoms import Body, ellipsoids

Array = npt.NDArray[Any]
TILT = math.radians(18)


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    return str(tmp_path)


def volume(
    scratch: str,
    body: Body = ellipsoids,
    *,
    count: int = 40,
    rows: int = 56,
    columns: int = 64,
    step: tuple[float, float, float] = (0, 0, 2),
    along_row: tuple[float, float, float] = (1, 0, 0),
    along_column: tuple[float, float, float] = (0, 1, 0),
    threads: int = 2,
    missing: Any = None,
) -> Volume:
    """Slices of 1 mm pixels around the origin."""
    right, down, way = (np.array(one, float) for one in (along_row, along_column, step))
    middle = -(rows - 1) / 2 * down - (columns - 1) / 2 * right
    first = Grid(
        origin_mm=middle - (count - 1) / 2 * way,
        along_row=right,
        along_column=down,
        spacing_mm=(1.0, 1.0),
        rows=rows,
        columns=columns,
    )

    def slice_(k: int) -> Array:
        values = body(points(first.moved(k * way)))
        if missing is not None:
            values = np.where(missing[k], np.nan, values)
        return values

    return Volume(
        first=first, step_mm=way, count=count, read=slice_, scratch=scratch, threads=threads
    )


def points(grid: Grid) -> Array:
    """Where the pixels of a plane lie."""
    i, j = np.meshgrid(np.arange(grid.rows), np.arange(grid.columns), indexing="ij")
    return grid.origin_mm + i[..., None] * grid.row_step_mm + j[..., None] * grid.column_step_mm


def run(name: str, of: Volume, **settings: object) -> list[Projected]:
    operation = OPERATIONS[name]
    parameters = read(operation.parameters, {key: str(value) for key, value in settings.items()})
    found: Iterator[Projected] = operation.run(of, parameters)
    return list(found)


def solid(of: Volume) -> Array:
    return np.array([of.read(k) for k in range(of.count)])


@pytest.mark.parametrize(
    ("name", "formula"), [("mip", np.max), ("minip", np.min), ("mean-projection", np.mean)]
)
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_projection_of_the_stack_is_that_of_the_array(
    scratch: str, name: str, formula: Any, threads: int
) -> None:
    of = volume(scratch, count=9, rows=20, columns=24, threads=threads)
    (found,) = run(name, of)
    assert np.allclose(found.values, formula(solid(of), axis=0), rtol=1e-12)
    assert np.allclose(found.grid.origin_mm, of.first.origin_mm + 4 * of.step_mm)
    assert math.isclose(found.thickness_mm, 18)
    if name != "mean-projection":
        assert np.array_equal(found.values, formula(solid(of), axis=0))


def test_padding_has_no_part_in_a_projection(scratch: str) -> None:
    missing = np.zeros((5, 8, 8), bool)
    missing[:, 0], missing[1:, 1], missing[::2, 2] = True, True, True
    of = volume(scratch, count=5, rows=8, columns=8, missing=missing)
    for name, formula in (
        ("mip", np.nanmax),
        ("minip", np.nanmin),
        ("mean-projection", np.nanmean),
    ):
        (found,) = run(name, of)
        assert np.isnan(found.values[0]).all()
        assert np.allclose(found.values[1:], formula(solid(of)[:, 1:], axis=0))


def test_a_reversed_stack_has_the_same_projections(scratch: str) -> None:
    plain, backwards = volume(scratch), volume(scratch)
    backwards = Volume(
        first=plain.first,
        step_mm=plain.step_mm,
        count=plain.count,
        read=backwards.read,
        scratch=scratch,
    )
    for plane in ("stack", "coronal"):
        one, other = (run("mip", of, plane=plane)[0] for of in (plain, backwards))
        assert np.array_equal(one.values, other.values, equal_nan=True)


def test_a_stack_sheared_by_whole_pixels_has_exactly_the_same_mip(scratch: str) -> None:
    """A gantry that moves two pixels aside with each slice: what lies behind each other is compared."""
    plain = volume(scratch, rows=140)
    sheared = volume(scratch, step=(0, 2, 2), rows=64)
    (one,), (other,) = run("mip", plain), run("mip", sheared)
    assert other.values.shape == (64 + 2 * 39, 64)
    offset = int(np.rint(one.grid.origin_mm[1] - other.grid.origin_mm[1]))
    inside = other.values[offset + 40 : offset + 100]
    expected = one.values[40:100]
    known = ~np.isnan(inside)
    assert known.mean() > 0.95
    # Where the sheared stack saw the whole body, it says exactly the same.
    assert np.array_equal(inside[12:48][known[12:48]], expected[12:48][known[12:48]])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_tilted_stack_has_the_mip_of_the_untilted_one(scratch: str, plane: str) -> None:
    plain = volume(scratch, step=(0, 0, 1), count=90, rows=60)
    down = (0.0, math.cos(TILT), -math.sin(TILT))
    tilted = volume(scratch, step=(0, 0, 1), count=120, rows=72, along_column=down)
    assert abs(tilted.drift_px[0]) > 0.3
    (one,), (other,) = (run("mip", of, plane=plane, spacing_mm=1) for of in (plain, tilted))
    there = points(one.grid)
    voxels = np.stack(
        [
            (there - other.grid.origin_mm) @ other.grid.along_column,
            (there - other.grid.origin_mm) @ other.grid.along_row,
        ]
    )
    compared = ndimage.map_coordinates(np.nan_to_num(other.values, nan=-1000), voxels, order=1)
    body = one.values > 0
    assert body.sum() > 1000
    assert np.abs(compared - one.values)[body].mean() < 12
    rods = one.values > 400
    assert (np.logical_and(rods, compared > 400).sum() / rods.sum()) > 0.95


def test_an_oblique_mip_in_the_stack_s_plane_is_where_it_says(scratch: str) -> None:
    row, column = (0.8, 0.6, 0.0), (0.0, 0.0, -1.0)
    step = tuple(np.cross(row, column))
    of = volume(scratch, step=step, along_row=row, along_column=column, rows=90, columns=70)
    (found,) = run("mip", of)
    peak = np.unravel_index(np.nanargmax(found.values), found.values.shape)
    place = points(found.grid)[peak]
    aside = (place - (8, -4, 6)) - ((place - (8, -4, 6)) @ found.grid.normal) * found.grid.normal
    assert np.linalg.norm(aside) < 8, "the ball's centre, within its flat top"


def test_a_reformat_of_a_linear_field_is_that_field(scratch: str) -> None:
    """Whatever the slices' direction, linear interpolation of a linear field is exact."""

    def field(where: Array) -> Array:
        return 3 * where[..., 0] - 2 * where[..., 1] + where[..., 2] + 10

    down = (0.0, math.cos(TILT), -math.sin(TILT))
    of = volume(scratch, field, count=24, rows=24, columns=20, along_column=down)
    for plane in ("axial", "coronal", "sagittal"):
        for found in run("mpr", of, plane=plane, spacing_mm=1.3):
            known = ~np.isnan(found.values)
            assert np.allclose(found.values[known], field(points(found.grid))[known], atol=1e-3)
            corner = Path(scratch)
            assert list(corner.iterdir()) == [], "nothing of the volume is left there"


def test_a_reformat_along_the_axes_is_the_array_turned(scratch: str) -> None:
    of = volume(scratch, step=(0, 0, 1), count=12, rows=16, columns=20)
    array = solid(of)
    coronal = run("mpr", of, plane="coronal")
    assert len(coronal) == 16
    for row, found in enumerate(coronal):
        assert np.allclose(found.values, array[::-1, row, :], atol=1e-3)
        assert found.grid.normal.tolist() == [0, 1, 0]
    sagittal = run("mpr", of, plane="sagittal")
    assert np.allclose(sagittal[0].values, array[::-1, :, -1], atol=1e-3)
    axial = run("mpr", of, plane="axial", step_mm=3)
    assert [np.array_equal(one.values, array[k * 3]) for k, one in enumerate(axial)] == [True] * 4


def test_samples_beside_padding_are_made_of_what_was_measured(scratch: str) -> None:
    missing = np.zeros((6, 10, 10), bool)
    missing[:, :, :4] = True
    of = volume(
        scratch,
        lambda at: np.full(at.shape[:-1], 70.0),
        count=6,
        rows=10,
        columns=10,
        missing=missing,
    )
    for found in run("mpr", of, plane="sagittal", spacing_mm=0.7):
        known = ~np.isnan(found.values)
        assert np.allclose(found.values[known], 70, atol=1e-3)


def test_slabs_slide_and_are_as_thick_as_asked(scratch: str) -> None:
    of = volume(scratch, count=20, rows=8, columns=8)
    array = solid(of)
    found = run("slab", of, thickness_mm=8, step_mm=4, method="mean")
    assert [one.thickness_mm for one in found] == [8.0] * 9
    for number, one in enumerate(found):
        assert np.allclose(one.values, array[2 * number : 2 * number + 4].mean(axis=0))
    middles = [one.grid.origin_mm[2] for one in found]
    assert np.allclose(np.diff(middles), 4) and math.isclose(middles[0], -19 + 3)
    with pytest.raises(NotProcessable, match="more than the volume"):
        run("slab", of, thickness_mm=100)


def test_a_rotating_mip_starts_as_the_coronal_one_and_turns(scratch: str) -> None:
    of = volume(scratch, count=30)
    views = run("rotating-mip", of, images=4, spacing_mm=2)
    assert len(views) == 4
    (coronal,) = run("mip", of, plane="coronal", spacing_mm=2)
    assert np.allclose(views[0].values, coronal.values, equal_nan=True)
    (sagittal,) = run("mip", of, plane="sagittal", spacing_mm=2)
    assert np.allclose(views[1].values, sagittal.values, equal_nan=True)
    across = points(views[2].grid)[0, :, 0]
    mirrored = [np.interp(across, points(views[0].grid)[0, :, 0], row) for row in views[0].values]
    alike = np.corrcoef(np.ravel(mirrored), views[2].values.ravel())[0, 1]
    assert alike > 0.98, "the same, seen from the back"
    assert np.allclose(views[3].grid.along_row, (0, -1, 0), atol=1e-12)


def test_too_many_samples_are_refused_before_they_are_made(scratch: str) -> None:
    of = volume(scratch, count=4, rows=64, columns=64)
    with pytest.raises(NotProcessable, match="set a larger spacing_mm"):
        run("mpr", of, spacing_mm=0.001)


# --- images of one place -----------------------------------------------------------------------


def combined(name: str, images: list[Array], **settings: object) -> list[Combined]:
    operation = OPERATIONS[name]
    parameters = read(operation.parameters, {key: str(value) for key, value in settings.items()})
    found: Iterator[Combined] = operation.run([Image(values=one) for one in images], parameters)
    return list(found)


def test_sum_and_mean_are_pixel_by_pixel_and_padding_stays() -> None:
    images = [np.arange(12.0).reshape(3, 4) * k - 5 for k in (1, 2, 4)]
    images[1][0, 0] = np.nan
    (total,), (mean,) = combined("add", images), combined("mean", images)
    assert total.sources == mean.sources == (0, 1, 2)
    assert np.array_equal(total.values, images[0] + images[1] + images[2], equal_nan=True)
    assert np.allclose(mean.values, total.values / 3, equal_nan=True)
    assert np.isnan(total.values[0, 0]) and np.isnan(total.values).sum() == 1
    assert images[0][1, 1] == 0, "sources stay what they are"


def test_a_mask_is_subtracted_from_all_others() -> None:
    images = [np.full((4, 4), value) for value in (10.0, 15.0, 40.0)]
    found = combined("subtract", images, mask=2)
    assert [(one.sources, one.values[0, 0]) for one in found] == [((0, 1), -5), ((2, 1), 25)]
    with pytest.raises(NotProcessable, match="mask is 4, of 3"):
        combined("subtract", images, mask=4)


def vessels(down: float, right: float) -> Array:
    """A background with structure, moved by parts of a pixel."""
    i, j = np.meshgrid(np.arange(96) - down, np.arange(96) - right, indexing="ij")
    bones = sum(
        a * np.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * s**2))
        for a, y, x, s in ((900, 40, 30, 9), (700, 60, 66, 7), (500, 25, 70, 12), (400, 75, 25, 8))
    )
    return np.asarray(bones)


@pytest.mark.parametrize(("shift", "way"), [("pixel", (4.0, -7.0)), ("subpixel", (2.35, -1.6))])
def test_a_mask_is_moved_to_fit(shift: str, way: tuple[float, float]) -> None:
    mask, moved = vessels(0, 0), vessels(*way)
    vessel = np.zeros((96, 96))
    vessel[30:70, 47:50] = 60
    plain = combined("subtract", [mask, moved + vessel])[0].values
    fitted = combined("subtract", [mask, moved + vessel], shift=shift)[0].values
    inside = (slice(10, -10), slice(10, -10))
    assert np.abs(plain - vessel)[inside].max() > 80
    assert np.abs(fitted - vessel)[inside].max() < 12
    with pytest.raises(NotProcessable, match="further away than max_px"):
        combined("subtract", [mask, moved], shift=shift, max_px=1)


def test_a_given_shift_by_whole_pixels_is_exact() -> None:
    mask = np.arange(30.0).reshape(5, 6)
    (found,) = combined("subtract", [mask, mask], shift="given", down_px=1, right_px=2)
    expected = np.full((5, 6), np.nan)
    expected[1:, 2:] = mask[1:, 2:] - mask[:-1, :-2]
    assert np.array_equal(found.values, expected, equal_nan=True)


def test_moving_by_parts_of_a_pixel_mixes_neighbours() -> None:
    values = np.array([[0.0, 10.0, 30.0], [np.nan, 50.0, 70.0]])
    moved = shifted(values, 0, 0.25)
    assert np.allclose(moved[0], [np.nan, 7.5, 25.0], equal_nan=True)
    assert np.allclose(moved[1], [np.nan, np.nan, 65.0], equal_nan=True)
    assert np.array_equal(shifted(values, 0, 0, (3, 3))[:2], values, equal_nan=True)
    assert np.isnan(shifted(values, 9, 0)).all()
