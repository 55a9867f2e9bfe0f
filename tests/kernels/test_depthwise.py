"""The depthwise kernels equal their twins, for any sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.kernels import depthwise

SIZES = st.tuples(st.integers(0, 3), *[st.integers(1, 4)] * 8)  # B, C, m, kernel, stride, size of the result


def arrays(sizes, dtype):
    b, c, m, ky, kx, sy, sx, rows, columns = sizes
    rng = np.random.default_rng(sum(sizes))
    x = rng.standard_normal((b, c, ky + sy * rows, kx + sx * columns)).astype(dtype)
    weight = rng.standard_normal((c * m, ky, kx)).astype(dtype)
    g = rng.standard_normal((b, c * m, rows, columns)).astype(dtype)
    return x, weight, g, (sy, sx)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(SIZES)
def test_kernels_equal_their_twins(dtype, sizes):
    x, weight, g, stride = arrays(sizes, dtype)
    pairs = [
        (depthwise.depthwise, depthwise.depthwise_numpy, (x[..., ::-1], weight, stride, g.shape[2:])),
        (depthwise.depthwise_input, depthwise.depthwise_input_numpy, (g, weight, stride, x.shape)),
        (depthwise.depthwise_weight, depthwise.depthwise_weight_numpy, (g, x[:, :, ::-1], stride, weight.shape[1:])),
    ]
    for kernel, twin, args in pairs:
        fast, plain = kernel(*args), twin(*args)
        assert fast.shape == plain.shape and fast.dtype == plain.dtype == dtype
        np.testing.assert_allclose(fast, plain, rtol=0, atol=60 * np.finfo(dtype).eps * 16)


def test_one_filter_on_one_row_by_hand():
    x = np.array([[[[1, 2, 3, 4, 5]]]], np.float32)
    weight = np.array([[[1, 10]], [[0, 1]]], np.float32)
    out = depthwise.depthwise(x, weight, (1, 2), (1, 2))
    np.testing.assert_array_equal(out, [[[[21, 43]], [[2, 4]]]])
