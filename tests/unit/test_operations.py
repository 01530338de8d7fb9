"""Operations on one image: each equals a plain formula of its own, in its units, whatever is padding."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from skimage import exposure, feature

from processing.operations.operation import (
    Image,
    Kind,
    NotProcessable,
    Operation,
    SpacingUnknown,
    run_on_image,
)
from processing.operations.parameters import ParameterRefused, read, rules, told
from processing.operations.registry import OPERATIONS
from tests.unit.test_process_samples import IMAGES, sample, values_of

Array = npt.NDArray[Any]
SPACING = (0.8, 0.5)
REAL = {"CT": "CT, JPEG Lossless", "MR": "MR, big endian"}


@pytest.fixture(scope="module", params=["phantom", "CT", "MR"])
def picture(request: pytest.FixtureRequest) -> Array:
    """Steps, a ramp and noise, of values below and above zero; or the middle of a real image."""
    if request.param != "phantom":
        folder = request.getfixturevalue("samples")
        whole = values_of(sample(folder, IMAGES[REAL[request.param]]))
        row, column = whole.shape[0] // 2 - 12, whole.shape[1] // 2 - 15
        return whole[row : row + 24, column : column + 30]
    rng = np.random.default_rng(7)
    values = rng.normal(0, 20, (24, 30)) + np.arange(30) * 3.0 - 200
    values[6:14, 8:20] += 300
    return values


def run(name: str, values: Array, spacing: Any = SPACING, **settings: object) -> Array:
    operation = OPERATIONS[name]
    parameters = read(operation.parameters, {key: str(value) for key, value in settings.items()})
    return run_on_image(operation, Image(values=values, spacing_mm=spacing), parameters)


def around(values: Array, row: int, column: int, reach: int) -> Array:
    """The neighbourhood of a pixel, the edge repeated."""
    rows = [min(max(i, 0), values.shape[0] - 1) for i in range(row - reach, row + reach + 1)]
    columns = [
        min(max(j, 0), values.shape[1] - 1) for j in range(column - reach, column + reach + 1)
    ]
    return values[np.ix_(rows, columns)]


def each(values: Array, reach: int, formula: Any) -> Array:
    """Apply a formula to the neighbourhood of every pixel, one by one."""
    result = np.empty(values.shape)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            result[i, j] = formula(around(values, i, j, reach))
    return result


def kernel(sigma: tuple[float, float], reach: int) -> Array:
    """A Gaussian, normalised along each axis where scipy cuts it: at four standard deviations."""
    at = np.arange(-reach, reach + 1)
    sides = []
    for one in sigma:
        side = np.exp(-(at**2) / (2 * one**2))
        side[np.abs(at) > int(4 * one + 0.5)] = 0
        sides.append(side / side.sum())
    return np.outer(*sides)


def test_mean_and_median_are_those_of_the_neighbourhood(picture: Array) -> None:
    assert np.allclose(run("smooth-mean", picture, size_px=5), each(picture, 2, np.mean))
    assert np.array_equal(run("median", picture, size_px=3), each(picture, 1, np.median))


def test_a_gaussian_is_as_wide_in_mm_along_both_axes(picture: Array) -> None:
    weights = kernel((1.2 / 0.8, 1.2 / 0.5), 10)
    expected = each(picture, 10, lambda there: (there * weights).sum())
    assert np.allclose(run("gaussian", picture, sigma=1.2), expected)
    square = kernel((1.2, 1.2), 5)
    expected = each(picture, 5, lambda there: (there * square).sum())
    assert np.allclose(run("gaussian", picture, None, sigma=1.2, unit="px"), expected)


def test_a_bilateral_filter_weighs_by_distance_and_difference(picture: Array) -> None:
    at = np.arange(-3, 4)
    near = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))

    def formula(there: Array) -> float:
        weights = near * np.exp(-((there - there[3, 3]) ** 2) / (2 * 40.0**2))
        return float((weights * there).sum() / weights.sum())

    found = run("bilateral", picture, None, sigma=1.5, sigma_value=40, unit="px")
    assert np.allclose(found, each(picture, 3, formula))


def test_non_local_means_weigh_patches_by_their_squared_difference(picture: Array) -> None:
    """Patch side 5, looked for within 4 pixels, strength 60; inside, where no edge is mirrored."""
    found = run("nlm", picture, patch_px=5, distance_px=4, strength=60)
    for row, column in ((9, 9), (12, 15), (7, 20)):
        here = picture[row - 2 : row + 3, column - 2 : column + 3]
        total = weights = 0.0
        for i in range(row - 4, row + 5):
            for j in range(column - 4, column + 5):
                there = picture[i - 2 : i + 3, j - 2 : j + 3]
                difference = ((there - here) ** 2).mean() / 60**2
                weight = math.exp(-difference)
                total += weight * picture[i, j]
                weights += weight
        assert math.isclose(found[row, column], total / weights, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("name", "across"), [("sobel", (1, 2, 1)), ("prewitt", (1, 1, 1)), ("scharr", (3, 10, 3))]
)
def test_gradients_are_slopes_per_mm(picture: Array, name: str, across: tuple[int, ...]) -> None:
    weights = np.array(across) / sum(across)

    def formula(there: Array) -> float:
        down = (weights @ (there[2] - there[0])) / (2 * 0.8)
        right = ((there[:, 2] - there[:, 0]) @ weights) / (2 * 0.5)
        return math.hypot(down, right)

    assert np.allclose(run(name, picture), each(picture, 1, formula))
    ramp = np.add.outer(np.arange(9) * 0.8 * 3, np.arange(9) * 0.5 * 4)
    assert np.allclose(run(name, ramp)[1:-1, 1:-1], 5.0)


def test_a_directional_derivative_has_a_sign() -> None:
    ramp = np.add.outer(np.arange(9) * 0.8 * 3, np.arange(9) * 0.5 * 4)
    inside = (slice(1, -1), slice(1, -1))
    for angle, slope in ((0, 4), (90, 3), (180, -4), (-90, -3), (45, 7 / math.sqrt(2))):
        assert np.allclose(run("directional", ramp, angle_deg=angle)[inside], slope)


def test_second_derivatives_are_per_square_mm(picture: Array) -> None:
    def formula(there: Array) -> float:
        down = there[0, 1] - 2 * there[1, 1] + there[2, 1]
        right = there[1, 0] - 2 * there[1, 1] + there[1, 2]
        return float(down / 0.8**2 + right / 0.5**2)

    assert np.allclose(run("laplacian", picture), each(picture, 1, formula))
    rows, columns = np.arange(41) * 0.8, np.arange(41) * 0.5
    bowl = np.add.outer(rows**2, 2 * columns**2)
    assert np.isclose(run("log", bowl, sigma=1.0)[20, 20], 6.0, rtol=2e-3)


def test_zero_crossings_are_where_the_sign_of_the_log_changes(picture: Array) -> None:
    second = run("log", picture, sigma=1.0)
    edges = run("zero-crossing", picture, sigma=1.0, threshold=30)
    expected = np.zeros(picture.shape)
    for i in range(picture.shape[0]):
        for j in range(picture.shape[1]):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k < picture.shape[0] and m < picture.shape[1]:
                    signs = (second[i, j] < 0) != (second[k, m] < 0)
                    if signs and abs(second[i, j] - second[k, m]) >= 30:
                        expected[i, j] = 1
    assert np.array_equal(edges, expected)
    assert 0 < edges.sum() < edges.size / 2


def test_canny_follows_the_outline_of_a_step() -> None:
    step = np.zeros((40, 40))
    step[10:30, 12:28] = 1000
    edges = run("canny", step, sigma_px=1, low=100, high=300)
    reference = feature.canny(step, sigma=1, low_threshold=100, high_threshold=300)
    assert np.array_equal(edges[3:-3, 3:-3], reference[3:-3, 3:-3])
    assert edges[9:11, 20].any() and edges[20, 11:13].any() and not edges[15:25, 16:24].any()
    with pytest.raises(NotProcessable, match="high is below low"):
        run("canny", step, low=5, high=4)


def test_passes_are_those_of_the_mirrored_image_in_the_frequency_domain(picture: Array) -> None:
    """Reference: the plain Fourier transform of the image mirrored into four."""
    mirrored = np.block([[picture, picture[:, ::-1]], [picture[::-1], picture[::-1, ::-1]]])
    down = np.fft.fftfreq(mirrored.shape[0], SPACING[0])[:, None]
    right = np.fft.fftfreq(mirrored.shape[1], SPACING[1])[None, :]
    frequency = np.sqrt(down**2 + right**2)

    def low(period: float) -> Array:
        gain = 0.5 ** ((frequency * period) ** 2)
        whole = np.fft.ifft2(np.fft.fft2(mirrored) * gain).real
        return whole[: picture.shape[0], : picture.shape[1]]

    assert np.allclose(run("low-pass", picture, period=3), low(3))
    assert np.allclose(run("high-pass", picture, period=3), picture - low(3))
    assert np.allclose(run("band-pass", picture, shorter=2, longer=6), low(2) - low(6))
    with pytest.raises(NotProcessable):
        run("band-pass", picture, shorter=6, longer=6)


def test_a_period_at_the_edge_of_a_pass_keeps_half() -> None:
    wave = np.tile(np.cos(2 * np.pi * (np.arange(64) + 0.5) / 8), (16, 1))
    assert np.allclose(run("low-pass", wave, None, period=8, unit="px"), wave / 2)


def test_an_unsharp_mask_adds_what_smoothing_takes_away(picture: Array) -> None:
    smoothed = run("gaussian", picture, sigma=1.5)
    expected = picture + 0.7 * (picture - smoothed)
    assert np.allclose(run("unsharp", picture), expected)
    assert np.array_equal(run("unsharp", picture, amount=0), picture)


def test_equalisation_is_that_of_scikit_image_and_leaves_padding_out(picture: Array) -> None:
    expected = exposure.equalize_hist(picture, nbins=256)
    assert np.allclose(run("equalize", picture, bins=256), expected)
    padded = picture.copy()
    padded[:, :9] = np.nan
    expected = exposure.equalize_hist(picture[:, 9:], nbins=256)
    assert np.allclose(run("equalize", padded, bins=256)[:, 9:], expected)


def test_clahe_is_that_of_scikit_image_on_the_values_scaled(picture: Array) -> None:
    unit = (picture - picture.min()) / np.ptp(picture)
    expected = exposure.equalize_adapthist(unit, kernel_size=(6, 7), clip_limit=0.02, nbins=64)
    assert np.allclose(run("clahe", picture, tiles=4, clip=0.02, bins=64), expected)
    assert not run("clahe", np.full((32, 32), 5.0)).any()
    with pytest.raises(NotProcessable, match="too few pixels"):
        run("clahe", picture, tiles=20)


def test_windows_are_those_of_the_standard() -> None:
    values = np.array([[-160.0, -159.9, 39.5, 40.0, 239.0, 500.0]])
    linear = run("window", values, center=40, width=400)
    expected = [0.0, (-159.9 - 39.5) / 399 + 0.5, 0.5, 0.5 / 399 + 0.5, 1.0, 1.0]
    assert np.allclose(linear, [expected])
    exact = run("window", values, center=40, width=400, function="linear-exact")
    assert np.allclose(exact, [[0, 0.1 / 400, 199.5 / 400, 0.5, 399 / 400, 1]])
    sigmoid = run("window", np.array([[40.0, 140.0, -1e9]]), function="sigmoid")
    assert np.allclose(sigmoid, [[0.5, 1 / (1 + math.exp(-1)), 0]])
    assert run("window", values, center=40, width=1).tolist() == [[0, 0, 0, 1, 1, 1]]
    with pytest.raises(NotProcessable, match="at least 1 wide"):
        run("window", values, width=0.5)


def test_resizing_keeps_the_field_of_view() -> None:
    ramp = np.add.outer(np.arange(20.0), np.arange(30.0) * 2)
    larger = run("resize", ramp, factor=2)
    assert larger.shape == (40, 60)
    at = (np.arange(40) + 0.5) / 2 - 0.5, (np.arange(60) + 0.5) / 2 - 0.5
    assert np.allclose(larger[1:-1, 1:-1], np.add.outer(at[0], at[1] * 2)[1:-1, 1:-1])
    smaller = run("resize", ramp, factor=0.5)
    assert smaller.shape == (10, 15)
    assert np.allclose(smaller[3:-3, 3:-3], (ramp[::2, ::2] + 1.5)[3:-3, 3:-3])
    nearest = run("resize", ramp, factor=3, interpolation="nearest")
    assert np.array_equal(nearest, ramp.repeat(3, 0).repeat(3, 1))
    with pytest.raises(NotProcessable):
        run("resize", np.zeros((600, 600)), factor=16)


IMAGE_OPERATIONS = [one for one in OPERATIONS.values() if one.kind is Kind.IMAGE]


@pytest.mark.parametrize("operation", IMAGE_OPERATIONS, ids=lambda one: one.name)
def test_padding_stays_padding_and_tells_nothing(picture: Array, operation: Operation) -> None:
    """What a scanner wrote outside of its field changes no measured pixel."""
    padded = picture.copy()
    padded[:5] = np.nan
    image = Image(values=padded, spacing_mm=SPACING)
    result = run_on_image(operation, image, operation.parameters())
    where = np.isnan(padded)
    if result.shape != padded.shape:
        where = where[1::2, 1::2]
    assert np.array_equal(np.isnan(result), where)
    nothing = Image(values=np.full((24, 30), np.nan), spacing_mm=SPACING)
    assert np.isnan(run_on_image(operation, nothing, operation.parameters())).all()


@pytest.mark.parametrize("operation", IMAGE_OPERATIONS, ids=lambda one: one.name)
def test_mm_are_not_guessed(picture: Array, operation: Operation) -> None:
    image = Image(values=picture)
    if "unit" not in rules(operation.parameters):
        assert run_on_image(operation, image, operation.parameters()).size
        return
    with pytest.raises(SpacingUnknown):
        run_on_image(operation, image, operation.parameters())
    assert run_on_image(operation, image, read(operation.parameters, {"unit": "px"})).size


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda one: one.name)
def test_codes_are_those_of_the_standard(operation: Operation) -> None:
    assert operation.summary.endswith(".")
    if operation.code is not None:
        (listed,) = (
            one for one in cid_concepts[7203]["DCM"] if operation.code.value in concepts["DCM"][one]
        )
        assert concepts["DCM"][listed][operation.code.value][0] == operation.code.meaning


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda one: one.name)
def test_parameters_survive_being_told(operation: Operation) -> None:
    parameters = operation.parameters()
    assert read(operation.parameters, dict(told(parameters))) == parameters


HOSTILE = ["", "nan", "inf", "-1e999", "1e400", "-1", "0x10", "None", "9" * 100, "1;2", "٣", "\0"]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda one: one.name)
def test_hostile_parameters_are_refused_or_within_bounds(operation: Operation) -> None:
    for text in HOSTILE:
        for name, rule in rules(operation.parameters).items():
            try:
                value = getattr(read(operation.parameters, {name: text}), name)
            except ParameterRefused:
                continue
            assert rule.least <= value <= rule.most and math.isfinite(value)
        with pytest.raises(ParameterRefused, match="no such parameter"):
            read(operation.parameters, {"__class__": text})


def test_bounds_hold_for_whoever_makes_parameters() -> None:
    median = OPERATIONS["median"].parameters
    for size in (2, 4, 33, 3.0, True, "3"):
        with pytest.raises(ParameterRefused, match="odd"):
            median(size_px=size)
    with pytest.raises(ParameterRefused, match="a number from"):
        OPERATIONS["gaussian"].parameters(sigma=math.nan)
