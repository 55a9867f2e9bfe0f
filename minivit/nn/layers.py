"""The plain layers: Linear, LayerNorm, Dropout, DropPath."""

import numpy as np

from minivit import ops
from minivit.nn.module import Module, Parameter


class Linear(Module):
    """x W^T + b on the last axis: (..., in_features) -> (..., out_features).

    Args:
        in_features, out_features: widths.
        bias: whether there is a b.
        init: a rule of ``minivit.nn.init`` for W (out_features, in_features) and b (out_features,).
    """

    def __init__(self, in_features, out_features, bias=True, *, init):
        self.weight = Parameter(init((out_features, in_features)))
        self.bias = Parameter(init((out_features,), in_features)) if bias else None

    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)


class LayerNorm(Module):
    """Normalise the last axis, of size ``dim``, then scale (from 1) and shift (from 0)."""

    def __init__(self, dim, eps=1e-5):
        self.weight = Parameter(np.ones(dim, np.float32))
        self.bias = Parameter(np.zeros(dim, np.float32))
        self.eps = eps

    def forward(self, x):
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)


class Gelu(Module):
    """x Phi(x), Phi the normal distribution function: the exact form, not tanh's (Hendrycks & Gimpel 2016)."""

    def forward(self, x):
        return ops.gelu(x)


class Dropout(Module):
    """In training, zero each element with probability ``rate``; masks come from ``rng``."""

    def __init__(self, rate, rng):
        self.rate, self.rng = rate, rng

    def forward(self, x):
        return ops.dropout(x, self.rate, self.rng) if self.training and self.rate else x


class DropPath(Module):
    """Stochastic depth: in training, drop a whole branch for each sample with probability ``rate``."""

    def __init__(self, rate, rng):
        self.rate, self.rng = rate, rng

    def forward(self, x):
        return ops.drop_path(x, self.rate, self.rng) if self.training and self.rate else x
