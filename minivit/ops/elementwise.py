"""Ops on each element by itself. All broadcast as in NumPy; ``@op`` undoes the broadcasting of cotangents."""

import math

import numpy as np

from minivit.kernels import exponential
from minivit.kernels import relu as rectifier
from minivit.tensor import Tensor, op, require_floats

# --- arithmetic --------------------------------------------------------------------------------------------------


@op
def add(a, b, /):
    """a + b."""
    return a + b, (lambda g: g, lambda g: g)


@op
def sub(a, b, /):
    """a - b."""
    return a - b, (lambda g: g, lambda g: -g)


@op
def mul(a, b, /):
    """a * b."""
    return a * b, (lambda g: g * b, lambda g: g * a)


@op
def div(a, b, /):
    """a / b."""
    out = a / b
    return out, (lambda g: g / b, lambda g: -g * out / b)


@op
def neg(a, /):
    """-a."""
    return -a, (lambda g: -g,)


@op
def pow(a, b, /):
    """a ** b. The derivative in b is taken as 0 where a = 0, the limit for b > 0."""
    out = a ** (b.item() if b.ndim == 0 else b)

    def vjp_a(g):
        return g * np.where(b == 0, 0, b * a ** np.where(b == 0, 1, b - 1))

    def vjp_b(g):
        return g * out * np.log(np.where(a == 0, 1, a))

    return out, (vjp_a, vjp_b)


@op
def abs(a, /):
    """|a|, with derivative 0 at 0."""
    return np.abs(a), (lambda g: g * np.sign(a),)


def astype(a, dtype):
    """The same numbers in another dtype. Between floating dtypes the cotangent comes back in that of ``a``."""
    a = a if isinstance(a, Tensor) else Tensor(a)
    if a.dtype.kind == "f" and np.dtype(dtype).kind == "f":
        return _astype(a, dtype)
    return Tensor(a.data.astype(dtype))


@op
def _astype(a, /, dtype):
    return a.astype(dtype), (lambda g: g,)


# --- functions ---------------------------------------------------------------------------------------------------


@op
def exp(a, /):
    """e ** a."""
    out = np.exp(a)
    return out, (lambda g: g * out,)


@op
def log(a, /):
    """Natural logarithm."""
    return np.log(a), (lambda g: g / a,)


@op
def sqrt(a, /):
    """Square root; the derivative at 0 is infinite."""
    out = np.sqrt(a)
    return out, (lambda g: g / (2 * out),)


@op
def tanh(a, /):
    """Hyperbolic tangent."""
    out = np.tanh(a)
    return out, (lambda g: g * (1 - out * out),)


@op
def sigmoid(a, /):
    """1 / (1 + e ** -a), in the form in which nothing overflows and small results keep all their digits."""
    e = np.exp(-np.abs(a))
    out = np.where(a < 0, e, 1) / (1 + e)
    return out, (lambda g: g * out * (1 - out),)


@op
def erf(a, /):
    """Error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to a."""
    from scipy import special  # here, because importing it takes longer than importing all of minivit

    return special.erf(a), (lambda g: g * (2 / math.sqrt(math.pi)) * np.exp(-a * a),)


@op
def relu(a, /):
    """max(a, 0), with derivative 0 at 0."""
    require_floats(a)
    out = rectifier.relu(a)
    return out, (lambda g: rectifier.relu_backward(g, out),)


@op
def gelu(a, /, form="exact"):
    """a Phi(a), Phi the normal distribution function (Hendrycks & Gimpel 2016, section 2).

    Args:
        form: "exact", or "tanh" for their approximation, a/2 (1 + tanh(sqrt(2 / pi) (a + 0.044715 a^3))), which is up
            to 5e-4 off.
    """
    require_floats(a)
    if form == "tanh":
        return exponential.gelu_tanh(a), (lambda g: exponential.gelu_tanh_backward(g, a),)
    if form != "exact":
        raise ValueError(f"expected form 'exact' or 'tanh', got {form!r}")
    return exponential.gelu(a), (lambda g: exponential.gelu_backward(g, a),)


# --- choices -----------------------------------------------------------------------------------------------------


@op
def maximum(a, b, /):
    """The larger of a and b; where they are equal the cotangent is halved between them, as in PyTorch."""
    return np.maximum(a, b), (lambda g: g * _share(a, b), lambda g: g * _share(b, a))


@op
def minimum(a, b, /):
    """The smaller of a and b; where they are equal the cotangent is halved between them, as in PyTorch."""
    return np.minimum(a, b), (lambda g: g * _share(b, a), lambda g: g * _share(a, b))


def _share(a, b):
    """1 where a > b, 1/2 where a = b, 0 elsewhere, as float of their dtype."""
    return ((a > b) + 0.5 * (a == b)).astype(np.result_type(a, b))


@op
def clip(a, /, min=None, max=None):
    """a limited to [min, max] (numbers or None); derivative 1 inside and on the bounds, 0 outside."""
    if min is None and max is None:
        raise ValueError("expected a minimum, a maximum, or both")
    dtype = a.dtype if a.dtype.kind == "f" else None  # integers promote as in NumPy
    low, high = (None if bound is None else np.asarray(bound, dtype) for bound in (min, max))
    inside = np.ones(a.shape, bool)
    if low is not None:
        inside &= a >= low
    if high is not None:
        inside &= a <= high
    return np.clip(a, low, high), (lambda g: g * inside,)


@op
def where(condition, a, b, /):
    """a where ``condition`` (bool) holds, b elsewhere."""
    if condition.dtype != bool:
        raise TypeError(f"expected a condition of dtype bool, got {condition.dtype}")
    return np.where(condition, a, b), (
        None,
        lambda g: np.where(condition, g, 0),  # not g * condition: where a cotangent is infinite, 0 must stay 0
        lambda g: np.where(condition, 0, g),
    )


# --- noise -------------------------------------------------------------------------------------------------------


@op
def dropout(a, /, rate, rng):
    """Zero each element with probability ``rate`` and divide the others by 1 - rate (Srivastava et al. 2014).

    Args:
        a: any shape.
        rate: in [0, 1).
        rng: np.random.Generator that draws the mask.
    """
    return _drop(a, a.shape, rate, rng)


@op
def drop_path(a, /, rate, rng):
    """Stochastic depth: ``dropout`` of whole samples, axis 0 (Huang et al. 2016). Arguments as for ``dropout``."""
    return _drop(a, a.shape[:1] + (1,) * (a.ndim - 1), rate, rng)


def _drop(a, shape, rate, rng):
    require_floats(a)
    if not 0 <= rate < 1:
        raise ValueError(f"expected a rate in [0, 1), got {rate}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"expected rng to be a np.random.Generator, got {type(rng).__name__}")
    keep = (rng.random(shape, np.float32) >= rate).astype(a.dtype)
    keep /= a.dtype.type(1 - rate)
    return a * keep, (lambda g: g * keep,)
