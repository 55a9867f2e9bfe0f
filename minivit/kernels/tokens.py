"""Kernels over the channels of tokens (R, C), channels last: batch normalisation, RPReLU, means of neighbours.

They are what stands between the products of a binary network, and are bound by memory: each makes as few passes over
an array as it can, one, or one more where sums over all rows are needed first.
"""

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.rows import BLOCK, column_sums
from minivit.kernels.threads import parallel_for, partial_sums, row_grain

# --- batch normalisation, and every other map x -> x a + b for each channel ----------------------------------------


@njit
def _sums_of_squares(x, mean, total):
    for start in range(0, x.shape[0], BLOCK):
        part = np.zeros_like(total)
        for i in range(start, min(start + BLOCK, x.shape[0])):
            for j in range(x.shape[1]):
                part[j] += (x[i, j] - mean[j]) * (x[i, j] - mean[j])
        total += part


@exact_njit
def _normalize(x, mean, scale, bias, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - mean[j]) * scale[j] + bias[j]


@njit
def _normalize_sums(g, x, mean, totals):
    for start in range(0, x.shape[0], BLOCK):
        part = np.zeros_like(totals)
        part_gx, part_g = part[0], part[1]
        for i in range(start, min(start + BLOCK, x.shape[0])):
            for j in range(x.shape[1]):
                part_gx[j] += g[i, j] * (x[i, j] - mean[j])
                part_g[j] += g[i, j]
        totals += part


@njit
def _normalize_backward(g, x, mean, scale, mean_g, slope, dx):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            dx[i, j] = scale[j] * (g[i, j] - mean_g[j] - (x[i, j] - mean[j]) * slope[j])


def statistics(x):
    """Mean and biased variance of each channel of x (R, C): (C,) and (C,)."""
    if get_backend() == "numpy":
        return statistics_numpy(x)
    x, n = np.ascontiguousarray(x), x.dtype.type(len(x))
    mean = column_sums(x) / n
    squares = partial_sums(
        lambda a, b, total: _sums_of_squares(x[a:b], mean, total), len(x), row_grain(x), x.shape[1:], x.dtype
    )
    return mean, squares / n


def statistics_numpy(x):
    """What ``statistics`` computes; in float64, because NumPy adds up rows one by one."""
    return tuple(s(x, axis=0, dtype=np.float64).astype(x.dtype) for s in (np.mean, np.var))


def normalize(x, mean, rstd, weight, bias):
    """(x - mean) rstd weight + bias for each channel of x (R, C); all others are (C,)."""
    if get_backend() == "numpy":
        return normalize_numpy(x, mean, rstd, weight, bias)
    x, scale = np.ascontiguousarray(x), rstd * weight
    out = np.empty_like(x)
    parallel_for(lambda a, b: _normalize(x[a:b], mean, scale, bias, out[a:b]), len(x), row_grain(x))
    return out


def normalize_numpy(x, mean, rstd, weight, bias):
    """What ``normalize`` computes."""
    return (x - mean) * (rstd * weight) + bias


def normalize_backward(g, x, mean, rstd, weight, own_statistics):
    """Cotangents (dx, dweight, dbias) of ``normalize``, given ``g`` (R, C), the cotangent of its result.

    Args:
        own_statistics: whether mean and rstd are those of x, and so depend on it.
    """
    if get_backend() == "numpy":
        return normalize_backward_numpy(g, x, mean, rstd, weight, own_statistics)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    n, scale, dx = g.dtype.type(len(g)), rstd * weight, np.empty_like(g)
    shape = (2, g.shape[1])
    dweight, dbias = partial_sums(
        lambda a, b, totals: _normalize_sums(g[a:b], x[a:b], mean, totals), len(g), row_grain(g), shape, g.dtype
    )
    dweight *= rstd
    mean_g, slope = (dbias / n, dweight * rstd / n) if own_statistics else np.zeros(shape, g.dtype)

    def body(a, b):
        _normalize_backward(g[a:b], x[a:b], mean, scale, mean_g, slope, dx[a:b])

    parallel_for(body, len(g), row_grain(g))
    return dx, dweight, dbias


def normalize_backward_numpy(g, x, mean, rstd, weight, own_statistics):
    """What ``normalize_backward`` computes."""
    normed = (x - mean) * rstd
    dweight, dbias = (g * normed).sum(axis=0), g.sum(axis=0)
    if own_statistics:
        g = g - g.mean(axis=0) - normed * (g * normed).mean(axis=0)
    return g * (rstd * weight), dweight, dbias


# --- RPReLU ------------------------------------------------------------------------------------------------------


@exact_njit
def _rprelu(x, shift_in, slope, shift_out, out):
    zero = x.dtype.type(0)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            t = x[i, j] - shift_in[j]
            out[i, j] = (t if t > zero else slope[j] * t) + shift_out[j]


@njit
def _rprelu_backward(g, x, shift_in, slope, dx, totals):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for start in range(0, x.shape[0], BLOCK):
        part = np.zeros_like(totals)
        part_dx, part_slope, part_g = part[0], part[1], part[2]
        for i in range(start, min(start + BLOCK, x.shape[0])):
            for j in range(x.shape[1]):
                t = x[i, j] - shift_in[j]
                d = g[i, j] * (one if t > zero else slope[j])
                dx[i, j] = d
                part_dx[j] += d
                part_slope[j] += g[i, j] * (zero if t > zero else t)
                part_g[j] += g[i, j]
        totals += part


def rprelu(x, shift_in, slope, shift_out):
    """max(t, 0) + slope min(t, 0) + shift_out with t = x - shift_in. x: (R, C), all others (C,)."""
    if get_backend() == "numpy":
        return rprelu_numpy(x, shift_in, slope, shift_out)
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    parallel_for(lambda a, b: _rprelu(x[a:b], shift_in, slope, shift_out, out[a:b]), len(x), row_grain(x))
    return out


def rprelu_numpy(x, shift_in, slope, shift_out):
    """What ``rprelu`` computes."""
    t = x - shift_in
    return np.where(t > 0, t, slope * t) + shift_out


def rprelu_backward(g, x, shift_in, slope):
    """Cotangents (dx, dshift_in, dslope, dshift_out) of ``rprelu``, given ``g`` (R, C), that of its result."""
    if get_backend() == "numpy":
        return rprelu_backward_numpy(g, x, shift_in, slope)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    dx = np.empty_like(g)

    def body(a, b, totals):
        _rprelu_backward(g[a:b], x[a:b], shift_in, slope, dx[a:b], totals)

    sum_dx, dslope, sum_g = partial_sums(body, len(g), row_grain(g), (3, g.shape[1]), g.dtype)
    return dx, -sum_dx, dslope, sum_g


def rprelu_backward_numpy(g, x, shift_in, slope):
    """What ``rprelu_backward`` computes."""
    t = x - shift_in
    dx = np.where(t > 0, g, slope * g)
    return dx, -dx.sum(axis=0), (g * np.minimum(t, 0)).sum(axis=0), g.sum(axis=0)


# --- means of neighbouring channels ------------------------------------------------------------------------------


@exact_njit
def _mean_neighbours(y, means):
    """One row: means of y.size / means.size channels, summed from left to right."""
    size = y.shape[0] // means.shape[0]
    part = y.dtype.type(1) / y.dtype.type(size)
    if size == 4:  # written out, so that it vectorises
        for c in range(means.shape[0]):
            means[c] = (((y[4 * c] + y[4 * c + 1]) + y[4 * c + 2]) + y[4 * c + 3]) * part
    elif size == 8:
        for c in range(means.shape[0]):
            total = ((y[8 * c] + y[8 * c + 1]) + y[8 * c + 2]) + y[8 * c + 3]
            means[c] = ((((total + y[8 * c + 4]) + y[8 * c + 5]) + y[8 * c + 6]) + y[8 * c + 7]) * part
    else:
        for c in range(means.shape[0]):
            total = y[size * c]
            for m in range(1, size):
                total += y[size * c + m]
            means[c] = total * part


@exact_njit
def _mean_neighbours_of_rows(y, means):
    for i in range(y.shape[0]):
        _mean_neighbours(y[i], means[i])


def mean_neighbours(y, width):
    """Means (R, width) of neighbouring channels of y (R, C), C a multiple of ``width``."""
    if get_backend() == "numpy":
        return mean_neighbours_numpy(y, width)
    y, means = np.ascontiguousarray(y), np.empty((len(y), width), y.dtype)
    parallel_for(lambda a, b: _mean_neighbours_of_rows(y[a:b], means[a:b]), len(y), row_grain(y))
    return means


def mean_neighbours_numpy(y, width):
    """What ``mean_neighbours`` computes."""
    groups = y.reshape(len(y), width, y.shape[1] // width)
    total = groups[:, :, 0].copy()
    for m in range(1, groups.shape[2]):
        total += groups[:, :, m]
    return total * y.dtype.type(1 / groups.shape[2])
