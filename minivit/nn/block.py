"""The transformer block: x + Attention(LN(x)), then x + MLP(LN(x)), and its variant that updates one token only.

LayerScale (CaiT, Touvron et al. 2021, section 2.2) multiplies what each branch adds by a learned vector:

    x = x + diag(gamma_1) Attention(LN(x)),   x = x + diag(gamma_2) MLP(LN(x))

gamma starts small, so that a deep network starts near the identity.
"""

import numpy as np

from minivit import ops
from minivit.nn.layers import Dropout, DropPath, LayerNorm, Linear
from minivit.nn.module import Module, Parameter


class Mlp(Module):
    """Linear - GELU - Linear on the last axis: (..., dim) -> (..., dim) through width ``hidden``.

    Args:
        gelu: form of the GELU, see ``ops.gelu``.
        drop: dropout rate after the GELU and after the second layer; masks come from ``rng``.
        init: a rule of ``minivit.nn.init``.
    """

    def __init__(self, dim, hidden, *, gelu="exact", drop=0.0, init, rng):
        self.fc1 = Linear(dim, hidden, init=init)
        self.fc2 = Linear(hidden, dim, init=init)
        self.drop = Dropout(drop, rng)
        self.gelu = gelu

    def forward(self, x):
        x = self.drop(ops.gelu(self.fc1(x), self.gelu))
        return self.drop(self.fc2(x))


class Block(Module):
    """Pre-norm transformer block (B, N, dim) -> (B, N, dim), each branch under stochastic depth.

    Args:
        attention: the module of the first branch, (B, N, dim) -> (B, N, dim).
        mlp: the module of the second.
        dim: width of the tokens.
        norm_eps: epsilon of the two LayerNorms.
        layer_scale: what gamma_1 and gamma_2 (dim,) start with; None: no LayerScale.
        drop_path: probability of dropping a branch for a sample; masks come from ``rng``.
    """

    def __init__(self, attention, mlp, dim, *, norm_eps=1e-5, layer_scale=None, drop_path=0.0, rng):
        scaled = layer_scale is not None
        self.gamma_1 = Parameter(np.full(dim, layer_scale, np.float32)) if scaled else None
        self.gamma_2 = Parameter(np.full(dim, layer_scale, np.float32)) if scaled else None
        self.norm1 = LayerNorm(dim, norm_eps)
        self.attn = attention
        self.norm2 = LayerNorm(dim, norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path, rng)

    def forward(self, x):
        x = x + self.branch(self.attn(self.norm1(x)), self.gamma_1)
        return x + self.branch(self.mlp(self.norm2(x)), self.gamma_2)

    def branch(self, y, gamma):
        """What a branch with result ``y`` adds to the tokens."""
        return self.drop_path(y if gamma is None else gamma * y)


class ClassBlock(Block):
    """Block of CaiT's class-attention stage: (B, 1, dim), (B, N, dim) -> (B, 1, dim); the N patch tokens stay.

    Args:
        norm_context: True: the class token asks LN([class token, patch tokens]), as in CaiT. False: it asks the
            patch tokens alone, as they are (the small-data version).
        others: of ``Block``; ``attention`` is a ``ClassAttention``.
    """

    def __init__(self, attention, mlp, dim, *, norm_context=True, **options):
        super().__init__(attention, mlp, dim, **options)
        self.norm_context = norm_context

    def forward(self, cls, patches):
        if self.norm_context:
            context = self.norm1(ops.concat([cls, patches], axis=1))
            query = context[:, :1]
        else:
            query, context = self.norm1(cls), patches
        cls = cls + self.branch(self.attn(query, context), self.gamma_1)
        return cls + self.branch(self.mlp(self.norm2(cls)), self.gamma_2)


def drop_path_rates(rate, depth, rule):
    """Rate of stochastic depth for each of ``depth`` blocks.

    Args:
        rule: "constant", or "linear": from 0 in the first block to ``rate`` in the last.
    """
    if rule == "constant":
        return [rate] * depth
    return [float(r) for r in np.linspace(0, rate, depth)]
