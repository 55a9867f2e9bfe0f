"""Ops that reduce axes. ``axis`` is None (all), an int or a tuple; ``keepdims`` keeps reduced axes with size 1."""

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from minivit.tensor import op


def _expand(g, shape, axis, keepdims):
    """View the cotangent ``g`` of a reduction of an array of ``shape`` as an array that broadcasts with it."""
    if keepdims:
        return g
    axes = _axes(shape, axis)
    return g.reshape([1 if i in axes else n for i, n in enumerate(shape)])


def _axes(shape, axis):
    """The axes that ``axis`` names, counted from the front. AxisError (a ValueError) if there is no such axis."""
    return range(len(shape)) if axis is None else normalize_axis_tuple(axis, len(shape))


def _count(shape, axis):
    return math.prod(shape[i] for i in _axes(shape, axis))


@op
def sum(a, /, axis=None, keepdims=False):
    """Sum over ``axis``."""
    return a.sum(axis, keepdims=keepdims), (lambda g: np.broadcast_to(_expand(g, a.shape, axis, keepdims), a.shape),)


@op
def mean(a, /, axis=None, keepdims=False):
    """Arithmetic mean over ``axis``. Raises ValueError for an empty axis."""
    out = _nonempty(a, axis).mean(axis, keepdims=keepdims)
    n = _count(a.shape, axis)
    return out, (lambda g: np.broadcast_to(_expand(g / n, a.shape, axis, keepdims), a.shape),)


@op
def var(a, /, axis=None, keepdims=False, correction=0):
    """Variance over ``axis``, divided by n - correction: biased as in NumPy by default (PyTorch's default is 1)."""
    centred = _nonempty(a, axis) - a.mean(axis, keepdims=True)
    n = _count(a.shape, axis) - correction
    if n <= 0:
        raise ValueError(f"expected more than {correction} elements for correction={correction}")
    out = (centred * centred).sum(axis, keepdims=keepdims) / n
    return out, (lambda g: _expand(g, a.shape, axis, keepdims) * centred * (2 / n),)


@op
def std(a, /, axis=None, keepdims=False, correction=0):
    """Standard deviation, the root of ``var``; derivative 0 where it is 0."""
    kept, (vjp_var,) = var.raw(a, axis, True, correction)
    kept = np.sqrt(kept)
    slope = np.divide(0.5, kept, out=np.zeros_like(kept), where=kept > 0)

    def vjp(g):
        return _expand(g, a.shape, axis, keepdims) * slope * (vjp_var(np.ones_like(kept)))

    return kept if keepdims else kept.reshape(_reduced_shape(a.shape, axis)), (vjp,)


@op
def max(a, /, axis=None, keepdims=False):
    """Largest element over ``axis``; ties share the cotangent equally."""
    return _extreme(a, a.max(axis, keepdims=True), axis, keepdims)


@op
def min(a, /, axis=None, keepdims=False):
    """Smallest element over ``axis``; ties share the cotangent equally."""
    return _extreme(a, a.min(axis, keepdims=True), axis, keepdims)


def _extreme(a, kept, axis, keepdims):
    def vjp(g):
        hit = (a == kept).astype(a.dtype)
        return _expand(g, a.shape, axis, keepdims) * hit / hit.sum(axis, keepdims=True)

    return kept if keepdims else kept.reshape(_reduced_shape(a.shape, axis)), (vjp,)


def _reduced_shape(shape, axis):
    axes = _axes(shape, axis)
    return [n for i, n in enumerate(shape) if i not in axes]


@op
def logsumexp(a, /, axis=None, keepdims=False):
    """log(sum(exp(a))) over ``axis``, shifted by the maximum so that nothing overflows."""
    _nonempty(a, axis)
    top = a.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # a row of -inf gives -inf, not NaN
    with np.errstate(divide="ignore", over="ignore"):
        kept = np.log(np.exp(a - top).sum(axis, keepdims=True)) + top
    out = kept if keepdims else kept.reshape(_reduced_shape(a.shape, axis))
    return out, (lambda g: _expand(g, a.shape, axis, keepdims) * np.exp(a - kept),)


def _nonempty(a, axis):
    if _count(a.shape, axis) == 0:
        raise ValueError(f"cannot reduce an empty axis (axis={axis})")
    return a
