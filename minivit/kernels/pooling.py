"""Kernels for tokens on a grid (B, H, W, C): means over rows and columns of 3 and of 5, added up with weights.

All four windows lie on the cross of the token, and are symmetric, so that their weighted sum is one correlation with
five weights for each channel: of the token itself, and of those 1 and 2 away along its column and along its row. Its
transpose, which the backward pass needs, is the same correlation.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.threads import parallel_for, partial_sums

# Offsets (rows, columns) of the cross, and which of the five weights each has.
_OFFSETS = np.array([(0, 0, 0), (-1, 0, 1), (1, 0, 1), (-2, 0, 2), (2, 0, 2),
                     (0, -1, 3), (0, 1, 3), (0, -2, 4), (0, 2, 4)])  # fmt: skip
_GRAIN = 16384  # elements of the result worth a thread

# In the kernels a row of the grid is one vector (W C), and weights are repeated for each of its tokens: long loops.


@exact_njit
def _cross(x, weights, bias, channels, out):
    length = x.shape[2]
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            target = out[b, i]
            target[:] = bias
            for o in range(_OFFSETS.shape[0]):
                y, ahead = i + _OFFSETS[o, 0], _OFFSETS[o, 1] * channels
                if 0 <= y < x.shape[1] and abs(ahead) < length:
                    first, last = max(0, -ahead), length - max(0, ahead)
                    here, there = target[first:last], x[b, y, first + ahead : last + ahead]
                    weight = weights[_OFFSETS[o, 2]]
                    for t in range(here.shape[0]):
                        here[t] += weight[t] * there[t]


@njit
def _cross_weights(g, x, channels, totals):
    length = x.shape[2]
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            grad = g[b, i]
            for o in range(_OFFSETS.shape[0]):
                y, ahead = i + _OFFSETS[o, 0], _OFFSETS[o, 1] * channels
                if 0 <= y < x.shape[1] and abs(ahead) < length:
                    first, last = max(0, -ahead), length - max(0, ahead)
                    here, there = grad[first:last], x[b, y, first + ahead : last + ahead]
                    total = totals[_OFFSETS[o, 2]]
                    for t in range(here.shape[0]):
                        total[t] += here[t] * there[t]


def cross(x, weights, bias):
    """Correlate each channel with its cross, beyond whose grid all is 0, and add its bias.

    Args:
        x: (B, H, W, C). weights: (5, C): of the token itself, of those 1 and 2 away in its column, and in its row.
        bias: (C,).
    """
    if get_backend() == "numpy":
        return cross_numpy(x, weights, bias)
    x = np.ascontiguousarray(x)
    lines, columns = _lines(x), x.shape[2]
    weights, bias, out = np.tile(weights, columns), np.tile(bias, columns), np.empty_like(lines)

    def body(a, b):
        _cross(lines[a:b], weights, bias, x.shape[3], out[a:b])

    parallel_for(body, len(x), _grain(x))
    return out.reshape(x.shape)


def cross_numpy(x, weights, bias):
    """What ``cross`` computes."""
    out = np.empty_like(x)
    out[...] = bias
    for target, source, kind in _overlaps(out, x):
        target += weights[kind] * source
    return out


def cross_weights(g, x):
    """Cotangent (5, C) of the weights of ``cross``, given ``g`` (B, H, W, C), that of its result."""
    if get_backend() == "numpy":
        return cross_weights_numpy(g, x)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    grads, lines = _lines(g), _lines(x)

    def body(a, b, totals):
        _cross_weights(grads[a:b], lines[a:b], x.shape[3], totals)

    totals = partial_sums(body, len(x), _grain(x), (5, lines.shape[2]), x.dtype)
    return totals.reshape(5, x.shape[2], x.shape[3]).sum(axis=1)


def cross_weights_numpy(g, x):
    """What ``cross_weights`` computes."""
    totals = np.zeros((5, x.shape[3]), x.dtype)
    for grad, source, kind in _overlaps(g, x):
        totals[kind] += (grad * source).sum(axis=(0, 1, 2))
    return totals


def _overlaps(out, x):
    """For each offset of the cross: the part of ``out`` whose neighbour there lies in the grid, that neighbour's
    part of ``x``, and the number of the weight between them."""
    _, h, w, _ = x.shape
    for dy, dx, kind in _OFFSETS:
        here = np.s_[:, max(0, -dy) : max(0, h - max(0, dy)), max(0, -dx) : max(0, w - max(0, dx))]
        there = np.s_[:, max(0, dy) : max(0, h + min(0, dy)), max(0, dx) : max(0, w + min(0, dx))]
        yield out[here], x[there], kind


def _lines(x):
    """x (B, H, W, C) as (B, H, W C)."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _grain(x):
    return max(1, _GRAIN // max(1, int(np.prod(x.shape[1:]))))
