"""Kernels for tokens on a grid (B, H, W, C): means of square cells; means of 3 and of 5 along rows and columns, added
up with weights.

All four windows of the latter lie on the cross of the token, and are symmetric, so that their weighted sum is one
correlation with five weights for each channel: of the token itself, and of those 1 and 2 away along its column and
along its row. Its transpose, which the backward pass needs, is the same correlation.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.threads import parallel_for, partial_sums, row_grain

# Offsets (rows, columns) of the cross, and which of the five weights each has.
_OFFSETS = np.array([(0, 0, 0), (-1, 0, 1), (1, 0, 1), (-2, 0, 2), (2, 0, 2),
                     (0, -1, 3), (0, 1, 3), (0, -2, 4), (0, 2, 4)])  # fmt: skip
_GRAIN = 16384  # elements of the result worth a thread


@exact_njit
def _cross(x, weights, bias, out, start, stop):
    h, w, zeros = x.shape[1], x.shape[2], np.zeros(x.shape[3], x.dtype)
    here, column1, column2, row1, row2 = weights[0], weights[1], weights[2], weights[3], weights[4]
    for line in range(start, stop):
        b, i = line // h, line % h
        for j in range(w):
            own, target = x[b, i, j], out[b, i, j]
            up1 = x[b, i - 1, j] if i >= 1 else zeros
            up2 = x[b, i - 2, j] if i >= 2 else zeros
            down1 = x[b, i + 1, j] if i + 1 < h else zeros
            down2 = x[b, i + 2, j] if i + 2 < h else zeros
            left1 = x[b, i, j - 1] if j >= 1 else zeros
            left2 = x[b, i, j - 2] if j >= 2 else zeros
            right1 = x[b, i, j + 1] if j + 1 < w else zeros
            right2 = x[b, i, j + 2] if j + 2 < w else zeros
            for c in range(target.shape[0]):
                y = bias[c] + here[c] * own[c] + column1[c] * up1[c] + column1[c] * down1[c]
                y = y + column2[c] * up2[c] + column2[c] * down2[c]
                y = y + row1[c] * left1[c] + row1[c] * right1[c]
                target[c] += y + row2[c] * left2[c] + row2[c] * right2[c]


# Here a row of the grid is one vector (W C), so that the loops are long.


@njit
def _cross_weights(g, x, channels, totals):
    length = x.shape[2]
    for b in range(x.shape[0]):  # each summed by itself, so that the error hardly grows with their number
        part = np.zeros_like(totals)
        for i in range(x.shape[1]):
            grad = g[b, i]
            for o in range(_OFFSETS.shape[0]):
                y, ahead = i + _OFFSETS[o, 0], _OFFSETS[o, 1] * channels
                if 0 <= y < x.shape[1] and abs(ahead) < length:
                    first, last = max(0, -ahead), length - max(0, ahead)
                    here, there = grad[first:last], x[b, y, first + ahead : last + ahead]
                    total = part[_OFFSETS[o, 2]]
                    for t in range(here.shape[0]):
                        total[t] += here[t] * there[t]
        totals += part


def cross(x, weights, bias, out=None):
    """Correlate each channel with its cross, beyond whose grid all is 0, and add its bias.

    Args:
        x: (B, H, W, C). weights: (5, C): of the token itself, of those 1 and 2 away in its column, and in its row.
        bias: (C,).
        out: what the result is added to, in place, C-contiguous; None: a new array.
    """
    out = np.zeros_like(x, order="C") if out is None else out
    if get_backend() == "numpy":
        out += cross_numpy(x, weights, bias)
    else:
        x = np.ascontiguousarray(x)
        b, h, w, c = x.shape
        parallel_for(lambda start, stop: _cross(x, weights, bias, out, start, stop), b * h, _GRAIN // max(1, w * c))
    return out


def cross_numpy(x, weights, bias):
    """What ``cross`` computes, as a new array."""
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

    totals = partial_sums(body, len(x), row_grain(x, _GRAIN), (5, lines.shape[2]), x.dtype)
    return totals.reshape(5, x.shape[2], x.shape[3]).sum(axis=1)


def cross_weights_numpy(g, x):
    """What ``cross_weights`` computes; in float64, because NumPy adds up rows one by one."""
    totals = np.zeros((5, x.shape[3]))
    for grad, source, kind in _overlaps(g, x):
        totals[kind] += (grad * source).sum(axis=(0, 1, 2), dtype=np.float64)
    return totals.astype(x.dtype)


def branch_weights(scale):
    """The weights (5, C) of ``cross`` for means of 3x1, 1x3, 5x1 and 1x5 tokens, times their scales (4, C)."""
    h3, w3, h5, w5 = scale * np.array([[1 / 3], [1 / 3], [1 / 5], [1 / 5]], scale.dtype)
    return np.stack([h3 + w3 + h5 + w5, h3 + h5, h5, w3 + w5, w5])


def _overlaps(out, x):
    """For each offset of the cross: the part of ``out`` whose neighbour there lies in the grid, that neighbour's
    part of ``x``, and the number of the weight between them."""
    _, h, w, _ = x.shape
    for dy, dx, kind in _OFFSETS:
        here = np.s_[:, max(0, -dy) : max(0, h - max(0, dy)), max(0, -dx) : max(0, w - max(0, dx))]
        there = np.s_[:, max(0, dy) : max(0, h + min(0, dy)), max(0, dx) : max(0, w + min(0, dx))]
        yield out[here], x[there], kind


# --- means of cells ----------------------------------------------------------------------------------------------


@exact_njit
def _cell_means(x, size, out, start, stop):
    n = x.dtype.type(size * size)
    for line in range(start, stop):
        image, i = x[line // out.shape[1]], line % out.shape[1]
        for j in range(out.shape[2]):
            target = out[line // out.shape[1], i, j]
            for cell in range(size * size):
                source = image[i * size + cell // size, j * size + cell % size]
                for c in range(target.shape[0]):
                    target[c] += source[c]
            for c in range(target.shape[0]):
                target[c] /= n


def cell_means(x, size):
    """Means of cells of size x size tokens, which are added up row by row: (B, H, W, C) -> (B, H/size, W/size, C)."""
    if get_backend() == "numpy":
        return cell_means_numpy(x, size)
    x, (b, h, w, c) = np.ascontiguousarray(x), x.shape
    out = np.zeros((b, h // size, w // size, c), x.dtype)
    parallel_for(
        lambda start, stop: _cell_means(x, size, out, start, stop), b * (h // size), _GRAIN // max(1, size * w * c)
    )
    return out


def cell_means_numpy(x, size):
    """What ``cell_means`` computes."""
    total = 0
    for i in range(size):
        for j in range(size):
            total = total + x[:, i::size, j::size]
    return total / x.dtype.type(size * size)


def _lines(x):
    """x (B, H, W, C) as (B, H, W C)."""
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
