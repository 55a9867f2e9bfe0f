"""One AdamW step, fused: each array is read and written once, without temporaries."""

import math

import numpy as np

from minivit.kernels.backend import get_backend, njit
from minivit.kernels.threads import parallel_for

_GRAIN = 32768  # elements worth a thread


def adamw_step(param, grad, m, v, *, step, lr, weight_decay, betas, eps):
    """Update ``param``, ``m`` and ``v`` in place.

    Args:
        param, m, v: C-contiguous arrays of one shape and dtype, float32 or float64.
        grad: the gradient, same shape and dtype.
        step: t, counted from 1.
        lr, weight_decay, betas, eps: see ``minivit.training.optimizers.AdamW``.
    """
    beta1, beta2 = betas
    scalars = (
        1 - lr * weight_decay,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**step),
        1 / math.sqrt(1 - beta2**step),
        eps,
    )
    # All in the dtype of the arrays: one float64 scalar would make the compiled loop compute in float64.
    scalars = tuple(param.dtype.type(s) for s in scalars)
    update = _adamw_numba if get_backend() == "numba" else adamw_numpy
    param, grad, m, v = (a.reshape(-1) for a in (param, grad, m, v))
    parallel_for(lambda a, b: update(param[a:b], grad[a:b], m[a:b], v[a:b], *scalars), param.size, _GRAIN)


def adamw_numpy(param, grad, m, v, keep, b1, one_minus_b1, b2, one_minus_b2, rate, v_scale, eps):
    """The step on flat arrays; the scalars are what :func:`adamw_step` makes of the hyper-parameters."""
    m *= b1
    m += one_minus_b1 * grad
    v *= b2
    v += one_minus_b2 * grad * grad
    param *= keep
    param -= rate * m / (np.sqrt(v) * v_scale + eps)


@njit
def _adamw_numba(param, grad, m, v, keep, b1, one_minus_b1, b2, one_minus_b2, rate, v_scale, eps):
    for i in range(param.size):
        g = grad[i]
        m[i] = b1 * m[i] + one_minus_b1 * g
        v[i] = b2 * v[i] + one_minus_b2 * g * g
        param[i] = keep * param[i] - rate * m[i] / (np.sqrt(v[i]) * v_scale + eps)
