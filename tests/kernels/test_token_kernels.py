"""Kernels of binary networks equal their NumPy twins, for any strides; threads change no bit of what they round."""

import numpy as np
import pytest
from exact_twins import both, run_apart, spoiled
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import pooling, rows, straight_through, threads, tokens, use_backend

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)
ROWS, CHANNELS = st.integers(0, 200), st.sampled_from([1, 3, 16, 65])
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # relative to the largest entry of result or input: sums cancel


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


def normal(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def agree(function, *args, exact=False):
    """The kernel equals the twin, on one thread and on three, with the dtype of the first argument."""
    results = []
    for backend, count in (("numpy", 1), ("numba", 1), ("numba", 3)):
        threads.set_num_threads(count)
        with use_backend(backend):
            result = function(*args)
        results.append(result if isinstance(result, tuple) else (result,))
    for plain, *fast in zip(*results, strict=True):
        for found in fast:
            assert found.dtype == plain.dtype == args[0].dtype and found.shape == plain.shape
            largest = max(np.abs(plain).max(initial=0), np.abs(args[0]).max(initial=0))
            bound = 0 if exact else TOLERANCE[args[0].dtype.type] * largest
            np.testing.assert_allclose(found, plain, rtol=0, atol=bound)


def layouts(*arrays):
    yield arrays
    yield tuple(np.asfortranarray(a)[::-1] for a in arrays)


@DTYPES
@given(SEEDS, ROWS, CHANNELS)
def test_batch_norm(dtype, seed, r, c):
    r += 2
    x, g, weight, bias = normal(seed, dtype, (r, c), (r, c), c, c)
    mean, rstd = x.mean(0), 1 / (x.std(0) + dtype(0.1))
    for a, b in layouts(x, g):
        agree(tokens.statistics, a)
        agree(tokens.normalize, a, mean, rstd, weight, bias)
        for own in (True, False):
            agree(tokens.normalize_backward, b, a, mean, rstd, weight, own)


def test_statistics_of_many_rows_stay_exact():
    """A running sum in float32 would stop growing at 2^24 / 1000."""
    x = np.full((1 << 17, 2), 1000, np.float32)
    x[::2] += 1
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            mean, variance = tokens.statistics(x)
        np.testing.assert_allclose(mean, 1000.5, rtol=1e-6)
        np.testing.assert_allclose(variance, 0.25, rtol=1e-3)


def test_sums_over_many_tokens_stay_exact():
    """Of numbers of one sign, the error of a running sum in float32 grows with their number: here to 1e-5."""
    g = np.random.default_rng(0).random((2000, 8, 8, 2), np.float32)
    expected = g.sum(axis=(0, 1, 2), dtype=np.float64)
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            np.testing.assert_allclose(rows.column_sums(g.reshape(-1, 2)), expected, rtol=1e-6)
            np.testing.assert_allclose(pooling.cross_weights(g, np.ones_like(g))[0], expected, rtol=1e-6)


@DTYPES
@given(SEEDS, ROWS, CHANNELS)
def test_rprelu(dtype, seed, r, c):
    x, g, *vectors = normal(seed, dtype, (r, c), (r, c), c, c, c)
    for a, b in layouts(x, g):
        agree(tokens.rprelu, a, *vectors)
        agree(tokens.rprelu_backward, b, a, *vectors[:2])


@DTYPES
@given(SEEDS, ROWS, CHANNELS, st.booleans())
def test_sign(dtype, seed, r, c, clipped):
    x, g, shift = normal(seed, dtype, (r, c), (r, c), c)
    x[::3] = -shift  # exact zeros
    for a, b in layouts(x, g):
        agree(straight_through.sign, a, shift, exact=True)
        agree(straight_through.sign_backward, b, a, shift, clipped)


@DTYPES
@given(SEEDS, st.integers(1, 40), st.integers(1, 200), st.booleans(), st.sampled_from([1e-3, 1.0]))
def test_binary_weight(dtype, seed, o, k, centred, spread):
    weight, g = normal(seed, dtype, (o, k), (o, k))
    weight *= dtype(spread)
    exact = dtype is np.float32  # means are summed in float64: their last digits are lost on the way to float32
    for w, b in layouts(weight, g):
        agree(straight_through.binary_weight, w, centred, exact=exact)
        mean = straight_through.binary_weight_numpy(w, centred)[1]
        agree(straight_through.binary_weight_backward, b, w, mean, centred)


@DTYPES
@given(SEEDS, st.integers(0, 3), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3, 17]))
def test_pooling_cross(dtype, seed, b, h, w, c):
    x, g, weights, bias = normal(seed, dtype, (b, h, w, c), (b, h, w, c), (5, c), c)
    for a, d in layouts(x, g):
        agree(pooling.cross, a, weights, bias, exact=True)
        agree(pooling.cross_weights, d, a)
    moved = np.sum(pooling.cross(x, weights, 0 * bias) * g)  # <A x, g> = <x, A g>: it is its own transpose
    np.testing.assert_allclose(moved, np.sum(x * pooling.cross(g, weights, 0 * bias)), rtol=1e-3, atol=1e-3)


@DTYPES
@given(SEEDS, st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.sampled_from([1, 3, 17]), st.integers(1, 3))
def test_cell_means(dtype, seed, b, h, w, c, size):
    (x,) = normal(seed, dtype, (b, h * size, w * size, c))
    for (a,) in layouts(x):
        agree(pooling.cell_means, a, size, exact=True)


def test_what_is_there_stays_in_a_sum_with_cross():
    x, weights, bias, total = normal(0, np.float32, (2, 5, 4, 3), (5, 3), 3, (2, 5, 4, 3))
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            expected = total + pooling.cross(x, weights, bias)
            out = total.copy()
            assert pooling.cross(x, weights, bias, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_special_values_come_through_alike():
    for seed in range(20):
        x, weights, bias = normal(seed, np.float32, (2, 4, 6, 5), (5, 5), 5)
        x, bias = spoiled(x, seed), spoiled(bias, seed)
        for function, *args in ((pooling.cross, x, weights, bias), (pooling.cell_means, x, 2)):
            assert np.isnan(both(function, *args)).any()


@DTYPES
@given(SEEDS, ROWS, st.integers(0, 70))
def test_row_sums(dtype, seed, r, d):
    (x,) = normal(seed, dtype, (r, d))
    for (a,) in layouts(x):
        agree(rows.row_sums, a, exact=True)
        np.testing.assert_allclose(rows.row_sums(a), a.sum(-1, dtype=np.float64), rtol=1e-5, atol=1e-5)


def test_without_the_compiler():
    """NumPy's numbers keep to float32 where Numba's do not: the means of weights must be float64 in both."""
    run_apart(
        """
import numpy as np
from minivit.kernels import pooling, rows, straight_through, tokens
rng = np.random.default_rng(0)
normal = lambda *shape: rng.standard_normal(shape, np.float32)
def equal(name, *args, exact=False):
    module = next(m for m in (pooling, rows, straight_through, tokens) if hasattr(m, name))
    fast, plain = getattr(module, name)(*args), getattr(module, name + "_numpy")(*args)
    for f, p in zip(fast, plain, strict=True) if isinstance(fast, tuple) else [(fast, plain)]:
        assert f.shape == p.shape and f.dtype == p.dtype, name
        np.testing.assert_allclose(f, p, rtol=0, atol=0 if exact else 1e-4, err_msg=name)
x, g, vectors = normal(67, 9), normal(67, 9), normal(4, 9)
equal("sign", x, vectors[0], exact=True)
for mode in (True, False):
    equal("sign_backward", g, x, vectors[0], mode)
    equal("binary_weight", normal(3, 2000) + 10, mode, exact=True)
    equal("binary_weight_backward", g, x, x.mean(1), mode)
    equal("normalize_backward", g, x, *vectors[:3], mode)
equal("statistics", x)
equal("normalize", x, *vectors)
equal("rprelu", x, *vectors[:3], exact=True)
equal("rprelu_backward", g, x, *vectors[:2])
for width in (1, 3, 9):
    equal("mean_neighbours", x, width, exact=True)
equal("mean_neighbours", normal(5, 16), 4, exact=True)
equal("mean_neighbours", normal(5, 16), 2, exact=True)
image = normal(2, 4, 6, 9)
equal("cross", image, normal(5, 9), vectors[0], exact=True)
equal("cross_weights", image, normal(2, 4, 6, 9))
equal("cell_means", image, 2, exact=True)
equal("row_sums", x, exact=True)
equal("column_sums", x)
equal("layer_norm", x, *vectors[:2], 1e-5)
equal("layer_norm_backward", g, x, vectors[0], x.mean(1), 1 / x.std(1))
print("done")
""",
        NUMBA_DISABLE_JIT="1",
    )
