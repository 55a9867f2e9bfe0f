"""max(x, 0), on all threads: in a convolutional network it follows every normalisation."""

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for, row_grain


@njit
def _relu(x, out):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = zero if x[i] < zero else x[i]


@njit
def _relu_backward(g, out, dx):
    zero = g.dtype.type(0)
    for i in range(g.size):
        dx[i] = g[i] if out[i] > zero else zero


def relu(x):
    """max(x, 0); NaN stays."""
    if get_backend() == "numpy":
        return relu_numpy(x)
    flat, out = x.reshape(-1), np.empty(x.shape, x.dtype)
    target = out.reshape(-1)
    parallel_for(lambda a, b: _relu(flat[a:b], target[a:b]), flat.size, row_grain(flat))
    return out


def relu_numpy(x):
    """What ``relu`` computes."""
    return np.maximum(x, 0)


def relu_backward(g, out):
    """Cotangent of x: ``g`` where the result ``out`` is above 0, elsewhere 0."""
    if get_backend() == "numpy":
        return relu_backward_numpy(g, out)
    flat, positive, dx = g.reshape(-1), out.reshape(-1), np.empty(g.shape, g.dtype)
    target = dx.reshape(-1)
    parallel_for(lambda a, b: _relu_backward(flat[a:b], positive[a:b], target[a:b]), flat.size, row_grain(flat))
    return dx


def relu_backward_numpy(g, out):
    """What ``relu_backward`` computes."""
    return np.where(out > 0, g, 0)
