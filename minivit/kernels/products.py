"""Matrix products of a tall matrix (tokens) with a small one (weights), shared out by rows.

Each product is BLAS on one thread for each block of rows; what belongs to the block (its bias) is done while
it is still in the cache. Without control over BLAS's threads, BLAS gets the whole product and its own threads.
"""

import numpy as np

from minivit.kernels.backend import get_backend
from minivit.kernels.blas_threads import controllable, single_threaded_blas
from minivit.kernels.rows import add_bias
from minivit.kernels.threads import parallel_for, partial_sums

_GRAIN_FLOP = 1 << 22  # multiply-adds worth a block: about 50 microseconds


def times_transposed(x, weight, bias=None):
    """x W^T + b. x: (R, K). weight: (N, K). bias: (N,) or None. Returns (R, N)."""
    if get_backend() == "numpy" or not controllable():
        return times_transposed_numpy(x, weight, bias)
    out = np.empty((len(x), len(weight)), x.dtype)

    def body(start, stop):
        np.matmul(x[start:stop], weight.T, out=out[start:stop])
        if bias is not None:
            add_bias(out[start:stop], bias)

    with single_threaded_blas():
        parallel_for(body, len(x), _grain(weight))
    return out


def times_transposed_numpy(x, weight, bias=None):
    """What ``times_transposed`` computes."""
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out


def times(x, weight):
    """x W. x: (R, N). weight: (N, K). Returns (R, K)."""
    if get_backend() == "numpy" or not controllable():
        return x @ weight
    out = np.empty((len(x), weight.shape[1]), x.dtype)
    with single_threaded_blas():
        parallel_for(lambda a, b: np.matmul(x[a:b], weight, out=out[a:b]), len(x), _grain(weight))
    return out


def transposed_times(g, x):
    """g^T x, the sum over rows of their outer products. g: (R, N). x: (R, K). Returns (N, K)."""
    if get_backend() == "numpy" or not controllable():
        return g.T @ x
    shape = (g.shape[1], x.shape[1])

    def body(start, stop, total):
        np.matmul(g[start:stop].T, x[start:stop], out=total)

    with single_threaded_blas():
        return partial_sums(body, len(g), max(1, _GRAIN_FLOP // max(1, shape[0] * shape[1])), shape, g.dtype)


def _grain(weight):
    return max(1, _GRAIN_FLOP // max(1, weight.size))
