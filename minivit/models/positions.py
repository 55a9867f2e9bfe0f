"""Position tables for another image size: the learned rows, on their grid of patches, resized like an image.

Every rule here is separable: one matrix for each axis maps the old rows (columns) to the new ones, and

    new = R_h old R_w^T    for each channel.

Three rules are in use, and they are not interchangeable:

    bicubic             the official DeiT script: four taps, a = -0.75, edges replicated
    bicubic_antialias   timm: the taps widen when the grid shrinks, a = -0.5, weights renormalised at the edges
    linear              AugReg (Steiner et al., arXiv 2106.10270): bilinear, the corners of both grids aligned
"""

from math import isqrt, prod

import numpy as np

from minivit.errors import UsageError, suggest


def resample_positions(table, grid, *, prefix=0, method="bicubic", old_grid=None):
    """Bring a learned position table to another grid of patches.

    Args:
        table: (1, prefix + N, D), the N rows of a grid after ``prefix`` rows of class tokens; or a map (1, D, h, w)
            without such rows, as PiT has it.
        grid: (rows, columns) of the new grid.
        prefix: number of leading rows that stay as they are.
        method: "bicubic", "bicubic_antialias" or "linear".
        old_grid: see :func:`grid_of`.

    Returns:
        The table (1, prefix + rows * columns, D), or the map (1, D, rows, columns), in the dtype of ``table``,
        computed in float64. None where ``table`` is neither of the two.

    Raises:
        UsageError: an unknown method.
    """
    if method not in METHODS:
        near = suggest(method, METHODS)
        raise UsageError(f"unknown method of resampling {method!r}{near} (known: {', '.join(METHODS)})")
    table = np.asarray(table)
    old_grid = grid_of(table.shape, prefix, old_grid)
    if old_grid is None:
        return None
    if table.ndim == 4:
        return _resize(table, grid, method)
    dim = table.shape[2]
    image = table[:, prefix:].reshape(1, *old_grid, dim).transpose(0, 3, 1, 2)
    rows = _resize(image, grid, method).transpose(0, 2, 3, 1).reshape(1, -1, dim)
    return np.concatenate([table[:, :prefix], rows], axis=1)


def grid_of(shape, prefix=0, known=None):
    """Return (rows, columns) of the grid under a position table.

    Args:
        shape: of the table, or map, as :func:`resample_positions` takes it.
        prefix: number of leading rows that are not of the grid.
        known: (rows, columns), for a table; None where nobody knows: then a square is assumed. A map says it itself.

    Returns:
        None where there is no such table: it is empty, or has another number of rows.
    """
    if len(shape) not in (3, 4) or shape[0] != 1 or 0 in shape:
        return None
    if len(shape) == 4:
        return tuple(shape[2:])
    count = max(0, shape[1] - prefix)
    grid = known or (isqrt(count), isqrt(count))
    return tuple(grid) if count and prod(grid) == count else None


def _resize(image, grid, method):
    """(1, D, h, w) -> (1, D, *grid)."""
    to_rows, to_columns = (METHODS[method](old, new) for old, new in zip(image.shape[2:], grid))
    return (to_rows @ image.astype(np.float64) @ to_columns.T).astype(image.dtype)


def bicubic(old, new):
    """Matrix (new, old) of cubic interpolation at c = (i + 1/2) old/new - 1/2; what lies outside repeats the edge."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    taps = np.arange(-2, old + 2)  # a centre lies at most half a pixel outside, its taps less than 2 from it
    weights = _cubic(centres[:, None] - taps, a=-0.75)
    return weights @ np.eye(old)[np.clip(taps, 0, old - 1)]


def bicubic_antialias(old, new):
    """Matrix (new, old) of the cubic stretched by old/new where the grid shrinks; the weights of a row sum to 1."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    weights = _cubic((np.arange(old) + 0.5 - centres[:, None]) / max(scale, 1), a=-0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def linear(old, new):
    """Matrix (new, old) of linear interpolation at c = i (old - 1) / (new - 1), corners on corners."""
    centres = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)))


def _cubic(u, a):
    """Keys' cubic convolution kernel (1981): 1 at 0, 0 at the other integers and from 2 on."""
    u = np.abs(u)
    near = (a + 2) * u**3 - (a + 3) * u**2 + 1
    far = a * (u**3 - 5 * u**2 + 8 * u - 4)
    return np.where(u <= 1, near, np.where(u < 2, far, 0))


METHODS = {"bicubic": bicubic, "bicubic_antialias": bicubic_antialias, "linear": linear}
