"""Kernels over the rows of a matrix: adding a bias, sums of columns and of rows, LayerNorm.

A row is one token. These loops are bound by memory, so the point is to touch each array once.
"""

import math

import numpy as np

from minivit.kernels.backend import exact_njit, get_backend, njit
from minivit.kernels.threads import parallel_for, partial_sums, row_grain

BLOCK = 64  # rows summed by themselves, so that the error of a float32 sum grows far more slowly with their number


# --- bias --------------------------------------------------------------------------------------------------------


@njit
def _add_bias(x, bias):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += bias[j]


@njit
def _column_sums(x, total):
    for start in range(0, x.shape[0], BLOCK):
        part = np.zeros_like(total)
        for i in range(start, min(start + BLOCK, x.shape[0])):
            for j in range(x.shape[1]):
                part[j] += x[i, j]
        total += part


def add_bias(x, bias):
    """x += bias in place. x: (R, D). bias: (D,). Serial: for a block of rows that one thread has just made."""
    if get_backend() == "numpy":
        x += bias
    else:
        _add_bias(x, bias)


def column_sums(x):
    """Sum of the rows of x (R, D): (D,)."""
    if get_backend() == "numpy":
        return column_sums_numpy(x)
    x = np.ascontiguousarray(x)
    return partial_sums(lambda a, b, total: _column_sums(x[a:b], total), len(x), row_grain(x), x.shape[1:], x.dtype)


def column_sums_numpy(x):
    """What ``column_sums`` computes; in float64, because NumPy adds up rows one by one."""
    return x.sum(axis=0, dtype=np.float64).astype(x.dtype)


# --- sums of rows ------------------------------------------------------------------------------------------------


@exact_njit
def _sum(row):
    zero = row.dtype.type(0)
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    whole = row.shape[0] // 8 * 8
    for start in range(0, whole, 8):
        x = row[start : start + 8]
        a, b, c, d, e, f, g, h = a + x[0], b + x[1], c + x[2], d + x[3], e + x[4], f + x[5], g + x[6], h + x[7]
    total = ((a + e) + (c + g)) + ((b + f) + (d + h))
    for j in range(whole, row.shape[0]):
        total += row[j]
    return total


@exact_njit
def _row_sums(x, total):
    for i in range(x.shape[0]):
        total[i] = _sum(x[i])


def row_sums(x):
    """Sums over the last axis in one order, so that softmax rounds alike in floats and on bits: (..., D) -> (...).

    Entry j goes into partial sum j % 8. Of those the upper half is added to the lower until one is left, and then, one
    by one, the up to 7 entries behind the last whole group.
    """
    if get_backend() == "numpy":
        return row_sums_numpy(x)
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    total = np.empty(len(rows), x.dtype)
    parallel_for(lambda a, b: _row_sums(rows[a:b], total[a:b]), len(rows), row_grain(rows))
    return total.reshape(x.shape[:-1])


def row_sums_numpy(x):
    """What ``row_sums`` computes."""
    whole = x.shape[-1] // 8 * 8
    parts = np.zeros((*x.shape[:-1], 8), x.dtype)
    for start in range(0, whole, 8):
        parts += x[..., start : start + 8]
    while parts.shape[-1] > 1:
        half = parts.shape[-1] // 2
        parts = parts[..., :half] + parts[..., half:]
    total = parts[..., 0]
    for j in range(whole, x.shape[-1]):
        total = total + x[..., j]
    return total


# --- LayerNorm ---------------------------------------------------------------------------------------------------


@njit
def _layer_norm(x, weight, bias, eps, out, mean, rstd, start, stop):
    n = x.dtype.type(x.shape[1])
    one = x.dtype.type(1)
    for i in range(start, stop):
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        m = total / n
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += (x[i, j] - m) * (x[i, j] - m)
        r = one / math.sqrt(total / n + eps)
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - m) * r * weight[j] + bias[j]
        mean[i], rstd[i] = m, r


@njit
def _layer_norm_backward(g, x, weight, mean, rstd, dx, start, stop, totals):
    dweight, dbias = totals[0], totals[1]
    n = x.dtype.type(x.shape[1])
    for i in range(start, stop):
        m, r = mean[i], rstd[i]
        sum_g, sum_gx = x.dtype.type(0), x.dtype.type(0)
        for j in range(x.shape[1]):
            normed = (x[i, j] - m) * r
            gw = g[i, j] * weight[j]
            sum_g += gw
            sum_gx += gw * normed
            dweight[j] += g[i, j] * normed
            dbias[j] += g[i, j]
        mean_g, mean_gx = sum_g / n, sum_gx / n
        for j in range(x.shape[1]):
            dx[i, j] = r * (g[i, j] * weight[j] - mean_g - (x[i, j] - m) * r * mean_gx)


def layer_norm(x, weight, bias, eps):
    """Normalise each row to mean 0 and biased variance 1, then scale and shift.

    Args:
        x: (R, D). weight, bias: (D,). eps: added to the variance.

    Returns:
        out (R, D), mean (R,), rstd (R,) = 1 / sqrt(variance + eps).
    """
    if get_backend() == "numpy":
        return layer_norm_numpy(x, weight, bias, eps)
    x = np.ascontiguousarray(x)
    out, mean, rstd = np.empty_like(x), np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    eps = x.dtype.type(eps)
    parallel_for(lambda a, b: _layer_norm(x, weight, bias, eps, out, mean, rstd, a, b), len(x), row_grain(x))
    return out, mean, rstd


def layer_norm_numpy(x, weight, bias, eps):
    """What ``layer_norm`` computes."""
    mean, variance = x.mean(axis=1), x.var(axis=1)
    rstd = (1 / np.sqrt(variance + eps)).astype(x.dtype)
    return (x - mean[:, None]) * rstd[:, None] * weight + bias, mean, rstd


def layer_norm_backward(g, x, weight, mean, rstd):
    """Cotangents (dx, dweight, dbias) of ``layer_norm``, given ``g``, the cotangent of ``out``."""
    if get_backend() == "numpy":
        return layer_norm_backward_numpy(g, x, weight, mean, rstd)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    dx = np.empty_like(x)

    def body(start, stop, totals):
        _layer_norm_backward(g, x, weight, mean, rstd, dx, start, stop, totals)

    dweight, dbias = partial_sums(body, len(x), row_grain(x), (2, x.shape[1]), x.dtype)
    return dx, dweight, dbias


def layer_norm_backward_numpy(g, x, weight, mean, rstd):
    """What ``layer_norm_backward`` computes."""
    normed = (x - mean[:, None]) * rstd[:, None]
    gw = g * weight
    centred = gw - gw.mean(axis=1, keepdims=True) - normed * (gw * normed).mean(axis=1, keepdims=True)
    return rstd[:, None] * centred, (g * normed).sum(axis=0), g.sum(axis=0)
