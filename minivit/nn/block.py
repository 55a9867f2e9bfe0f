"""The transformer block: x + Attention(LN(x)), then x + MLP(LN(x))."""

from minivit import ops
from minivit.nn.layers import Dropout, DropPath, LayerNorm, Linear
from minivit.nn.module import Module


class Mlp(Module):
    """Linear - GELU - Linear on the last axis: (..., dim) -> (..., dim) through width ``hidden``."""

    def __init__(self, dim, hidden, *, drop=0.0, init, rng):
        self.fc1 = Linear(dim, hidden, init=init)
        self.fc2 = Linear(hidden, dim, init=init)
        self.drop = Dropout(drop, rng)

    def forward(self, x):
        x = self.drop(ops.gelu(self.fc1(x)))
        return self.drop(self.fc2(x))


class Block(Module):
    """Pre-norm transformer block (B, N, dim) -> (B, N, dim), each branch under stochastic depth.

    Args:
        attention: the module of the first branch, (B, N, dim) -> (B, N, dim).
        mlp: the module of the second.
        dim: width of the tokens.
        norm_eps: epsilon of the two LayerNorms.
        drop_path: probability of dropping a branch for a sample; masks come from ``rng``.
    """

    def __init__(self, attention, mlp, dim, *, norm_eps=1e-5, drop_path=0.0, rng):
        self.norm1 = LayerNorm(dim, norm_eps)
        self.attn = attention
        self.norm2 = LayerNorm(dim, norm_eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path, rng)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
