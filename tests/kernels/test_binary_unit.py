"""Binary units on bits: kernels equal their twins exactly, and those equal the unit's formula in floats."""

import numpy as np
import pytest
from exact_twins import assert_identical, both, layouts, run_apart, spoiled
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


def formula(signs, x, table):
    """The unit in float64, straight from its definition."""
    scale, mean, slope, bias, shift_in, prelu, shift_out = table.astype(np.float64)
    y = (signs[0] @ signs[1].T * scale - mean) * slope + bias + np.tile(x, table.shape[1] // x.shape[1])
    t = y - shift_in
    return np.maximum(t, 0) + prelu * np.minimum(t, 0) + shift_out


def added(total, *args):
    """``unit_residual`` on a copy of ``total``."""
    out = total.copy()
    binary_unit.unit_residual(*args, out)
    return out


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
    expected = total + (binary_unit.unit(*arguments) * alpha + beta)
    assert_identical(both(added, total, *arguments, alpha, beta), expected)
    plain = total.copy()
    binary_unit.unit_residual_numpy(*arguments, alpha, beta, plain)
    assert_identical(plain, expected)


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
    zeros, total = np.zeros(130, np.float32), np.ones((1203, 130), np.float32)
    threads.set_num_threads(count)
    both(binary_unit.unit, *arguments)
    both(binary_unit.unit_to_bits, *arguments, zeros, 65)
    both(added, total, *arguments, total[0], zeros)


# --- whatever may come in ----------------------------------------------------------------------------------------


def calls(matrix, n):
    """The three kernels of words and floats: shortcut, table, and a row of the channels' constants."""
    total = np.linspace(-1, 1, 9 * n, dtype=np.float32).reshape(9, n)
    return [
        lambda words, x, table, row: binary_unit.unit(words, matrix, x, table),
        lambda words, x, table, row: added(total, words, matrix, x, table, row, row),
        lambda words, x, table, row: binary_unit.unit_to_bits(words, matrix, x, table, row, n // 2),
    ]


@pytest.mark.parametrize("c, copies", [(64, 1), (70, 1), (64, 2), (35, 2)])
def test_layouts_and_dtypes_change_nothing(c, copies):
    _, (words, matrix, x, table) = unit(0, 9, 200, c, copies)
    for function in calls(matrix, c * copies):
        expected = both(function, words, x, table, table[0])
        in_float64 = [words, *(a.astype(np.float64) for a in (x, table, table[0]))]
        for others in (*layouts(words, x, table, table[0]), in_float64):
            found = both(function, *others)
            for f, e in zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]:
                np.testing.assert_array_equal(f, e, strict=True)
    flipped = both(binary_unit.unit, words[::-1], matrix, x[::-1], table)
    np.testing.assert_array_equal(flipped[::-1], binary_unit.unit(words, matrix, x, table))


@pytest.mark.parametrize("c, copies", [(64, 1), (35, 2)])
def test_special_values_come_through_alike(c, copies):
    _, (words, matrix, x, table) = unit(0, 9, 200, c, copies)
    for seed in range(20):
        bad = [spoiled(a, seed + i) for i, a in enumerate((x, table, table[0]))]
        for function in calls(matrix, c * copies):
            both(function, words, *bad)
        assert np.isnan(both(calls(matrix, c * copies)[0], words, bad[0], table, table[0])).any()


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_arguments_that_do_not_fit_are_refused(backend):
    """Fewer words, rows or channels would be read from beyond the arrays."""
    _, (words, matrix, x, table) = unit(0, 9, 200, 64, 1)
    nothing = xnor.BinaryMatrix(matrix.words[:0], 200)
    with use_backend(backend):
        for function in calls(matrix, 64):
            for w, *floats in (
                (words[:, :3], x, table, table[0]),
                (words[:8], x, table, table[0]),
                (words[0], x, table, table[0]),
                (words.astype(np.int64), x, table, table[0]),
                (words.astype(">u8"), x, table, table[0]),
                (words, x[:8], table, table[0]),
                (words, x[:, :48], table, table[0]),
                (words, x[:, :0], table, table[0]),
                (words, np.tile(x, 2), table, table[0]),
                (words, x, table[:6], table[0]),
                (words, x, table[:, :32], table[0]),
            ):
                with pytest.raises(ValueError):
                    function(w, *floats)
        for function in calls(matrix, 64)[1:]:
            with pytest.raises(ValueError, match="constants for 64 channels"):
                function(words, x, table, table[0, :32])
        with pytest.raises(ValueError, match="a sum of shape"):
            binary_unit.unit_residual(words, matrix, x, table, table[0], table[0], np.zeros((9, 128), np.float32))
        for width in (0, 48, 128):
            with pytest.raises(ValueError, match=f"64 channels are no multiple of {width}"):
                binary_unit.unit_to_bits(words, matrix, x, table, table[0], width)
        for shortcut in (x, x[:, :0]):
            with pytest.raises(ValueError, match="0 channels"):
                binary_unit.unit(words, nothing, shortcut, table[:, :0])


# --- other compilers' code ---------------------------------------------------------------------------------------

CODE = """
import numpy as np
from minivit.kernels import binary_unit, bits, xnor
rng = np.random.default_rng(0)
normal = lambda *shape: rng.standard_normal(shape, np.float32)
def same(found, expected):
    assert found.dtype == expected.dtype and (found == expected).all()
for rows, k, c, copies in [(1, 1, 1, 1), (5, 65, 33, 2), (4, 128, 64, 1), (7, 200, 6, 3), (0, 3, 5, 1)]:
    n, x = c * copies, normal(rows, k)
    a, b = bits.pack_signs(x, normal(k)), xnor.BinaryMatrix(bits.pack_signs(normal(n, k)), k)
    same(bits.pack_signs(x), bits.pack_signs_numpy(x))
    same(xnor.xnor_gemm(a, b), xnor.xnor_gemm_numpy(a, b))
    arguments, (alpha, beta), out = (a, b, normal(rows, c), normal(7, n)), normal(2, n), normal(rows, n)
    same(binary_unit.unit(*arguments), binary_unit.unit_numpy(*arguments))
    if not whole:
        continue
    for found, expected in zip(binary_unit.unit_to_bits(*arguments, alpha, c),
                               binary_unit.unit_to_bits_numpy(*arguments, alpha, c)):
        same(found, expected)
    plain = out.copy()
    binary_unit.unit_residual(*arguments, alpha, beta, out)
    binary_unit.unit_residual_numpy(*arguments, alpha, beta, plain)
    same(out, plain)
print("done")
"""


def test_without_the_compiler():
    run_apart("whole = True" + CODE, NUMBA_DISABLE_JIT="1")


def test_on_another_cpu(tmp_path):
    """One without the vectors of this one: the tile and the comparison are compiled to other instructions."""
    run_apart("whole = False" + CODE, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
