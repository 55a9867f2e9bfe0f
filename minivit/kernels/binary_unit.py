"""A binary unit on bits, in one pass over its rows: product, BatchNorm, shortcut, RPReLU, and what comes next.

    y = (product * scale - mean) * slope + bias + shortcut(x)
    out = prelu(y - shift_in) + shift_out

A group of rows stays in the cache from the product to the end. What comes next is a residual sum, or, inside an MLP,
the bits and the neighbours' means that the following unit wants: the wide floats between the two never reach memory.
Every step rounds as the network in floats does, one operation at a time: no reassociation, no fused multiply-add. So a
packed network makes the same decisions, bit for bit.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend
from minivit.kernels.bits import WORD, _sign_word, pack_signs_numpy, word_count
from minivit.kernels.threads import parallel_for
from minivit.kernels.tokens import _mean_neighbours, mean_neighbours_numpy
from minivit.kernels.xnor import LANES, ROWS, _tile, xnor_gemm_numpy

SCALE, MEAN, SLOPE, BIAS, SHIFT_IN, PRELU, SHIFT_OUT = range(7)
"""Rows of a unit's table of constants (7, N), one for each output channel."""
_GRAIN = 1 << 15  # results worth a thread


@exact_njit
def _products(a, tiles, k, ones, zeros, space):
    for p in range(len(tiles)):
        _tile(a, 0, tiles[p], k, ones, zeros, space, p * LANES)


@exact_njit
def _activate(y, x, table):
    """In place: what follows the product, for one row; x is the shortcut, repeated side by side if it is shorter."""
    scale, mean, slope, bias = table[0], table[1], table[2], table[3]
    shift_in, prelu, shift_out = table[4], table[5], table[6]
    width = x.shape[0]
    for start in range(0, y.shape[0], width):
        part, stop = y[start : start + width], start + width
        s, m, w, b = scale[start:stop], mean[start:stop], slope[start:stop], bias[start:stop]
        before, a, after = shift_in[start:stop], prelu[start:stop], shift_out[start:stop]
        for j in range(width):
            t = ((part[j] * s[j] - m[j]) * w[j] + b[j]) + x[j] - before[j]
            part[j] = (t if t > np.float32(0) else a[j] * t) + after[j]


@exact_njit
def _unit(a, tiles, k, ones, zeros, x, table, out, start, stop):
    space = np.empty((ROWS, out.shape[1]), np.float32)
    for group in range(start, stop):
        first, last = group * ROWS, min(group * ROWS + ROWS, len(a))
        _products(a[first:last], tiles, k, ones, zeros, space[: last - first])
        for i in range(first, last):
            y, target = space[i - first], out[i]
            _activate(y, x[i], table)
            for j in range(target.shape[0]):
                target[j] = y[j]


@exact_njit
def _unit_residual(a, tiles, k, ones, zeros, x, table, alpha, beta, out, start, stop):
    space = np.empty((ROWS, out.shape[1]), np.float32)
    for group in range(start, stop):
        first, last = group * ROWS, min(group * ROWS + ROWS, len(a))
        _products(a[first:last], tiles, k, ones, zeros, space[: last - first])
        for i in range(first, last):
            y, target = space[i - first], out[i]
            _activate(y, x[i], table)
            for j in range(target.shape[0]):
                target[j] += y[j] * alpha[j] + beta[j]


@exact_njit
def _unit_to_bits(a, tiles, k, ones, zeros, x, table, move, words, means, start, stop):
    n = table.shape[1]
    space = np.empty((ROWS, n), np.float32)
    for group in range(start, stop):
        first, last = group * ROWS, min(group * ROWS + ROWS, len(a))
        _products(a[first:last], tiles, k, ones, zeros, space[: last - first])
        for i in range(first, last):
            y = space[i - first]
            _activate(y, x[i], table)
            _mean_neighbours(y, means[i])
            for w in range(n // WORD):
                words[i, w] = _sign_word(space, i - first, move, 0, w * WORD, None)
            if n % WORD:
                words[i, n // WORD] = _sign_word(space, i - first, move, 0, n // WORD * WORD, n % WORD)


def unit(words, matrix, x, table):
    """The unit's result.

    Args:
        words: (R, W) of uint64, signs of the shifted input.
        matrix: ``BinaryMatrix`` of N rows.
        x: the shortcut (R, C) float32, N a multiple of C.
        table: (7, N) float32, rows as named above.

    Returns:
        float32 (R, N).
    """
    if get_backend() == "numpy":
        return unit_numpy(words, matrix, x, table)
    out = np.empty((len(words), table.shape[1]), np.float32)
    _run(_unit, words, matrix, x, table, out)
    return out


def unit_numpy(words, matrix, x, table):
    """What ``unit`` computes."""
    product = xnor_gemm_numpy(words, matrix).astype(np.float32)
    y = (product * table[SCALE] - table[MEAN]) * table[SLOPE] + table[BIAS]
    t = (y + np.tile(x, table.shape[1] // x.shape[1])) - table[SHIFT_IN]
    return np.where(t > 0, t, table[PRELU] * t) + table[SHIFT_OUT]


def unit_residual(words, matrix, x, table, alpha, beta, out):
    """Add ``unit(...) * alpha + beta`` to ``out`` (R, N), in place; alpha and beta are (N,)."""
    if get_backend() == "numpy":
        out += unit_numpy(words, matrix, x, table) * alpha + beta
    else:
        _run(_unit_residual, words, matrix, x, table, alpha, beta, out)


def unit_to_bits(words, matrix, x, table, move, width):
    """What the next unit wants of this one's result y (R, N), which is never stored.

    Args:
        words, matrix, x, table: as for ``unit``.
        move: (N,), shift of the next unit.
        width: C' of the next unit.

    Returns:
        signs of y + move, uint64 (R, words), and the means of N / C' neighbouring channels, float32 (R, C').
    """
    if get_backend() == "numpy":
        return unit_to_bits_numpy(words, matrix, x, table, move, width)
    n = table.shape[1]
    bits = np.empty((len(words), word_count(n)), np.uint64)
    means = np.empty((len(words), width), np.float32)
    _run(_unit_to_bits, words, matrix, x, table, move.reshape(1, n), bits, means)
    return bits, means


def unit_to_bits_numpy(words, matrix, x, table, move, width):
    """What ``unit_to_bits`` computes."""
    y = unit_numpy(words, matrix, x, table)
    return pack_signs_numpy(y, move), mean_neighbours_numpy(y, width)


def _run(kernel, words, matrix, x, table, *rest):
    n = table.shape[1]
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
    tiles, k = matrix.tiles, matrix.k

    def body(start, stop):
        kernel(words, tiles, k, ones, zeros, x, table, *rest, start, stop)

    parallel_for(body, -(-len(words) // ROWS), _GRAIN // (ROWS * n))
