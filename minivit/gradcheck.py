"""Check gradients against finite differences: float64, with a random cotangent.

A cotangent of ones (``loss = out.sum()``) would be blind: with it a softmax whose VJP is wrong passes, because its
rows sum to one. A random cotangent weighs every output differently.
"""

import sys
import types

import numpy as np

from minivit.tensor import Tensor, no_grad


class GradientError(AssertionError):
    """The gradient of the tape is not the one of finite differences."""


def gradcheck(fn, inputs, *, surrogate=None, eps=1e-6, rtol=1e-5, atol=1e-7, seed=0):
    """Compare the tape's gradient of every input element with a central difference.

    Args:
        fn: takes the inputs as tensors, returns a tensor of any shape. It is called often, and must give the same
            result each time: an op with random masks gets a fresh generator of one seed inside ``fn``.
        inputs: floating arrays or tensors. They are used as float64, with the strides that they have; arrays of
            other dtypes are passed through and not differentiated.
        surrogate: the function that is differenced in place of ``fn``, for straight-through estimators.
        eps: step, times max(1, |x|).
        rtol, atol: allowed difference: ``atol + rtol * max(|expected|)`` over the input.
        seed: of the random cotangent.

    Raises:
        GradientError: says which input, which element, what was found and what expected; or that an op wrote to
            its input, or a VJP to its cotangent.
    """
    arrays = [_as_float64(x) for x in inputs]
    tensors = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    before = [a.copy() for a in arrays]
    out = fn(*tensors)
    cotangent = np.random.default_rng(seed).standard_normal(out.shape)
    if out.requires_grad:
        witness = Tensor(np.zeros(out.shape), requires_grad=True)  # gets the same cotangent as ``out``
        (out + witness).backward(cotangent)
        if not np.array_equal(witness.grad, cotangent):
            raise GradientError("a VJP wrote to its cotangent, which others share")
    for i, (array, copy) in enumerate(zip(arrays, before, strict=True)):
        if not np.array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
            raise GradientError(f"input {i} was changed in place")

    function = surrogate or fn

    def directional(args):
        with no_grad():
            return float((function(*args).data * cotangent).sum())

    for i, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        if array.dtype.kind != "f":
            continue
        expected = _finite_differences(lambda a, i=i: directional(arrays_with(arrays, i, a)), array, eps)
        found = np.zeros(array.shape) if tensor.grad is None else tensor.grad
        _compare(i, found, expected, rtol, atol)


def arrays_with(arrays, i, array):
    """Tensors of ``arrays`` with number ``i`` replaced."""
    return [Tensor(array if j == i else a) for j, a in enumerate(arrays)]


def _finite_differences(function, array, eps):
    """d function / d array by central differences, one element at a time, on a copy with the same strides."""
    out = np.zeros(array.shape)
    probe = _copy_keeping_strides(array)
    for index in np.ndindex(array.shape):
        centre = probe[index]
        step = eps * max(1.0, abs(centre))
        probe[index] = centre + step
        above = function(probe)
        probe[index] = centre - step
        below = function(probe)
        probe[index] = centre
        out[index] = (above - below) / (2 * step)
    return out


def _compare(i, found, expected, rtol, atol):
    if found.shape != expected.shape or found.dtype != np.float64:
        raise GradientError(f"input {i} has shape {expected.shape}, its gradient {found.dtype}{list(found.shape)}")
    if not found.size:
        return
    wrong = ~(np.abs(found - expected) <= atol + rtol * np.abs(expected).max()) | ~np.isfinite(expected)
    if wrong.any():
        at = tuple(int(n) for n in np.unravel_index(np.argmax(np.abs(found - expected)), found.shape))
        raise GradientError(
            f"input {i}, element {at}: the tape gives {found[at]:.10g}, finite differences {expected[at]:.10g} "
            f"({wrong.sum()} of {wrong.size} elements differ)"
        )


def _as_float64(x):
    array = x.data if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype.kind != "f" or array.dtype == np.float64:
        return array
    return array.astype(np.float64)


def _copy_keeping_strides(array):
    """A writable copy whose axes have the same order and sign of strides, so that views are checked as views."""
    order = np.argsort([-abs(s) for s in array.strides], kind="stable")
    copy = np.empty([array.shape[i] for i in order], array.dtype).transpose(np.argsort(order))
    copy = copy[(..., *(slice(None, None, -1 if s < 0 else 1) for s in array.strides))]
    copy[...] = array
    return copy


class _CallableModule(types.ModuleType):
    """``minivit.gradcheck`` is this module and also the function in it: calling the one calls the other."""

    def __call__(self, fn, inputs, **options):
        return gradcheck(fn, inputs, **options)


sys.modules[__name__].__class__ = _CallableModule
