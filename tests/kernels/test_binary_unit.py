"""Binary units on bits: kernels equal their twins exactly, and those equal the unit's formula in floats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import binary_unit, bits, threads, use_backend, xnor

ROWS, WIDTHS, COPIES = st.integers(0, 11), st.integers(1, 150), st.integers(1, 4)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def unit(seed, rows, k, c, copies):
    """Signs (rows, k) and (n, k) as floats; and what the kernels take: words, matrix, shortcut (rows, c), table."""
    rng, n = np.random.default_rng(seed), c * copies
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    x, weight = normal(rows, k), normal(n, k)
    table = normal(7, n)
    table[xnor.PRELU] = 0.25 * table[xnor.PRELU]
    signs = [np.where(a >= 0, np.float32(1), np.float32(-1)) for a in (x, weight)]
    matrix = xnor.BinaryMatrix(bits.pack_signs(weight), k)
    return signs, (bits.pack_signs(x), matrix, normal(rows, c), table)


def both(function, *args):
    """What the kernel and its twin give, which must be the same to the last bit."""
    with use_backend("numpy"):
        plain = function(*args)
    fast = function(*args)
    for f, p in zip(fast, plain, strict=True) if isinstance(fast, tuple) else [(fast, plain)]:
        np.testing.assert_array_equal(f, p, strict=True)
    return fast


def formula(signs, x, table):
    """The unit in float64, straight from its definition."""
    scale, mean, slope, bias, shift_in, prelu, shift_out = table.astype(np.float64)
    y = (signs[0] @ signs[1].T * scale - mean) * slope + bias + np.tile(x, table.shape[1] // x.shape[1])
    t = y - shift_in
    return np.maximum(t, 0) + prelu * np.minimum(t, 0) + shift_out


@given(SEEDS, ROWS, WIDTHS, WIDTHS, COPIES)
def test_the_unit(seed, rows, k, c, copies):
    signs, arguments = unit(seed, rows, k, c, copies)
    found = both(binary_unit.unit, *arguments)
    assert found.shape == (rows, c * copies) and found.dtype == np.float32
    np.testing.assert_allclose(found, formula(signs, *arguments[2:]), rtol=1e-4, atol=1e-4)


@given(SEEDS, ROWS, WIDTHS, WIDTHS, COPIES)
def test_the_residual_sum(seed, rows, k, c, copies):
    signs, arguments = unit(seed, rows, k, c, copies)
    alpha, beta = np.random.default_rng(seed + 1).standard_normal((2, c * copies), np.float32)
    total = np.random.default_rng(seed + 2).standard_normal((rows, c * copies), np.float32)

    def added(*args):
        out = total.copy()
        binary_unit.unit_residual(*args, alpha, beta, out)
        return out

    expected = total + binary_unit.unit(*arguments) * alpha + beta
    np.testing.assert_allclose(both(added, *arguments), expected, rtol=1e-4, atol=1e-4)


@given(SEEDS, ROWS, WIDTHS, WIDTHS, COPIES, COPIES)
def test_bits_and_means_for_the_next_unit(seed, rows, k, c, copies, neighbours):
    _, arguments = unit(seed, rows, k, c * neighbours, copies)
    n = c * neighbours * copies
    move = np.random.default_rng(seed + 1).standard_normal(n, np.float32)
    width = n // neighbours
    words, means = both(binary_unit.unit_to_bits, *arguments, move, width)
    y = binary_unit.unit(*arguments)
    np.testing.assert_array_equal(bits.unpack_bits(words, n), y + move >= 0)
    np.testing.assert_allclose(means, y.reshape(rows, width, neighbours).mean(axis=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65, 127, 128, 130])
def test_every_edge_of_tiles_and_words(n):
    for rows in range(9):
        _, arguments = unit(n, rows, 70, n, 1)
        both(binary_unit.unit, *arguments)
        both(binary_unit.unit_to_bits, *arguments, np.linspace(-1, 1, n, dtype=np.float32), n)


def test_by_hand():
    """One row, K = 3, products 3 and -1; RPReLU bends the second."""
    words = bits.pack_signs(np.ones((1, 3), np.float32))
    matrix = xnor.BinaryMatrix(bits.pack_signs(np.float32([[1, 1, 1], [-1, 1, -1]])), 3)
    table = np.empty((7, 2), np.float32)
    table[xnor.SCALE], table[xnor.MEAN], table[xnor.SLOPE], table[xnor.BIAS] = 2, 1, 0.5, 0.25
    table[xnor.SHIFT_IN], table[xnor.PRELU], table[xnor.SHIFT_OUT] = 0.5, 0.1, 10
    found = both(binary_unit.unit, words, matrix, np.float32([[1]]), table)
    # (3 * 2 - 1) / 2 + 1/4 + 1 - 1/2 = 3.25, and (-1 * 2 - 1) / 2 + 1/4 + 1 - 1/2 = -0.75, of which a tenth
    np.testing.assert_allclose(found, [[13.25, 9.925]], rtol=1e-6)


def test_a_result_of_nought_is_positive_for_the_next_unit():
    """sign(0) = +1, on both sides of RPReLU's bend."""
    words, matrix = bits.pack_signs(np.ones((1, 2), np.float32)), xnor.BinaryMatrix(np.zeros((3, 1), np.uint64), 2)
    table = np.zeros((7, 3), np.float32)
    table[xnor.SHIFT_OUT] = [0, 1, -1]
    found, _ = both(binary_unit.unit_to_bits, words, matrix, np.zeros((1, 3), np.float32), table, -table[-1], 3)
    assert bits.unpack_bits(found, 3).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_change_nothing(count):
    _, arguments = unit(0, 1203, 130, 65, 2)
    threads.set_num_threads(count)
    both(binary_unit.unit, *arguments)
    both(binary_unit.unit_to_bits, *arguments, np.zeros(130, np.float32), 65)
