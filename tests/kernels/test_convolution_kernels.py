"""The kernels of convolutional networks equal their twins, for any sizes and any number of threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import channels, convolution, relu, threads, windows

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.num_threads()
    yield
    threads.set_num_threads(before)


@st.composite
def geometries(draw):
    """(Windows, groups, output channels of a group)."""
    groups, b, c = draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(st.integers(1, 3))
    kernel, stride, padding = (tuple(draw(st.integers(least, 3)) for _ in range(2)) for least in (1, 1, 0))
    size = [draw(st.integers(max(1, k - 2 * p), 9)) for k, p in zip(kernel, padding)]
    return windows.Windows((b, groups * c, *size), kernel, stride, padding), groups, draw(st.integers(1, 3))


def close(fast, plain, dtype, scale=1.0):
    assert fast.shape == plain.shape and fast.dtype == plain.dtype == dtype
    np.testing.assert_allclose(fast, plain, rtol=0, atol=32 * np.finfo(dtype).eps * scale)


@DTYPES
@given(geometries(), SEEDS)
def test_windows(dtype, geometry, seed):
    w, rng = geometry[0], np.random.default_rng(seed)
    x = rng.standard_normal(w.shape).astype(dtype)
    fast = windows.unfold(x[:, :, ::-1], w)
    np.testing.assert_array_equal(fast, windows.unfold_numpy(x[:, :, ::-1], w))
    g = rng.standard_normal(fast.shape).astype(dtype)
    before = g.copy()
    close(windows.fold(g, w), windows.fold_numpy(g, w), dtype)
    np.testing.assert_array_equal(g, before)


@DTYPES
@given(geometries(), SEEDS, st.booleans())
def test_convolution(dtype, geometry, seed, has_bias):
    (w, groups, per_group), rng = geometry, np.random.default_rng(seed)
    weight = rng.standard_normal((groups * per_group, w.shape[1] // groups, *w.kernel)).astype(dtype)
    bias = rng.standard_normal(len(weight)).astype(dtype) if has_bias else None
    x = rng.standard_normal(w.shape).astype(dtype)[..., ::-1]
    out = convolution.conv2d(x, weight, bias, w, groups)
    close(out, convolution.conv2d_numpy(x, weight, bias, w, groups), dtype, 9)
    g = rng.standard_normal(out.shape).astype(dtype)[:, ::-1]
    args = g, weight, w, groups
    close(convolution.conv2d_input(*args), convolution.conv2d_input_numpy(*args), dtype, 9)
    args = g, x, w, groups
    close(convolution.conv2d_weight(*args), convolution.conv2d_weight_numpy(*args), dtype, 64)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape, kernel", [((9, 4, 20, 20), 3), ((300, 8, 1, 1), 1), ((40, 6, 6, 6), 3)])
def test_convolution_in_chunks_on_several_threads(shape, kernel, count):
    """More images than fit a chunk, and a last chunk that is not full."""
    threads.set_num_threads(count)
    rng, w = np.random.default_rng(0), windows.Windows(shape, kernel, 1, kernel // 2)
    weight = rng.standard_normal((5, shape[1], kernel, kernel))
    x, g = rng.standard_normal(shape), rng.standard_normal((shape[0], 5, *w.out_size))
    close(convolution.conv2d(x, weight, None, w, 1), convolution.conv2d_numpy(x, weight, None, w, 1), np.float64, 40)
    close(convolution.conv2d_input(g, weight, w, 1), convolution.conv2d_input_numpy(g, weight, w, 1), np.float64, 40)
    dweight = convolution.conv2d_weight(g, x, w, 1)
    close(dweight, convolution.conv2d_weight_numpy(g, x, w, 1), np.float64, 400)
    np.testing.assert_array_equal(convolution.conv2d_weight(g, x, w, 1), dweight)  # the same, bit for bit


@DTYPES
@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.booleans())
def test_batch_normalisation(dtype, seed, b, c, n, own_statistics):
    rng = np.random.default_rng(seed)
    x, g = (rng.standard_normal((b, c, n)).astype(dtype) for _ in range(2))
    weight, bias = rng.standard_normal((2, c)).astype(dtype)
    for fast, plain in zip(channels.statistics(x[..., ::-1]), channels.statistics_numpy(x[..., ::-1])):
        close(fast, plain, dtype)
    mean, rstd = rng.standard_normal(c).astype(dtype), rng.uniform(0.5, 2, c).astype(dtype)
    args = mean, rstd, weight, bias
    close(channels.normalize(x[::-1], *args), channels.normalize_numpy(x[::-1], *args), dtype, 20)
    args = x, mean, rstd, weight, own_statistics
    both = zip(channels.normalize_backward(g[::-1], *args), channels.normalize_backward_numpy(g[::-1], *args))
    for fast, plain in both:
        close(fast, plain, dtype, 200)


@DTYPES
@pytest.mark.parametrize("count", [1, 2])
def test_relu(dtype, count):
    threads.set_num_threads(count)
    x, g = np.random.default_rng(0).standard_normal((2, 300, 500)).astype(dtype)
    x[0, :4], g[1, :4] = [np.nan, np.inf, -np.inf, 0], [np.nan, np.inf, -np.inf, 0]
    for a in (x, x.T, x[:, ::-2], x[:0]):
        np.testing.assert_array_equal(relu.relu(a), relu.relu_numpy(a))
        assert relu.relu(a).dtype == dtype
    np.testing.assert_array_equal(relu.relu_backward(g, relu.relu(x)), relu.relu_backward_numpy(g, relu.relu(x)))
    assert relu.relu_backward_numpy(g, x).dtype == dtype
