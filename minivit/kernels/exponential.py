"""Kernels that rest on a vectorised exponential: softmax, GELU, softmax cross-entropy.

LLVM does not vectorise calls of libm, so ``exp`` and ``erf`` are written out here for float32 as range reduction and
polynomial, without branches: the loops below then run on whole SIMD registers. float64 calls libm, for checks.
They live in one file because Numba's cache notices edits only in the file of the kernel itself.
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for, row_grain

SQRT_HALF = math.sqrt(0.5)
INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715
_FAR = 32.0  # where tanh is -1 or 1 to the last digit; arguments beyond are cut off, so that the cube stays finite
_GRAIN = 16384  # elements worth a thread


# --- exp and erf -------------------------------------------------------------------------------------------------


@intrinsic
def _bits_to_float(typingctx, bits):
    """Read the 32 bits of an int32 as a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


def _exp(x):
    return math.exp(x)


@overload(_exp)
def _exp_overload(x):
    """exp(x) = 2^k exp(r), |r| <= ln(2)/2, exp(r) by a polynomial of degree 6 (Cephes).

    Made for x <= 0: there the absolute error is below 7e-8, the relative one below 3.1e-7. Infinite from 88.4 on.
    """
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        f = np.float32
        underflow = x < f(-87.33)  # to exactly 0, so that masked attention is exactly 0
        x = min(max(x, f(-87.33)), f(88.72)) if x == x else x
        k = np.floor(x * f(1.44269504) + f(0.5))
        r = x - k * f(0.693359375) - k * f(-2.12194440e-4)
        p = f(1.9875691500e-4)
        p = p * r + f(1.3981999507e-3)
        p = p * r + f(8.3334519073e-3)
        p = p * r + f(4.1665795894e-2)
        p = p * r + f(1.6666665459e-1)
        p = p * r + f(5.0000001201e-1)
        p = p * r * r + r + f(1)
        return f(0) if underflow else p * _bits_to_float((np.int32(k) + np.int32(127)) << np.int32(23))

    return exp32


def _erf(x, exp_minus_x2):
    return math.erf(x)


@overload(_erf)
def _erf_overload(x, exp_minus_x2):
    """erf(x) = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x), x >= 0 (Abramowitz & Stegun 7.1.26).

    Absolute error below 3e-7 in float32. The caller passes exp(-x^2), which GELU's derivative needs as well.
    """
    if x != types.float32:
        return lambda x, exp_minus_x2: math.erf(x)

    def erf32(x, exp_minus_x2):
        f = np.float32
        t = f(1) / (f(1) + f(0.3275911) * abs(x))
        p = f(1.061405429)
        p = p * t + f(-1.453152027)
        p = p * t + f(1.421413741)
        p = p * t + f(-0.284496736)
        p = p * t + f(0.254829592)
        return math.copysign(f(1) - p * t * exp_minus_x2, x)

    return erf32


# --- GELU --------------------------------------------------------------------------------------------------------


@njit
def _gelu(x, out):
    half, one, c = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF)
    for i in range(x.size):
        z = x[i] * c
        out[i] = half * x[i] * (one + _erf(z, _exp(-z * z)))


@njit
def _gelu_backward(g, x, out):
    half, one, c, d = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF), x.dtype.type(INV_SQRT_2PI)
    for i in range(x.size):
        z = x[i] * c
        e = _exp(-z * z)
        out[i] = g[i] * (half * (one + _erf(z, e)) + x[i] * d * e)


@njit
def _gelu_tanh(x, out):
    one, far = x.dtype.type(1), x.dtype.type(_FAR)
    c, d = x.dtype.type(-2 * SQRT_2_OVER_PI), x.dtype.type(-2 * SQRT_2_OVER_PI * GELU_CUBE)
    for i in range(x.size):
        z = min(abs(x[i]), far)
        e = _exp(z * (c + d * z * z))  # exp(-2|u|)
        out[i] = x[i] * (one if x[i] > 0 else e) / (one + e)


@njit
def _gelu_tanh_backward(g, x, out):
    one, far = x.dtype.type(1), x.dtype.type(_FAR)
    c, d = x.dtype.type(-2 * SQRT_2_OVER_PI), x.dtype.type(-2 * SQRT_2_OVER_PI * GELU_CUBE)
    three = x.dtype.type(3)
    for i in range(x.size):
        z = min(abs(x[i]), far)
        e = _exp(z * (c + d * z * z))
        s = one / (one + e)
        slope = -(c + three * d * z * z)  # 2 du/dx
        out[i] = g[i] * ((s if x[i] > 0 else e * s) + x[i] * slope * e * s * s)


def gelu(x):
    """GELU(x) = x Phi(x), Phi the standard normal distribution function: x/2 (1 + erf(x / sqrt 2)).

    Args:
        x: float array of any shape.
    """
    return gelu_numpy(x) if get_backend() == "numpy" else _share_out(_gelu, x)


def gelu_numpy(x):
    """What ``gelu`` computes."""
    return (0.5 * x * (1 + erf_numpy(x * SQRT_HALF))).astype(x.dtype)


def gelu_backward(g, x):
    """g * d GELU(x)/dx = g (Phi(x) + x phi(x)), phi the standard normal density; shapes as ``x``."""
    return gelu_backward_numpy(g, x) if get_backend() == "numpy" else _share_out(_gelu_backward, g, x)


def gelu_backward_numpy(g, x):
    """What ``gelu_backward`` computes."""
    cdf = 0.5 * (1 + erf_numpy(x * SQRT_HALF))
    return (g * (cdf + x * INV_SQRT_2PI * np.exp(-0.5 * x * x))).astype(x.dtype)


def gelu_tanh(x):
    """The approximation of GELU by x/2 (1 + tanh u), u = sqrt(2 / pi) (x + 0.044715 x^3); ``x`` as for ``gelu``.

    The kernel writes (1 + tanh u) / 2 as 1 / (1 + exp(-2u)).
    """
    return gelu_tanh_numpy(x) if get_backend() == "numpy" else _share_out(_gelu_tanh, x)


def gelu_tanh_numpy(x):
    """What ``gelu_tanh`` computes."""
    z = np.clip(x, -_FAR, _FAR)
    return 0.5 * x * (1 + np.tanh(SQRT_2_OVER_PI * (z + GELU_CUBE * z**3)))


def gelu_tanh_backward(g, x):
    """g times the derivative of ``gelu_tanh``, (1 + tanh u) / 2 + x/2 (1 - tanh(u)^2) du/dx; shapes as ``x``."""
    return gelu_tanh_backward_numpy(g, x) if get_backend() == "numpy" else _share_out(_gelu_tanh_backward, g, x)


def gelu_tanh_backward_numpy(g, x):
    """What ``gelu_tanh_backward`` computes."""
    z = np.clip(x, -_FAR, _FAR)
    t = np.tanh(SQRT_2_OVER_PI * (z + GELU_CUBE * z**3))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBE * z * z))


def _share_out(loop, *arrays):
    """Run ``loop(*arrays, out)`` over the elements of arrays of one shape, on all threads. Returns ``out``."""
    out = np.empty(arrays[-1].shape, arrays[-1].dtype)
    flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays] + [out.reshape(-1)]
    parallel_for(lambda a, b: loop(*(array[a:b] for array in flat)), out.size, _GRAIN)
    return out


def erf_numpy(x):
    """The error function by libm, element by element: plain, and slow."""
    return np.vectorize(math.erf, otypes=[np.float64])(x)


# --- softmax cross-entropy ---------------------------------------------------------------------------------------


@njit(fastmath={"nnan", "nsz", "reassoc"})  # "no NaN" lets the maximum vectorise; the sums still carry a NaN on
def _max(row):
    top = row[0]
    for j in range(1, row.shape[0]):
        top = max(top, row[j])
    return top


@njit
def _cross_entropy(logits, targets, losses, probabilities, start, stop):
    zero = logits.dtype.type(0)
    for i in range(start, stop):
        row = probabilities[i]
        top = _max(logits[i])
        for c in range(row.shape[0]):
            row[c] = logits[i, c] - top  # before anything is added: the sums below must not see a large common part
        total = zero
        for c in range(row.shape[0]):
            total += _exp(row[c])
        log_total = math.log(total)
        loss = zero
        for c in range(row.shape[0]):
            if targets[i, c] != zero:  # a class masked with -inf costs nothing where it has no share
                loss += targets[i, c] * (log_total - row[c])
        for c in range(row.shape[0]):
            row[c] = _exp(row[c]) / total
        losses[i] = loss


def cross_entropy(logits, targets):
    """Cross-entropy of each row of ``softmax(logits)`` against a row of target probabilities.

    Args:
        logits: (B, C) floats.
        targets: (B, C), the same dtype.

    Returns:
        losses (B,): -sum_c targets[b, c] log softmax(logits)[b, c]; and the probabilities (B, C).
    """
    if get_backend() == "numpy":
        return cross_entropy_numpy(logits, targets)
    logits, targets = np.ascontiguousarray(logits), np.ascontiguousarray(targets)
    losses, probabilities = np.empty(len(logits), logits.dtype), np.empty_like(logits)
    grain = row_grain(logits, _GRAIN)
    parallel_for(lambda a, b: _cross_entropy(logits, targets, losses, probabilities, a, b), len(logits), grain)
    return losses, probabilities


def cross_entropy_numpy(logits, targets):
    """What ``cross_entropy`` computes."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses = -np.multiply(targets, log_probabilities, where=targets != 0, out=np.zeros_like(logits)).sum(axis=1)
    return losses, np.exp(log_probabilities)


# --- attention softmax -------------------------------------------------------------------------------------------


@njit
def _attention_softmax(scores, scale, bias, diagonal, overwrite):
    for b in range(scores.shape[0]):
        for h in range(scores.shape[1]):
            matrix = scores[b, h]
            for i in range(matrix.shape[0]):
                row = matrix[i]
                for j in range(row.shape[0]):
                    row[j] *= scale[h]
                if bias is not None:
                    for j in range(row.shape[0]):
                        row[j] += bias[b, h, i, j]
                if overwrite and i < row.shape[0]:
                    row[i] = diagonal
                top = _max(row)
                for j in range(row.shape[0]):
                    row[j] -= top
            flat = matrix.reshape(-1)  # one long loop: short rows would leave most of a SIMD register empty
            for j in range(flat.shape[0]):
                flat[j] = _exp(flat[j])
            for i in range(matrix.shape[0]):
                row = matrix[i]
                total = scores.dtype.type(0)
                for j in range(row.shape[0]):
                    total += row[j]
                factor = scores.dtype.type(1) / total
                for j in range(row.shape[0]):
                    row[j] *= factor


@njit
def _attention_softmax_backward(grad, probabilities, overwrite):
    for b in range(grad.shape[0]):
        for h in range(grad.shape[1]):
            for i in range(grad.shape[2]):
                g, p = grad[b, h, i], probabilities[b, h, i]
                dot = grad.dtype.type(0)
                for j in range(g.shape[0]):
                    dot += g[j] * p[j]
                for j in range(g.shape[0]):
                    g[j] = p[j] * (g[j] - dot)
                if overwrite and i < g.shape[0]:
                    g[i] = 0


def attention_softmax(scores, scale, bias, diagonal):
    """In place: softmax over the last axis of ``scores * scale + bias``. Serial; the caller shares out the images.

    Args:
        scores: (B, H, N, M), C-contiguous.
        scale: (H,), one factor for each head.
        bias: (B, H, N, M), any strides, or None.
        diagonal: the value that entries [i, i] take before the softmax, -inf to mask them; or None.
    """
    overwrite = diagonal is not None
    value = scores.dtype.type(diagonal if overwrite else 0)
    _attention_softmax(scores, scale, bias, value, overwrite)


def attention_softmax_numpy(scores, scale, bias, diagonal):
    """What ``attention_softmax`` computes, as a new array."""
    scores = scores * scale[:, None, None]
    if bias is not None:
        scores = scores + bias
    if diagonal is not None:
        index = np.arange(min(scores.shape[-2:]))
        scores[..., index, index] = diagonal
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def attention_softmax_backward(grad, probabilities, diagonal):
    """In place on ``grad``, the cotangent of ``probabilities``: the cotangent of what went into the softmax.

    Entries that ``diagonal`` overwrote get zero.
    """
    _attention_softmax_backward(grad, probabilities, diagonal is not None)


def attention_softmax_backward_numpy(grad, probabilities, diagonal):
    """What ``attention_softmax_backward`` computes, as a new array."""
    grad = probabilities * (grad - (grad * probabilities).sum(axis=-1, keepdims=True))
    if diagonal is not None:
        index = np.arange(min(grad.shape[-2:]))
        grad[..., index, index] = 0
    return grad
