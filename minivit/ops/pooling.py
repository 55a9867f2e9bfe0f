"""Pooling of tokens on a grid along its rows and columns."""

import numpy as np

from minivit.kernels import pooling as kernel
from minivit.tensor import op, require_floats


@op
def pooling_branches(x, scale, shift, /, grid):
    """Means of 3 and of 5 neighbours along the columns and rows of a grid, each scaled and shifted, added up.

        out = sum over branches k of scale_k * mean_k(x) + shift_k

    The means have stride 1 and "same" size; beyond the grid all is 0, which counts: the divisor is always 3 or 5.

    Args:
        x: tokens (B, N, C), row by row.
        scale, shift: (4, C), for the windows 3x1, 1x3, 5x1 and 1x5 (rows x columns) in this order.
        grid: (rows, columns), N of them.

    Returns:
        (B, N, C).
    """
    require_floats(x, scale, shift)
    if x.ndim != 3 or x.shape[1] != grid[0] * grid[1] or not scale.shape == shift.shape == (4, x.shape[2]):
        raise ValueError(f"expected tokens (B, N, C) on a grid of {grid[0]}x{grid[1]}, and scales and shifts (4, C)")
    image = x.reshape(len(x), *grid, x.shape[2])
    h3, w3, h5, w5 = scale * np.array([[1 / 3], [1 / 3], [1 / 5], [1 / 5]], x.dtype)
    weights = np.stack([h3 + w3 + h5 + w5, h3 + h5, h5, w3 + w5, w5])

    def vjp(g):
        g = g.reshape(image.shape)
        own, column1, column2, row1, row2 = kernel.cross_weights(g, image)
        column, row = own + column1, own + row1
        dscale = np.stack([column / 3, row / 3, (column + column2) / 5, (row + row2) / 5])
        dx = kernel.cross(g, weights, np.zeros_like(h3))
        return dx.reshape(x.shape), dscale, np.broadcast_to(g.sum((0, 1, 2)), shift.shape)

    return kernel.cross(image, weights, shift.sum(axis=0)).reshape(x.shape), vjp
