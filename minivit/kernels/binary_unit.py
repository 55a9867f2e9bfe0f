"""A binary unit on bits, in one pass over its rows: product, BatchNorm, shortcut, RPReLU, and what comes next.

    y = (product * scale - mean) * slope + bias + shortcut(x)
    out = prelu(y - shift_in) + shift_out

A tile of the result goes through all of that in registers. What comes next is a residual sum, or, inside an MLP, the
bits and the neighbours' means that the following unit wants: the wide floats between the two never reach memory.
Every step rounds as the network in floats does, one operation at a time: no reassociation, no fused multiply-add. So a
packed network makes the same decisions, bit for bit.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend
from minivit.kernels.bits import aligned_empty, pack_row, pack_signs_numpy, word_count
from minivit.kernels.threads import parallel_for
from minivit.kernels.tokens import _mean_neighbours, mean_neighbours_numpy
from minivit.kernels.xnor import LANES, ROWS, finish_unit_numpy, products, xnor_gemm_numpy

_GRAIN = 1 << 15  # results worth a thread


@exact_njit
def _unit_residual(a, tiles, k, table, x, alpha, beta, out, start, stop):
    space = np.empty((ROWS, out.shape[1]), np.float32)
    for first in range(start * ROWS, min(stop * ROWS, len(a)), ROWS):
        last = min(first + ROWS, len(a))
        products(a[first:last], tiles, k, table, x[first:last], space[: last - first], 0, 1)
        for i in range(first, last):
            y, target = space[i - first], out[i]
            for j in range(target.shape[0]):
                target[j] += y[j] * alpha[j] + beta[j]


@exact_njit
def _unit_to_bits(a, tiles, k, table, x, move, words, means, start, stop):
    space = np.empty((ROWS, table.shape[1]), np.float32)
    for first in range(start * ROWS, min(stop * ROWS, len(a)), ROWS):
        last = min(first + ROWS, len(a))
        products(a[first:last], tiles, k, table, x[first:last], space[: last - first], 0, 1)
        for i in range(first, last):
            _mean_neighbours(space[i - first], means[i])
            pack_row(space, i - first, move, 0, words[i])


def unit(words, matrix, x, table):
    """The unit's result. All floats are taken as float32, whatever they come as.

    Args:
        words: (R, W) of uint64, signs of the shifted input.
        matrix: ``BinaryMatrix`` of N rows, at least one.
        x: the shortcut (R, C) float32, N a multiple of C.
        table: (7, N) float32, rows as named in ``minivit.kernels.xnor``.

    Returns:
        float32 (R, N).

    Raises:
        ValueError: words that are not uint64, or sizes that do not fit.
    """
    arguments = _fitting(words, matrix, x, table)
    if get_backend() == "numpy":
        return unit_numpy(*arguments)
    out = aligned_empty((len(words), table.shape[1]), np.float32)
    _run(products, *arguments, out)
    return out


def unit_numpy(words, matrix, x, table):
    """What ``unit`` computes."""
    return finish_unit_numpy(xnor_gemm_numpy(words, matrix), np.tile(x, table.shape[1] // x.shape[1]), table)


def unit_residual(words, matrix, x, table, alpha, beta, out):
    """Add ``unit(...) * alpha + beta`` to ``out`` (R, N), in place; alpha and beta are (N,). Raises as ``unit``."""
    arguments = _fitting(words, matrix, x, table, alpha, beta)
    if out.shape != (len(words), table.shape[1]):
        raise ValueError(f"expected a sum of shape {(len(words), table.shape[1])}, got {out.shape}")
    if get_backend() == "numpy":
        unit_residual_numpy(*arguments, out)
    else:
        _run(_unit_residual, *arguments, out)


def unit_residual_numpy(words, matrix, x, table, alpha, beta, out):
    """What ``unit_residual`` does."""
    out += unit_numpy(words, matrix, x, table) * alpha + beta


def unit_to_bits(words, matrix, x, table, move, width):
    """What the next unit wants of this one's result y (R, N), which is never stored.

    Args:
        words, matrix, x, table: as for ``unit``.
        move: (N,), shift of the next unit.
        width: C' of the next unit.

    Returns:
        signs of y + move, uint64 (R, words), and the means of N / C' neighbouring channels, float32 (R, C').

    Raises:
        ValueError: as ``unit``, or C' does not divide N.
    """
    *arguments, move = _fitting(words, matrix, x, table, move)
    _check_divides(width, len(move))
    if get_backend() == "numpy":
        return unit_to_bits_numpy(*arguments, move, width)
    bits = np.empty((len(words), word_count(len(move))), np.uint64)
    means = np.empty((len(words), width), np.float32)
    _run(_unit_to_bits, *arguments, move[None], bits, means)
    return bits, means


def unit_to_bits_numpy(words, matrix, x, table, move, width):
    """What ``unit_to_bits`` computes."""
    y = unit_numpy(words, matrix, x, table)
    return pack_signs_numpy(y, move), mean_neighbours_numpy(y, width)


def _fitting(words, matrix, x, table, *channels):
    """The arguments as the kernels, which look at no strides, read them; ``channels`` are (N,). Raises ValueError."""
    (n, row), (rows, c) = matrix.words.shape, x.shape
    if words.dtype != np.uint64 or words.shape != (rows, row):
        raise ValueError(f"expected signs as uint64 {(rows, row)}, got {words.dtype} {words.shape}")
    _check_divides(c, n)
    for v in (table, *channels):
        if v.shape != ((7, n) if v is table else (n,)):
            raise ValueError(f"expected constants for {n} channels, got {v.shape}")
    return np.ascontiguousarray(words), matrix, *[np.ascontiguousarray(v, np.float32) for v in (x, table, *channels)]


def _check_divides(part, whole):
    if not 0 < part <= whole or whole % part:
        raise ValueError(f"{whole} channels are no multiple of {part}")


def _run(kernel, words, matrix, x, table, *rest):
    n, width = table.shape[1], x.shape[1]
    if width % LANES and width < n:
        x = np.tile(x, n // width)
    tiles, k = matrix.tiles, matrix.k
    parallel_for(
        lambda start, stop: kernel(words, tiles, k, table, x, *rest, start, stop),
        -(-len(words) // ROWS),
        _GRAIN // (ROWS * n),
    )
