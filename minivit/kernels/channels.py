"""Kernels over the channels of images (B, C, L): batch normalisation. L counts the pixels of an image.

Sums over all images and pixels of a channel are needed first, so that every array is read several times, but never
copied.
"""

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for, partial_sums, row_grain


@njit
def _sums(x, total):
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row, s = x[b, c], x.dtype.type(0)
            for i in range(row.size):
                s += row[i]
            total[c] += s


@njit
def _sums_of_squares(x, mean, total):
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row, m, s = x[b, c], mean[c], x.dtype.type(0)
            for i in range(row.size):
                s += (row[i] - m) * (row[i] - m)
            total[c] += s


@njit
def _normalize(x, mean, scale, bias, out):
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            row, target, m, s, shift = x[b, c], out[b, c], mean[c], scale[c], bias[c]
            for i in range(row.size):
                target[i] = (row[i] - m) * s + shift


@njit
def _normalize_sums(g, x, mean, rstd, totals):
    for b in range(g.shape[0]):
        for c in range(g.shape[1]):
            grad, row, m = g[b, c], x[b, c], mean[c]
            s, s_x = g.dtype.type(0), g.dtype.type(0)
            for i in range(row.size):
                s += grad[i]
                s_x += grad[i] * (row[i] - m)
            totals[0, c] += s_x * rstd[c]
            totals[1, c] += s


@njit
def _normalize_backward(g, x, mean, scale, mean_g, slope, dx):
    for b in range(g.shape[0]):
        for c in range(g.shape[1]):
            grad, row, target = g[b, c], x[b, c], dx[b, c]
            m, s, m_g, t = mean[c], scale[c], mean_g[c], slope[c]
            for i in range(row.size):
                target[i] = s * (grad[i] - m_g - (row[i] - m) * t)


def statistics(x):
    """Mean and biased variance of each channel of x (B, C, L): (C,) and (C,)."""
    if get_backend() == "numpy":
        return statistics_numpy(x)
    x, n, shape = np.ascontiguousarray(x), x.dtype.type(x.shape[0] * x.shape[2]), x.shape[1:2]
    mean = partial_sums(lambda a, b, total: _sums(x[a:b], total), len(x), row_grain(x), shape, x.dtype) / n
    squares = partial_sums(
        lambda a, b, total: _sums_of_squares(x[a:b], mean, total), len(x), row_grain(x), shape, x.dtype
    )
    return mean, squares / n


def statistics_numpy(x):
    """What ``statistics`` computes."""
    return x.mean(axis=(0, 2)), x.var(axis=(0, 2))


def normalize(x, mean, rstd, weight, bias):
    """(x - mean) rstd weight + bias for each channel of x (B, C, L); all others are (C,)."""
    if get_backend() == "numpy":
        return normalize_numpy(x, mean, rstd, weight, bias)
    x, scale = np.ascontiguousarray(x), rstd * weight
    out = np.empty_like(x)
    parallel_for(lambda a, b: _normalize(x[a:b], mean, scale, bias, out[a:b]), len(x), row_grain(x))
    return out


def normalize_numpy(x, mean, rstd, weight, bias):
    """What ``normalize`` computes."""
    return (x - mean[:, None]) * rstd[:, None] * weight[:, None] + bias[:, None]


def normalize_backward(g, x, mean, rstd, weight, own_statistics):
    """Cotangents (dx, dweight, dbias) of ``normalize``, given ``g`` (B, C, L), the cotangent of its result.

    Args:
        own_statistics: whether mean and rstd are those of x, and so depend on it.
    """
    if get_backend() == "numpy":
        return normalize_backward_numpy(g, x, mean, rstd, weight, own_statistics)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    n, scale, dx = g.dtype.type(g.shape[0] * g.shape[2]), rstd * weight, np.empty_like(g)

    def add_sums(a, b, totals):
        _normalize_sums(g[a:b], x[a:b], mean, rstd, totals)

    dweight, dbias = partial_sums(add_sums, len(g), row_grain(g), (2, g.shape[1]), g.dtype)
    mean_g, slope = (dbias / n, dweight * rstd / n) if own_statistics else np.zeros((2, g.shape[1]), g.dtype)

    def body(a, b):
        _normalize_backward(g[a:b], x[a:b], mean, scale, mean_g, slope, dx[a:b])

    parallel_for(body, len(g), row_grain(g))
    return dx, dweight, dbias


def normalize_backward_numpy(g, x, mean, rstd, weight, own_statistics):
    """What ``normalize_backward`` computes."""
    normed = (x - mean[:, None]) * rstd[:, None]
    dweight, dbias = (g * normed).sum(axis=(0, 2)), g.sum(axis=(0, 2))
    if own_statistics:
        g = g - g.mean(axis=(0, 2))[:, None] - normed * (g * normed).mean(axis=(0, 2))[:, None]
    return g * (rstd * weight)[:, None], dweight, dbias
