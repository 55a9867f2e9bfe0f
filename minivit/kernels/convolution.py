"""Convolution as matrix products, a few images at a time, so that their columns of windows stay in the cache.

    out = F columns(x),   dx = columns^T(F^T g),   dF = g columns(x)^T

F is the matrix of filters (O, C kernel_h kernel_w), ``columns`` is ``im2col`` and ``columns^T`` is ``col2im``. The
products are BLAS on one thread for each thread's own images. Columns are made anew for dF: they are nine times as
large as the images for a 3x3 kernel.
"""

import numpy as np

from minivit.kernels.backend import get_backend
from minivit.kernels.blas_threads import single_threaded_blas
from minivit.kernels.threads import CHUNK_BYTES, parallel_for, partial_sums
from minivit.kernels.windows import col2im, fold_numpy, im2col, unfold_numpy

_CHUNK_WINDOWS = 256  # of columns handled at a time, at the least, so that filters are not read anew for a few products
_LINE = 16  # elements after each row of columns: at a distance of a power of two they would fight for cache sets


def conv2d(x, weight, bias, w, groups):
    """Cross-correlation. x: (B, C, H, W). weight: (O, C / groups, kernel_h, kernel_w). bias: (O,) or None.

    Args:
        w: the ``Windows`` on x.

    Returns:
        (B, O, *w.out_size).
    """
    if get_backend() == "numpy":
        return conv2d_numpy(x, weight, bias, w, groups)
    x, filters = np.ascontiguousarray(x), _filters(weight, groups)
    out = np.empty((len(x), len(weight), w.count), x.dtype)

    def body(start, stop):
        for a, b, columns, space in _chunks(start, stop, w, groups, x.dtype):
            im2col(x[a:b], w, space)
            product = filters @ columns
            if bias is not None:
                product += bias.reshape(groups, -1, 1)
            out[a:b] = product.reshape(len(weight), b - a, w.count).swapaxes(0, 1)

    with single_threaded_blas():
        parallel_for(body, len(x), _images_at_a_time(w, x.itemsize))
    return out.reshape(len(x), len(weight), *w.out_size)


def conv2d_numpy(x, weight, bias, w, groups):
    """What ``conv2d`` computes."""
    out = _filters(weight, groups) @ _by_groups(unfold_numpy(x, w), groups, w)
    out = out.reshape(len(x), len(weight), *w.out_size)
    return out if bias is None else out + bias[:, None, None]


def conv2d_input(g, weight, w, groups):
    """Cotangent of ``x`` (B, C, H, W), where ``g`` (B, O, rows, columns) is that of the result."""
    if get_backend() == "numpy":
        return conv2d_input_numpy(g, weight, w, groups)
    g, filters = g.reshape(*g.shape[:2], w.count), _filters(weight, groups).swapaxes(1, 2)
    dx = np.empty((len(g), *w.shape[1:]), g.dtype)

    def body(start, stop):
        for a, b, columns, space in _chunks(start, stop, w, groups, g.dtype):
            np.matmul(filters, _side_by_side(g[a:b], groups), out=columns)
            col2im(space, w, dx[a:b])

    with single_threaded_blas():
        parallel_for(body, len(g), _images_at_a_time(w, g.itemsize))
    return dx


def conv2d_input_numpy(g, weight, w, groups):
    """What ``conv2d_input`` computes."""
    columns = _filters(weight, groups).swapaxes(1, 2) @ _by_groups(g, groups, w)
    return fold_numpy(columns.reshape(len(g), w.size, w.count), w)


def conv2d_weight(g, x, w, groups):
    """Cotangent of the weight (O, C / groups, kernel_h, kernel_w)."""
    if get_backend() == "numpy":
        return conv2d_weight_numpy(g, x, w, groups)
    x, g = np.ascontiguousarray(x), g.reshape(*g.shape[:2], w.count)
    shape = (groups, w.size // groups, g.shape[1] // groups)

    def body(start, stop, total):
        for a, b, columns, space in _chunks(start, stop, w, groups, g.dtype):
            im2col(x[a:b], w, space)
            total += columns @ _side_by_side(g[a:b], groups).swapaxes(1, 2)  # BLAS is slower the other way round

    with single_threaded_blas():
        total = partial_sums(body, len(g), _images_at_a_time(w, g.itemsize), shape, g.dtype)
    return total.swapaxes(1, 2).reshape(g.shape[1], x.shape[1] // groups, *w.kernel)


def conv2d_weight_numpy(g, x, w, groups):
    """What ``conv2d_weight`` computes."""
    products = _by_groups(g, groups, w) @ _by_groups(unfold_numpy(x, w), groups, w).swapaxes(-1, -2)
    return products.sum(axis=0).reshape(g.shape[1], x.shape[1] // groups, *w.kernel)


def _filters(weight, groups):
    """The weight as matrices (groups, O / groups, C / groups kernel_h kernel_w)."""
    return weight.reshape(groups, len(weight) // groups, int(np.prod(weight.shape[1:])))


def _by_groups(x, groups, w):
    """(B, channels, ...) -> matrices (B, groups, channels / groups, windows)."""
    return x.reshape(len(x), groups, x.shape[1] // groups, w.count)


def _side_by_side(g, groups):
    """(n, O, windows) -> (groups, O / groups, n windows)."""
    n, o, count = g.shape
    return g.swapaxes(0, 1).reshape(groups, o // groups, n * count)


def _chunks(start, stop, w, groups, dtype):
    """Cut ``range(start, stop)``. Yield for each chunk of n images: its bounds a and b, space for its columns as
    matrices (groups, C / groups kernel_h kernel_w, n windows), and the same space as ``im2col`` wants it."""
    step = _images_at_a_time(w, np.dtype(dtype).itemsize)
    space = np.empty((w.size, min(step, stop - start) * w.count + _LINE), dtype)
    matrices = space.reshape(groups, w.size // groups, space.shape[1])
    for a in range(start, stop, step):
        b = min(a + step, stop)
        yield a, b, matrices[:, :, : (b - a) * w.count], space


def _images_at_a_time(w, itemsize):
    return max(1, CHUNK_BYTES // (max(1, w.size * w.count * itemsize)), -(-_CHUNK_WINDOWS // w.count))
