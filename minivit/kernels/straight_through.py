"""Kernels for training with one-bit numbers kept as floats: what is rounded, and what passes its gradient.

The forward pass rounds; the backward pass uses the derivative of a continuous function in its place (Bengio et al.
2013, "straight-through"). A sign may flip between two floats that differ in their last digit, so the means that decide
the signs of weights are summed in float64 and then rounded: for float32 weights both forms of the kernels find the same
mean, except where it lies so near to halfway between two floats that the order of even that sum matters.
"""

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.rows import BLOCK
from minivit.kernels.threads import parallel_for, partial_sums, row_grain

# --- sign of activations -----------------------------------------------------------------------------------------


@njit
def _sign(x, shift, out):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = one if x[i, j] + shift[j] >= zero else -one


@njit
def _sign_backward(g, x, shift, clipped, dx, total):
    zero, one, two = x.dtype.type(0), x.dtype.type(1), x.dtype.type(2)
    for start in range(0, x.shape[0], BLOCK):
        part = np.zeros_like(total)
        for i in range(start, min(start + BLOCK, x.shape[0])):
            for j in range(x.shape[1]):
                distance = abs(x[i, j] + shift[j])
                slope = one if clipped else two - two * distance
                dx[i, j] = g[i, j] * slope if distance <= one else zero
                part[j] += dx[i, j]
        total += part


def sign(x, shift):
    """+1 where x + shift >= 0, else -1. x: (R, C). shift: (C,)."""
    if get_backend() == "numpy":
        return sign_numpy(x, shift)
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    parallel_for(lambda a, b: _sign(x[a:b], shift, out[a:b]), len(x), row_grain(x))
    return out


def sign_numpy(x, shift):
    """What ``sign`` computes."""
    return np.where(x + shift >= 0, x.dtype.type(1), x.dtype.type(-1))


def sign_backward(g, x, shift, clipped):
    """Cotangents (dx, dshift) by the clipped estimator, or by that of Bi-Real Net; ``g`` (R, C) is the result's."""
    if get_backend() == "numpy":
        return sign_backward_numpy(g, x, shift, clipped)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    dx = np.empty_like(g)

    def body(a, b, total):
        _sign_backward(g[a:b], x[a:b], shift, clipped, dx[a:b], total)

    return dx, partial_sums(body, len(g), row_grain(g), shift.shape, g.dtype)


def sign_backward_numpy(g, x, shift, clipped):
    """What ``sign_backward`` computes."""
    distance = np.abs(x + shift)
    dx = np.where(distance <= 1, g if clipped else g * (2 - 2 * distance), 0)
    return dx, dx.sum(axis=0)


# --- weights -----------------------------------------------------------------------------------------------------


@njit
def _binary_weight(weight, centred, out, mean):
    zero = weight.dtype.type(0)
    for i in range(weight.shape[0]):
        total, size = np.float64(0), np.float64(0)  # Python's floats would give way to float32 without the compiler
        for j in range(weight.shape[1]):
            total += weight[i, j]
            size += abs(weight[i, j])
        mean[i] = total / weight.shape[1] if centred else zero
        scale = weight.dtype.type(size / weight.shape[1])
        for j in range(weight.shape[1]):
            out[i, j] = scale if weight[i, j] - mean[i] >= zero else -scale


@njit
def _binary_weight_backward(g, weight, mean, centred, dweight):
    zero, one = g.dtype.type(0), g.dtype.type(1)
    for i in range(weight.shape[0]):
        total = zero
        for j in range(weight.shape[1]):
            dweight[i, j] = g[i, j] if abs(weight[i, j] - mean[i]) <= one else zero
            total += dweight[i, j]
        if centred:
            for j in range(weight.shape[1]):
                dweight[i, j] -= total / weight.shape[1]


def binary_weight(weight, centred):
    """Scale and signs of each row of ``weight`` (O, K): mean |w| times the sign of w, or of w - mean(w).

    Returns:
        The binary weight (O, K), and what was subtracted from each row: its mean if ``centred``, or 0.
    """
    if get_backend() == "numpy":
        return binary_weight_numpy(weight, centred)
    weight = np.ascontiguousarray(weight)
    out, mean = np.empty_like(weight), np.empty(len(weight), weight.dtype)
    parallel_for(lambda a, b: _binary_weight(weight[a:b], centred, out[a:b], mean[a:b]), len(weight), row_grain(weight))
    return out, mean


def binary_weight_numpy(weight, centred):
    """What ``binary_weight`` computes."""
    mean = weight.mean(axis=1, dtype=np.float64) if centred else np.zeros(len(weight))
    mean = mean.astype(weight.dtype)
    scale = np.abs(weight).mean(axis=1, dtype=np.float64).astype(weight.dtype)[:, None]
    return np.where(weight - mean[:, None] >= 0, scale, -scale), mean


def binary_weight_backward(g, weight, mean, centred):
    """Cotangent of the weight by the clipped estimator, given ``g`` (O, K), that of the binary weight."""
    if get_backend() == "numpy":
        return binary_weight_backward_numpy(g, weight, mean, centred)
    g, weight = np.ascontiguousarray(g), np.ascontiguousarray(weight)
    dweight = np.empty_like(g)

    def body(a, b):
        _binary_weight_backward(g[a:b], weight[a:b], mean[a:b], centred, dweight[a:b])

    parallel_for(body, len(g), row_grain(g))
    return dweight


def binary_weight_backward_numpy(g, weight, mean, centred):
    """What ``binary_weight_backward`` computes."""
    dweight = np.where(np.abs(weight - mean[:, None]) <= 1, g, 0)
    return dweight - dweight.mean(axis=1, keepdims=True) if centred else dweight
