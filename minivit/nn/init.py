"""Rules for initial weights: each takes a generator and gives a function ``(shape, fan_in) -> float32 array``.

Layers call that function for a weight with its shape (out, in, ...), and for a bias with its shape (out,) and the
``fan_in`` of the weight beside it. Where there is no generator all is 0, for weights that are to be loaded.
"""

import math

import numpy as np


def xavier_normal(rng):
    """Weights normal with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010), biases 0."""

    def draw(shape, fan_in=None):
        if rng is None or fan_in is not None:
            return np.zeros(shape, np.float32)
        std = np.sqrt(2 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        return (std * rng.standard_normal(shape)).astype(np.float32)

    return draw


def normal(rng, std=1.0):
    """Weights normal with standard deviation ``std``, biases 0."""

    def draw(shape, fan_in=None):
        if rng is None or fan_in is not None:
            return np.zeros(shape, np.float32)
        return (std * rng.standard_normal(shape)).astype(np.float32)

    return draw


def uniform_fan_in(rng):
    """Weights and biases uniform in +-1/sqrt(fan_in): what PyTorch's layers start with."""

    def draw(shape, fan_in=None):
        if rng is None:
            return np.zeros(shape, np.float32)
        bound = 1 / math.sqrt(fan_in or math.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    return draw


def he_normal_fan_out(rng, groups=1):
    """Weights of convolutions normal with variance 2 / fan_out, fan_out = out kh kw / groups (He et al. 2015)."""

    def draw(shape, fan_in=None):
        if rng is None or fan_in is not None:
            return np.zeros(shape, np.float32)
        std = math.sqrt(2 * groups / (shape[0] * math.prod(shape[2:])))
        return (std * rng.standard_normal(shape)).astype(np.float32)

    return draw
