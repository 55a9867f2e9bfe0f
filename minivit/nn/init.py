"""Rules for initial weights: each takes a generator and gives a function ``shape -> float32 array``."""

import numpy as np


def xavier_normal(rng):
    """Normal with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010), for weights of shape (out, in, ...)."""

    def draw(shape):
        window = int(np.prod(shape[2:]))
        std = np.sqrt(2 / ((shape[0] + shape[1]) * window))
        return (std * rng.standard_normal(shape)).astype(np.float32)

    return draw


def standard_normal(rng):
    """Normal with variance 1."""
    return lambda shape: rng.standard_normal(shape).astype(np.float32)
