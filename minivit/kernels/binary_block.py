"""What stands between the units of a binary block, each in one pass over its rows.

All of it rounds as the network in floats does, one operation at a time, because signs are taken of the results.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend
from minivit.kernels.bits import WORD, aligned_empty, pack_bits, pack_row, pack_signs_numpy, word_count
from minivit.kernels.rows import _sum, row_sums_numpy
from minivit.kernels.threads import parallel_for, row_grain

_JUST_OVER_HALF = np.nextafter(np.float32(0.5), np.float32(1))


# --- BatchNorm before a block's half -----------------------------------------------------------------------------


@exact_njit
def _normalize_to_bits(x, norm, moves, out, words, start, stop):
    mean, slope, bias = norm[0], norm[1], norm[2]
    for i in range(start, stop):
        row, target = x[i], out[i]
        for j in range(target.shape[0]):
            target[j] = (row[j] - mean[j]) * slope[j] + bias[j]
        for h in range(len(moves)):
            pack_row(out, i, moves, h, words[h, i])


def normalize_to_bits(x, norm, moves):
    """BatchNorm, and its result's signs as each of the units that follow wants them. All floats are taken as float32.

    Args:
        x: (R, C) float32.
        norm: (3, C) float32: mean, slope and bias of y = (x - mean) slope + bias.
        moves: (S, C) float32, the shifts of S units.

    Returns:
        y (R, C), and the signs of y + moves[s], uint64 (S, R, words).

    Raises:
        ValueError: sizes that do not fit.
    """
    x, norm, moves = _floats(x, norm, moves)
    c = x.shape[1]
    if norm.shape != (3, c) or moves.shape != (len(moves), c):
        raise ValueError(f"expected constants (3, {c}) and shifts (S, {c}), got {norm.shape} and {moves.shape}")
    if get_backend() == "numpy":
        return normalize_to_bits_numpy(x, norm, moves)
    out = aligned_empty(x.shape, np.float32)
    words = np.empty((len(moves), len(x), word_count(c)), np.uint64)
    parallel_for(
        lambda start, stop: _normalize_to_bits(x, norm, moves, out, words, start, stop),
        len(x),
        row_grain(x),
    )
    return out, words


def normalize_to_bits_numpy(x, norm, moves):
    """What ``normalize_to_bits`` computes."""
    out = (x - norm[0]) * norm[1] + norm[2]
    return out, np.stack([pack_signs_numpy(out, move) for move in moves])


# --- attention probabilities -------------------------------------------------------------------------------------


@exact_njit
def _probability_bits(scores, exponentials, level, words, start, stop):
    p = np.zeros((1, words.shape[1] * WORD), np.float32)
    move = np.full_like(p, -_JUST_OVER_HALF)
    row_p = p[0, : scores.shape[1]]  # beyond it p stays 0, and gives bits 0
    for i in range(start, stop):
        row = scores[i]
        top = row[0]
        for j in range(row.shape[0]):
            top = max(top, row[j])
        for j in range(row.shape[0]):
            row_p[j] = exponentials[np.uint32(top - row[j])]
        factor = np.float32(1) / _sum(row_p)
        for j in range(row.shape[0]):
            row_p[j] = row_p[j] * factor / level
        pack_row(p, 0, move, 0, words[i])


def probability_bits(scores, exponentials, level):
    """Which attention probabilities the level c replaces: softmax(scale scores) / c > 1/2.

    Products of signs take few values, so that the exponential is looked up.

    Args:
        scores: (B, H, N, M) of int32, products of d signs; M at least 1.
        exponentials: (2 d + 1,) float32: ``exp(-t scale)`` for t = 0, 1, ... 2 d.
        level: c, float32.

    Returns:
        uint64 (B, H, N, words), a bit for each of M keys.
    """
    if get_backend() == "numpy":
        return probability_bits_numpy(scores, exponentials, level)
    rows = scores.reshape(-1, scores.shape[3])
    words = np.empty((len(rows), word_count(rows.shape[1])), np.uint64)
    parallel_for(
        lambda start, stop: _probability_bits(rows, exponentials, level, words, start, stop),
        len(rows),
        row_grain(rows),
    )
    return words.reshape(*scores.shape[:3], words.shape[1])


def probability_bits_numpy(scores, exponentials, level):
    """What ``probability_bits`` computes."""
    p = exponentials[scores.max(axis=-1, keepdims=True) - scores]
    return pack_bits(p * (1 / row_sums_numpy(p))[..., None] / level > 0.5)


# --- the end of attention ----------------------------------------------------------------------------------------


@exact_njit
def _join(context, q, k, v, cells, table, move, out, words, start, stop):
    mean, slope, bias, shift_in, prelu, shift_out = table[0], table[1], table[2], table[3], table[4], table[5]
    tokens = len(cells)
    for i in range(start, stop):
        row, mine, target = context[i], q[i], out[i]
        cell = cells[i % tokens]
        key, value = k[i // tokens, cell], v[i // tokens, cell]
        for j in range(target.shape[0]):
            y = (row[j] - mean[j]) * slope[j] + bias[j]
            t = y + mine[j] + (key[j] + value[j]) - shift_in[j]
            target[j] = (t if t > np.float32(0) else prelu[j] * t) + shift_out[j]
        pack_row(out, i, move, 0, words[i])


def join(context, q, k, v, cells, table, move):
    """RPReLU(BatchNorm(context) + q + (k + v)), and its signs as the output unit wants them. All floats are taken as
    float32.

    Args:
        context, q: (B, N, C) float32.
        k, v: (B, M, C), likewise.
        cells: (N,) of intp: which of the M keys and values each token gets.
        table: (6, C) float32: mean, slope and bias of BatchNorm; shift before, slope and shift after of RPReLU.
        move: (C,) float32, shift of the output unit.

    Returns:
        y (B, N, C), and the signs of y + move, uint64 (B N, words).

    Raises:
        ValueError: sizes that do not fit.
    """
    context, q, k, v, table, move = _floats(context, q, k, v, table, move)
    (b, n, c), m = context.shape, k.shape[1]
    shapes = [a.shape for a in (q, k, v, cells, table, move)]
    if shapes != [(b, n, c), (b, m, c), (b, m, c), (n,), (6, c), (c,)]:
        raise ValueError(f"a context {context.shape} does not go with shapes {shapes}")
    if get_backend() == "numpy":
        return join_numpy(context, q, k, v, cells, table, move)
    context, q, move = context.reshape(b * n, c), q.reshape(b * n, c), move.reshape(1, c)
    out, words = aligned_empty((b * n, c), np.float32), np.empty((b * n, word_count(c)), np.uint64)
    parallel_for(
        lambda start, stop: _join(context, q, k, v, cells, table, move, out, words, start, stop), b * n, row_grain(q)
    )
    return out.reshape(b, n, c), words


def join_numpy(context, q, k, v, cells, table, move):
    """What ``join`` computes."""
    mean, slope, bias, shift_in, prelu, shift_out = table
    t = (context - mean) * slope + bias + q + (k + v)[:, cells] - shift_in
    out = np.where(t > 0, t, prelu * t) + shift_out
    return out, pack_signs_numpy(out, move).reshape(-1, word_count(out.shape[2]))


def _floats(*arrays):
    """The arrays as kernels that look at no strides read them."""
    return (np.ascontiguousarray(a, np.float32) for a in arrays)
