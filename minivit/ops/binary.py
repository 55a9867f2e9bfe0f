"""One-bit networks in floats: quantisers with straight-through gradients, products of what they give, and the
per-channel maps between (BinaryViT: Le & Li 2023, arXiv 2306.16678; its parts are of the papers named below).

A quantiser rounds, so that its derivative is 0 nearly everywhere. Its VJP is that of another function, which stands
beside it as its *surrogate*: the gradient checker differentiates that one. sign(0) is +1, because one bit holds two
values.
"""

import math

import numpy as np

from minivit.kernels import products, straight_through, tokens
from minivit.ops import elementwise
from minivit.tensor import op, require_floats

ESTIMATORS = ("bi_real", "clipped")

# --- quantisers --------------------------------------------------------------------------------------------------


@op
def sign(x, shift=None, /, estimator="bi_real"):
    """+1 where x + shift >= 0, else -1.

    Args:
        x: (..., C). shift: (C,), or None for 0.
        estimator: "bi_real" takes the derivative 2 - 2|x + shift| in [-1, 1] and 0 outside (Liu et al. 2018, Bi-Real
            Net, section 3.3); "clipped" takes 1 in [-1, 1] and 0 outside (Courbariaux,
            Hubara et al. 2016).
    """
    require_floats(x, shift)
    if estimator not in ESTIMATORS:
        raise ValueError(f"expected an estimator among {', '.join(ESTIMATORS)}, got {estimator!r}")
    rows = _rows(x)
    if shift is not None and shift.shape != rows.shape[1:]:
        raise ValueError("expected x of shape (..., C) and a shift of shape (C,)")
    moved = np.zeros(rows.shape[1], x.dtype) if shift is None else shift

    def vjp(g):
        dx, dshift = straight_through.sign_backward(g.reshape(rows.shape), rows, moved, estimator == "clipped")
        return dx.reshape(x.shape), None if shift is None else dshift

    return straight_through.sign(rows, moved).reshape(x.shape), vjp


def sign_surrogate(x, shift=None, estimator="bi_real"):
    """The function whose derivative ``sign`` uses: with t = x + shift limited to [-1, 1], t, or t (2 - |t|)."""
    t = elementwise.clip(x if shift is None else x + shift, -1, 1)
    return t if estimator == "clipped" else t * (2 - elementwise.abs(t))


@op
def binary_weight(weight, /, centred):
    """Scale times sign: mean |W| over the inputs of each output, times sign(W) (Rastegari et al. 2016, XNOR-Net).

    Args:
        weight: (O, ...), one row for each output.
        centred: whether the mean of each row is subtracted before the sign is taken.

    The gradient passes where the centred weight lies in [-1, 1], and its mean is subtracted if ``centred``; that of
    the scale is not taken, nor does the scale multiply it.
    """
    require_floats(weight)
    if weight.ndim < 2 or 0 in weight.shape:
        raise ValueError("expected a weight of shape (O, ...), not empty")
    rows = weight.reshape(len(weight), -1)
    out, mean = straight_through.binary_weight(rows, centred)

    def vjp(g):
        return straight_through.binary_weight_backward(g.reshape(rows.shape), rows, mean, centred).reshape(weight.shape)

    return out.reshape(weight.shape), (vjp,)


def binary_weight_surrogate(weight, centred):
    """The function whose derivative ``binary_weight`` uses: the centred weight limited to [-1, 1]."""
    if centred:
        weight = weight - weight.mean(axis=tuple(range(1, weight.ndim)), keepdims=True)
    return elementwise.clip(weight, -1, 1)


@op
def quantize_probabilities(p, level, /):
    """``level`` where p / level > 1/2, else 0: c clip(round(p / c), 0, 1) (Liu et al. 2022, BiT, section 3.2).

    Args:
        p: any shape. level: (), the learned c.

    With q = p / c the derivative in p is 1 for 0 <= q <= 1 and 0 elsewhere; that in c is round(q) - q there, 1 above
    and 0 below. BiT's scaling of the gradient is left out, as in the code of BinaryViT.
    """
    require_floats(p, level)
    if level.ndim:
        raise ValueError("expected a single level, of shape ()")
    q = p / level
    out = (q > 0.5) * level

    def vjp(g):
        inside = (q >= 0) & (q <= 1)
        slope = np.where(inside, np.rint(q) - q, q > 1)
        return g * inside, np.vdot(g, slope)

    return out, vjp


def quantize_probabilities_surrogate(p, level, rounding):
    """The function whose derivative ``quantize_probabilities`` uses: c (clip(p / c, 0, 1) + rounding).

    ``rounding`` is what rounding adds to clip(p / c, 0, 1) where the derivative is taken, held constant.
    """
    return level * (elementwise.clip(p / level, 0, 1) + rounding)


# --- products of two-valued numbers ------------------------------------------------------------------------------


@op
def binary_linear(x, weight, /):
    """x W^T of signs x (..., in) and a binary weight (out, in), in floats: what bits do with XNOR and popcount.

    Where each row of the weight is a scale times signs, the product of signs is a whole number and exact, and only
    then comes the scale. So floats and bits agree to the last digit.
    """
    require_floats(x, weight)
    if x.ndim < 1 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError("expected x of shape (..., in) and a weight of shape (out, in)")
    n, outputs = math.prod(x.shape[:-1]), len(weight)
    rows = x.reshape(n, x.shape[-1])
    scale = np.abs(weight).max(axis=1, initial=0)
    if (np.abs(weight) == scale[:, None]).all():
        out = products.times_transposed(rows, np.sign(weight), None)
        out *= scale
    else:  # no binary weight: a surrogate, or a step of the gradient checker
        out = products.times_transposed(rows, weight, None)
    return out.reshape(*x.shape[:-1], outputs), (
        lambda g: products.times(g.reshape(n, outputs), weight).reshape(x.shape),
        lambda g: products.transposed_times(g.reshape(n, outputs), rows),
    )


@op
def binary_matmul(a, b, /):
    """a @ b of two-valued matrices, in floats: {-1, 1} x {-1, 1} by XNOR, {0, c} x {-1, 1} by AND, and popcount.

    Args:
        a: (..., N, K), of -1 and 1, or of 0 and c. b: (..., K, M), of -1 and 1; all other axes agree.

    The level c comes after the exact product of whole numbers, as on bits.
    """
    require_floats(a, b)
    if min(a.ndim, b.ndim) < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ValueError("expected shapes (..., N, K) and (..., K, M)")
    level = np.abs(a).max(initial=0)
    two_valued = level not in (0, 1) and ((a == 0) | (a == level)).all()
    out = ((a / level) @ b) * level if two_valued else a @ b
    return out, (lambda g: g @ b.swapaxes(-1, -2), lambda g: a.swapaxes(-1, -2) @ g)


# --- per-channel maps --------------------------------------------------------------------------------------------


@op
def rprelu(x, shift_in, slope, shift_out, /):
    """PReLU between two shifts: max(t, 0) + slope min(t, 0) + shift_out, t = x - shift_in (Liu et al. 2020, ReActNet).

    Args:
        x: (..., C). shift_in, slope, shift_out: (C,). At t = 0 the derivative is ``slope``.
    """
    require_floats(x, shift_in, slope, shift_out)
    _require_channels(x, shift_in, slope, shift_out)
    rows = _rows(x)

    def vjp(g):
        dx, *others = tokens.rprelu_backward(g.reshape(rows.shape), rows, shift_in, slope)
        return dx.reshape(x.shape), *others

    return tokens.rprelu(rows, shift_in, slope, shift_out).reshape(x.shape), vjp


@op
def affine(x, scale, shift, /):
    """x * scale + shift for each channel. x: (..., C). scale, shift: (C,)."""
    require_floats(x, scale, shift)
    _require_channels(x, scale, shift)
    rows, zeros, ones = _rows(x), np.zeros_like(scale), np.ones_like(scale)

    def vjp(g):
        dx, *others = tokens.normalize_backward(g.reshape(rows.shape), rows, zeros, ones, scale, False)
        return dx.reshape(x.shape), *others

    return tokens.normalize(rows, zeros, ones, scale, shift).reshape(x.shape), vjp


@op
def add_shortcut(y, x, /):
    """y (..., D) plus x (..., C), whose channels are brought to D without weights.

    For D = e C that puts e copies side by side, so that channel j of y gets x[j mod C]; for C = e D it takes the mean
    of e neighbours, x[j e] ... x[j e + e - 1]. For D = C it is the plain sum.
    """
    require_floats(y, x)
    if 0 in (y.ndim, x.ndim) or y.shape[:-1] != x.shape[:-1] or 0 in (y.shape[-1], x.shape[-1]):
        raise ValueError("expected shapes (..., D) and (..., C)")
    after, before = y.shape[-1], x.shape[-1]
    if after % before and before % after:
        raise ValueError("expected one number of channels to be a multiple of the other")
    if after >= before:
        copies = (*x.shape[:-1], after // before, before)
        out = (y.reshape(copies) + x[..., None, :]).reshape(y.shape)
        return out, (lambda g: g, lambda g: g if after == before else g.reshape(copies).sum(axis=-2))
    size = before // after
    out = y + tokens.mean_neighbours(_rows(x), after).reshape(y.shape)
    return out, (lambda g: g, lambda g: np.repeat(g * x.dtype.type(1 / size), size, axis=-1))


def _rows(x):
    """x (..., C) as a matrix (R, C)."""
    return x.reshape(1, 1) if x.ndim == 0 else x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


def _require_channels(x, *vectors):
    if x.ndim == 0 or any(v.shape != x.shape[-1:] for v in vectors):
        raise ValueError("expected x of shape (..., C), and all others of shape (C,)")
