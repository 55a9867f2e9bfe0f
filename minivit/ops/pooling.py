"""Pooling of tokens on a grid: over square cells, and along its rows and columns."""

import numpy as np

from minivit.kernels import pooling as kernel
from minivit.kernels.rows import column_sums
from minivit.tensor import op, require_floats


@op
def pooling_branches(x, scale, shift, /, grid):
    """Means of 3 and of 5 neighbours along the columns and rows of a grid, each scaled and shifted, added up.

        out = sum over branches k of scale_k * mean_k(x) + shift_k

    The means have stride 1 and "same" size; beyond the grid all is 0, which counts: the divisor is always 3 or 5.

    What the branches multiply a token by is added up first, and so are their shifts, both in the order below; then
    ``kernels.pooling.cross`` adds up the tokens. Packed networks keep to this order, and so get the same digits.

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
    weights = kernel.branch_weights(scale)

    def vjp(g):
        g = g.reshape(image.shape)
        own, column1, column2, row1, row2 = kernel.cross_weights(g, image)
        column, row = own + column1, own + row1
        dscale = np.stack([column / 3, row / 3, (column + column2) / 5, (row + row2) / 5])
        dx = kernel.cross(g, weights, np.zeros_like(scale[0]))
        return dx.reshape(x.shape), dscale, np.broadcast_to(column_sums(g.reshape(-1, g.shape[3])), shift.shape)

    return kernel.cross(image, weights, shift.sum(axis=0)).reshape(x.shape), vjp


@op
def pool_cells(x, /, grid, size):
    """Means of cells of size x size tokens that do not overlap: (B, N, C) -> (B, N / size^2, C), row by row.

    The tokens of a cell are added up row by row, and then divided; packed networks use this op too.

    Args:
        x: tokens (B, N, C) on a ``grid`` of (rows, columns), both multiples of ``size``.
    """
    require_floats(x)
    if x.ndim != 3 or x.shape[1] != grid[0] * grid[1] or grid[0] % size or grid[1] % size:
        raise ValueError(f"expected tokens (B, N, C) on a grid of {grid[0]}x{grid[1]}, in cells of {size}x{size}")
    b, _, c = x.shape
    rows, columns = (n // size for n in grid)

    def vjp(g):
        cells = (g / size**2).reshape(b, rows, 1, columns, 1, c)
        return np.broadcast_to(cells, (b, rows, size, columns, size, c)).reshape(x.shape)

    return kernel.cell_means(x.reshape(b, *grid, c), size).reshape(b, rows * columns, c), (vjp,)
