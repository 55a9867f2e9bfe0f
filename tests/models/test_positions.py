"""Resampled position tables against the official scripts, and what every rule of resampling promises."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from minivit.errors import UsageError
from minivit.models.positions import METHODS, grid_of, resample_positions

GOLDEN_KEYS = {"bicubic": "bicubic_plain", "bicubic_antialias": "bicubic_antialias", "linear": "linear_corner_aligned"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", range(8))
def test_the_official_scripts_agree(golden, case, method):
    arrays = golden("posembed_resample")
    old, rows, columns, prefix = arrays[f"case{case}.meta"].tolist()
    table = arrays[f"case{case}.input"]
    assert table.shape == (1, prefix + old * old, 4)
    result = resample_positions(table, (rows, columns), prefix=prefix, method=method)
    assert result.shape == (1, prefix + rows * columns, 4) and result.dtype == np.float32
    if method == "linear" and rows != columns:
        return  # the reference resizes to squares only
    expected = arrays[f"case{case}.{GOLDEN_KEYS[method]}"]
    tolerance = 1e-6 if method == "bicubic_antialias" else 1e-7
    if method == "bicubic_antialias" and case == 0:
        tolerance = 1.4e-6  # see the next test
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    np.testing.assert_array_equal(result[:, :prefix], table[:, :prefix])


def antialias_weights_in_float32(old, new):
    """``bicubic_antialias`` as PyTorch computes it for float32 tables: every step is rounded to float32."""
    one, scale = np.float32(1), np.float32(old) / np.float32(new)
    stretch, weights = max(scale, one), np.zeros((new, old), np.float32)
    for i in range(new):
        centre = scale * np.float32(i + 0.5)
        first = max(int(centre - 2 * stretch + 0.5 * one), 0)
        taps = np.arange(first, min(int(centre + 2 * stretch + 0.5 * one), old))
        u = np.abs((taps.astype(np.float32) - centre + 0.5 * one) * (one / stretch))
        a = np.float32(-0.5)
        row = np.where(u < 1, ((a + 2) * u - (a + 3)) * u * u + 1, (((u - 5) * u + 8) * u - 4) * a)
        row = np.where(u < 2, row, 0 * one)
        weights[i, taps] = row / row.sum()
    assert weights.dtype == row.dtype == np.float32
    return weights


@pytest.mark.parametrize("case", range(8))
def test_the_golden_antialiased_tables_have_weights_of_float32(golden, case):
    """In case 0 (14 to 24) ours are 1.34e-6 from the golden ones: those were computed with weights in float32, whose
    centres are off by up to 1e-6 of a pixel. With such weights all cases agree to 6e-7."""
    arrays = golden("posembed_resample")
    old, *grid, prefix = arrays[f"case{case}.meta"].tolist()
    table, expected = arrays[f"case{case}.input"], arrays[f"case{case}.bicubic_antialias"][:, prefix:]
    image = table[:, prefix:].astype(np.float64).reshape(old, old, 4)
    rows, columns = (antialias_weights_in_float32(old, new).astype(np.float64) for new in grid)
    found = np.einsum("rh,cw,hwd->rcd", rows, columns, image).reshape(1, -1, 4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_constant_stays_constant(method, old, new):
    matrix = METHODS[method](old, new)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(1, 40), st.integers(2, 40))
def test_turning_the_grid_round_turns_the_result_round(method, old, new):
    matrix = METHODS[method](old, new)
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", [1, 2, 7, 14])
def test_the_same_grid_changes_nothing(method, side):
    np.testing.assert_array_equal(METHODS[method](side, side), np.eye(side))


@pytest.mark.parametrize("method, offset", [("linear", 0), ("bicubic_antialias", 0.5)])
def test_a_straight_line_stays_one_inside(method, offset):
    old, new = 12, 20
    matrix = METHODS[method](old, new)
    scale = (old - 1) / (new - 1) if method == "linear" else old / new
    line = (np.arange(new) + offset) * scale - offset
    np.testing.assert_allclose((matrix @ np.arange(old))[4:-4], line[4:-4], rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(12, 10), (3, 9), (14, 2)])
def test_linear_is_the_zoom_of_the_augreg_script(grid):
    table = np.random.default_rng(0).standard_normal((1, 50, 3))
    zoomed = scipy.ndimage.zoom(table[0, 1:].reshape(7, 7, 3), (grid[0] / 7, grid[1] / 7, 1), order=1)
    result = resample_positions(table, grid, prefix=1, method="linear")
    np.testing.assert_allclose(result[0, 1:].reshape(*grid, 3), zoomed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_maps_and_tables_are_resized_alike(method):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 5, 6, 6))
    table = image.transpose(0, 2, 3, 1).reshape(1, 36, 5)
    resized = resample_positions(image, (9, 4), method=method)
    assert resized.shape == (1, 5, 9, 4) and resized.dtype == np.float64
    rows = resample_positions(table, (9, 4), method=method)
    np.testing.assert_allclose(rows, resized.transpose(0, 2, 3, 1).reshape(1, 36, 5), rtol=0, atol=1e-14)
    oblong = resample_positions(image[:, :, :2], (2, 3), method=method)  # a map says itself how it is shaped
    np.testing.assert_allclose(oblong, image[:, :, :2] @ METHODS[method](6, 3).T, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("new", [(4, 4), (6, 6), (4, 16)])
def test_a_known_grid_need_not_be_square(method, new):
    table = np.random.default_rng(0).standard_normal((1, 2 + 2 * 8, 3))
    image = table[:, 2:].reshape(1, 2, 8, 3).transpose(0, 3, 1, 2)  # a map says itself how it is shaped
    result = resample_positions(table, new, prefix=2, method=method, old_grid=(2, 8))
    expected = resample_positions(image, new, method=method).transpose(0, 2, 3, 1).reshape(1, -1, 3)
    np.testing.assert_array_equal(result[:, 2:], expected)
    np.testing.assert_array_equal(result[:, :2], table[:, :2])
    square = resample_positions(table, new, prefix=2, method=method)
    assert np.abs(result - square).max() > 0.1


@pytest.mark.parametrize(
    "shape, prefix, known, expected",
    [
        ((1, 17, 4), 1, None, (4, 4)),
        ((1, 17, 4), 1, (2, 8), (2, 8)),
        ((1, 17, 4), 1, (2, 9), None),
        ((1, 16, 4), 1, None, None),
        ((1, 15, 4), 0, (5, 3), (5, 3)),
        ((1, 4, 2, 8), 0, None, (2, 8)),
        ((1, 1, 4), 1, None, None),
        ((1, 1, 4), 1, (0, 3), None),
    ],
)
def test_the_grid_of_a_table(shape, prefix, known, expected):
    assert grid_of(shape, prefix, known) == expected


@pytest.mark.parametrize(
    "shape, prefix",
    [
        ((1, 10, 4), 2),
        ((1, 2, 4), 2),
        ((1, 1, 4), 2),
        ((2, 9, 4), 0),
        ((9, 4), 0),
        ((2, 4, 3, 3), 0),
        ((1, 4, 0, 3), 0),
    ],
)
def test_what_is_no_table_of_a_square_grid(shape, prefix):
    assert resample_positions(np.zeros(shape, np.float32), (4, 4), prefix=prefix) is None


def test_an_unknown_method_names_the_near_ones():
    with pytest.raises(UsageError, match="'bicubik'.*did you mean 'bicubic'"):
        resample_positions(np.zeros((1, 9, 4)), (4, 4), method="bicubik")
