"""NumPy's operators and method names on ``Tensor``, each one an op. Importing this module installs them."""

import math

import numpy as np

from minivit.ops import elementwise, linalg, loss, reduction, shape
from minivit.tensor import Tensor, describe, floating_dtype, to_array


def _reflected(function):
    return lambda self, other: function(other, self)


# --- operators ---------------------------------------------------------------------------------------------------

Tensor.__add__ = elementwise.add
Tensor.__radd__ = _reflected(elementwise.add)
Tensor.__sub__ = elementwise.sub
Tensor.__rsub__ = _reflected(elementwise.sub)
Tensor.__mul__ = elementwise.mul
Tensor.__rmul__ = _reflected(elementwise.mul)
Tensor.__truediv__ = elementwise.div
Tensor.__rtruediv__ = _reflected(elementwise.div)
Tensor.__pow__ = elementwise.pow
Tensor.__rpow__ = _reflected(elementwise.pow)
Tensor.__matmul__ = linalg.matmul
Tensor.__rmatmul__ = _reflected(linalg.matmul)
Tensor.__neg__ = elementwise.neg
Tensor.__pos__ = lambda self: self
Tensor.__abs__ = elementwise.abs
Tensor.__getitem__ = shape.getitem


# --- comparisons and logic: no gradient --------------------------------------------------------------------------


def _comparison(ufunc):
    def compare(self, other):
        dtype = floating_dtype([self, other])
        try:
            return Tensor(ufunc(to_array(self, dtype), to_array(other, dtype)))
        except (ValueError, TypeError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{ufunc.__name__}({describe([self, other])}): {error}") from error

    return compare


Tensor.__eq__ = _comparison(np.equal)
Tensor.__ne__ = _comparison(np.not_equal)
Tensor.__lt__ = _comparison(np.less)
Tensor.__le__ = _comparison(np.less_equal)
Tensor.__gt__ = _comparison(np.greater)
Tensor.__ge__ = _comparison(np.greater_equal)
Tensor.__and__ = Tensor.__rand__ = _comparison(np.bitwise_and)
Tensor.__or__ = Tensor.__ror__ = _comparison(np.bitwise_or)
Tensor.__invert__ = lambda self: Tensor(~self.data)
Tensor.__hash__ = object.__hash__  # tensors are dictionary keys by identity, as in PyTorch


def _iterate(self):
    """The tensors along the first axis."""
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d Tensor")
    return (self[i] for i in range(len(self)))


Tensor.__iter__ = _iterate


def _argmax(self, axis=None):
    """Index of the largest element, as an array; no gradient."""
    return self.data.argmax(axis)


def _argmin(self, axis=None):
    """Index of the smallest element, as an array; no gradient."""
    return self.data.argmin(axis)


def _all(self, axis=None, keepdims=False):
    """Whether all elements hold, as an array; no gradient."""
    return self.data.all(axis, keepdims=keepdims)


def _any(self, axis=None, keepdims=False):
    """Whether any element holds, as an array; no gradient."""
    return self.data.any(axis, keepdims=keepdims)


Tensor.argmax = _argmax
Tensor.argmin = _argmin
Tensor.all = _all
Tensor.any = _any
Tensor.tolist = lambda self: self.data.tolist()


# --- methods -----------------------------------------------------------------------------------------------------


def _reshape(self, *sizes):
    """``reshape(2, 3)`` or ``reshape((2, 3))``; one size may be -1."""
    return shape.reshape(self, sizes[0] if len(sizes) == 1 else sizes)


def _transpose(self, *axes):
    """``transpose()`` reverses the axes; ``transpose(1, 0)`` or ``transpose((1, 0))`` permutes them."""
    if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)):
        axes = axes[0]
    return shape.transpose(self, None if axes is None or len(axes) == 0 else axes)


def _flatten(self, start=0, end=-1):
    """Join the axes ``start`` to ``end`` (inclusive) into one."""
    first, last = (i + self.ndim if i < 0 else i for i in (start, end))
    if self.ndim and not 0 <= first <= last < self.ndim:
        raise IndexError(f"flatten: axes {start} to {end} of a tensor of shape {self.shape}")
    sizes = self.shape[first : last + 1]
    return shape.reshape(self, (*self.shape[:first], math.prod(sizes), *self.shape[last + 1 :]))


def _dot(self, other):
    """``self @ other`` for at most two axes, where NumPy's ``dot`` means the same."""
    if self.ndim > 2 or np.ndim(other) > 2:
        raise ValueError(f"dot({describe([self, other])}): expected at most 2 axes; for more, use @ or einsum")
    return linalg.matmul(self, other)


Tensor.reshape = _reshape
Tensor.transpose = _transpose
Tensor.permute = _transpose
Tensor.flatten = _flatten
Tensor.ravel = lambda self: shape.reshape(self, (-1,))
Tensor.T = property(shape.transpose, doc="All axes reversed.")
Tensor.astype = elementwise.astype
Tensor.swapaxes = shape.swapaxes
Tensor.squeeze = shape.squeeze
Tensor.unsqueeze = shape.expand_dims
Tensor.broadcast_to = shape.broadcast_to
Tensor.roll = shape.roll
Tensor.flip = shape.flip
Tensor.sum = reduction.sum
Tensor.mean = reduction.mean
Tensor.var = reduction.var
Tensor.std = reduction.std
Tensor.max = reduction.max
Tensor.min = reduction.min
Tensor.logsumexp = reduction.logsumexp
Tensor.exp = elementwise.exp
Tensor.log = elementwise.log
Tensor.sqrt = elementwise.sqrt
Tensor.abs = elementwise.abs
Tensor.tanh = elementwise.tanh
Tensor.sigmoid = elementwise.sigmoid
Tensor.erf = elementwise.erf
Tensor.relu = elementwise.relu
Tensor.gelu = elementwise.gelu
Tensor.clip = elementwise.clip
Tensor.softmax = loss.softmax
Tensor.log_softmax = loss.log_softmax
Tensor.matmul = linalg.matmul
Tensor.dot = _dot
