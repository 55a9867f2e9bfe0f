"""LayerNorm and BatchNorm."""

import math

import numpy as np

from minivit.kernels import channels, rows, tokens
from minivit.tensor import op, require_floats


@op
def layer_norm(x, weight, bias, /, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016); the variance is biased.

    Args:
        x: (..., D). weight, bias: (D,).
    """
    require_floats(x, weight, bias)
    if x.ndim < 1 or x.shape[-1] == 0 or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError("expected x of shape (..., D), D at least 1, and a weight and a bias of shape (D,)")
    x2 = x.reshape(-1, x.shape[-1])
    out, mean, rstd = rows.layer_norm(x2, weight, bias, eps)

    def vjp(g):
        dx, dweight, dbias = rows.layer_norm_backward(g.reshape(x2.shape), x2, weight, mean, rstd)
        return dx.reshape(x.shape), dweight, dbias

    return out.reshape(x.shape), vjp


@op
def batch_norm(x, weight, bias, /, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """Normalise each channel over all other axes (Ioffe & Szegedy 2015).

    Args:
        x: (B, C, ...), such as images (B, C, H, W); or (R, C), rows of tokens.
        weight, bias: (C,).
        running_mean, running_var: arrays (C,). In training updated in place,
            ``r += momentum * (batch - r)``, with the unbiased variance; in evaluation used instead of the
            batch's own statistics.
        training: bool.
    """
    require_floats(x, weight, bias)
    if not isinstance(running_mean, np.ndarray) or not isinstance(running_var, np.ndarray):
        raise TypeError("expected the running statistics as arrays, which training updates in place")
    if x.ndim < 2 or not weight.shape == bias.shape == running_mean.shape == running_var.shape == x.shape[1:2]:
        raise ValueError("expected x of shape (B, C, ...), and weight, bias and running statistics of shape (C,)")
    kernel = tokens if x.ndim == 2 else channels
    flat = x if x.ndim == 2 else x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    n = math.prod(x.shape) // max(1, x.shape[1])
    if training:
        if n < 2:
            raise ValueError("expected more than one value for each channel in training")
        mean, variance = kernel.statistics(flat)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (variance * (n / (n - 1)) - running_var)
    else:
        mean, variance = running_mean.astype(x.dtype), running_var.astype(x.dtype)
    rstd = (1 / np.sqrt(variance + eps)).astype(x.dtype)

    def vjp(g):
        dx, dweight, dbias = kernel.normalize_backward(g.reshape(flat.shape), flat, mean, rstd, weight, training)
        return dx.reshape(x.shape), dweight, dbias

    return kernel.normalize(flat, mean, rstd, weight, bias).reshape(x.shape), vjp
