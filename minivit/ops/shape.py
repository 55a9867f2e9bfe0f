"""Ops that move elements without changing them: their VJPs move cotangents back."""

import builtins

import numpy as np

from minivit.tensor import op


@op
def reshape(a, /, shape):
    """The same elements, in row-major order, in another ``shape`` (one entry may be -1)."""
    return a.reshape(shape), (lambda g: g.reshape(a.shape),)


@op
def transpose(a, /, axes=None):
    """Permute the axes; by default reverse them."""
    order = tuple(reversed(range(a.ndim))) if axes is None else tuple(axes)
    out = a.transpose(order)
    return out, (lambda g: g.transpose(np.argsort([i % a.ndim for i in order])),)


def swapaxes(a, axis1, axis2):
    """Exchange two axes."""
    order = list(range(a.ndim))
    try:
        order[axis1], order[axis2] = order[axis2], order[axis1]
    except IndexError:
        raise IndexError(f"swapaxes: axes {axis1} and {axis2} of a tensor of shape {a.shape}") from None
    return transpose(a, order)


@op
def squeeze(a, /, axis=None):
    """Remove axes of size 1: all, or those named by ``axis``."""
    return a.squeeze(axis), (lambda g: g.reshape(a.shape),)


@op
def expand_dims(a, /, axis):
    """Insert an axis of size 1 at each position ``axis`` of the result."""
    return np.expand_dims(a, axis), (lambda g: g.reshape(a.shape),)


@op
def broadcast_to(a, /, shape):
    """Repeat axes of size 1, and new leading axes, up to ``shape``. The result is a read-only view."""
    return np.broadcast_to(a, shape), (lambda g: g,)  # the tape sums over broadcast axes


@op
def _concat(*arrays, axis=0):
    out = np.concatenate(arrays, axis)
    bounds = np.cumsum([0] + [a.shape[axis] for a in arrays])

    def piece(i):
        index = [builtins.slice(None)] * out.ndim
        index[axis] = builtins.slice(bounds[i], bounds[i + 1])
        return lambda g: g[tuple(index)]

    return out, tuple(piece(i) for i in range(len(arrays)))


def concat(tensors, axis=0):
    """Join tensors along an axis that exists. All other sizes must agree."""
    return _concat(*tensors, axis=axis)


@op
def _stack(*arrays, axis=0):
    def piece(i):
        return lambda g: g.take(i, axis)

    return np.stack(arrays, axis), tuple(piece(i) for i in range(len(arrays)))


def stack(tensors, axis=0):
    """Join tensors of one shape along a new axis."""
    return _stack(*tensors, axis=axis)


def split(a, sections, axis=0):
    """Cut along ``axis`` into ``sections`` equal parts (an int) or before the given indices: a list of tensors."""
    if not -a.ndim <= axis < a.ndim:
        raise IndexError(f"split: axis {axis} of a tensor of shape {a.shape}")
    size = a.shape[axis]
    if isinstance(sections, (int, np.integer)):
        if sections < 1 or size % sections:
            raise ValueError(f"split: axis {axis} of size {size} does not divide into {sections} equal parts")
        cuts = [size // sections * i for i in range(1, sections)]
    else:
        cuts = list(sections)
    index = (builtins.slice(None),) * (axis % a.ndim)
    return [getitem(a, (*index, builtins.slice(i, j))) for i, j in zip([0, *cuts], [*cuts, size], strict=True)]


@op
def pad(a, /, widths, value=0.0):
    """Surround with a constant. ``widths``: a pair (before, after) for each axis, or one number for all sides."""
    widths = np.broadcast_to(widths, (a.ndim, 2))
    if (widths < 0).any():
        raise ValueError(f"expected widths of at least 0, got {widths.tolist()}")
    inner = tuple(builtins.slice(w[0], w[0] + n) for w, n in zip(widths, a.shape, strict=True))
    return np.pad(a, widths, constant_values=value), (lambda g: g[inner],)


@op
def roll(a, /, shift, axis=None):
    """Shift elements cyclically along ``axis`` (an int or a tuple, with a shift for each)."""
    return np.roll(a, shift, axis), (lambda g: np.roll(g, np.negative(shift), axis),)


@op
def flip(a, /, axis=None):
    """Reverse the order along ``axis`` (None: along all). The result is a view with negative strides."""
    return np.flip(a, axis), (lambda g: np.flip(g, axis),)


@op
def getitem(a, /, index):
    """``a[index]`` for everything that NumPy takes: slices, integers, None, ..., integer and boolean arrays.

    An element that is picked several times gets the sum of its cotangents.
    """
    index = index if isinstance(index, tuple) else (index,)
    index = tuple(_plain_index(i) for i in index)
    basic = builtins.all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, builtins.slice)) for i in index)

    def vjp(g):
        out = np.zeros(a.shape, g.dtype)
        if basic:
            out[index] = g
        else:
            np.add.at(out, index, g)
        return out

    return a[index], (vjp,)


def _plain_index(i):
    """Tensors and lists and arrays as new arrays, because the caller may go on to change them."""
    if isinstance(i, list) and not i:
        return np.empty(0, np.intp)
    return np.array(i) if isinstance(i, (list, np.ndarray)) or hasattr(i, "requires_grad") else i
