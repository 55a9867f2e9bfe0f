"""Self-attention whose two products have operands of one bit, and the transformer block around it.

    q = unit_q(x),  k = unit_k(u),  v = unit_v(u)                    (u = x, or x reduced to fewer tokens)
    P = softmax(sign(q + s_q) sign(k + s_k)^T / sqrt d)              (integer products, full-precision softmax)
    context = quantize(P; c) sign(v + s_v)                           (probabilities become 0 or a learned c)
    out = RPReLU((BatchNorm(context) + q) + (k + v))

after Le & Li 2023 (arXiv 2306.16678), as their code has it. The brackets are those of ``nn.packed``: signs are taken of
the result, so both add in this order.
"""

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.nn.binary import Affine, BinaryUnit, RPReLU, TokenBatchNorm, repeat_cells
from minivit.nn.module import Module, Parameter
from minivit.nn.pooling import PoolingBranches


class BinaryAttention(Module):
    """Binary self-attention of tokens (B, N, dim) -> (B, N, dim), without an output layer.

    With spatial reduction r, keys and values come from M = N / r^2 tokens, u = unit(means of r x r cells), and are
    repeated over their cells in the shortcut; the products take them as they are.

    Args:
        dim: width of the tokens. num_heads: number of heads; d = dim / num_heads.
        grid: (rows, columns) of the tokens, both multiples of ``reduction``; not needed without reduction.
        reduction: r.
        att_prob_clip: what the level c starts with, one for all heads.
        init: a rule of ``minivit.nn.init`` for latent weights.

    Raises:
        UsageError: a width that does not divide into the heads, or a reduction without a grid that divides into cells.
    """

    def __init__(self, dim, num_heads, *, grid=None, reduction=1, att_prob_clip, init):
        if num_heads < 1 or dim % num_heads:
            raise UsageError(f"the width {dim} does not divide into {num_heads} heads")
        if reduction > 1 and (grid is None or any(side % reduction for side in grid)):
            raise UsageError(f"reduction {reduction} needs a grid of tokens that divides into such cells, got {grid}")
        self.num_heads, self.grid, self.reduction = num_heads, grid, reduction
        self.reduce = BinaryUnit(dim, dim, init=init) if reduction > 1 else None
        self.q = BinaryUnit(dim, dim, init=init)
        self.k = BinaryUnit(dim, dim, init=init)
        self.v = BinaryUnit(dim, dim, init=init)
        self.q_shift = Parameter(np.zeros(dim, np.float32))
        self.k_shift = Parameter(np.zeros(dim, np.float32))
        self.v_shift = Parameter(np.zeros(dim, np.float32))
        self.att_prob_clip = Parameter(np.array(att_prob_clip, np.float32))
        self.least_clip = att_prob_clip / 10
        self.norm = TokenBatchNorm(dim)
        self.act = RPReLU(dim)

    def constrain(self):
        """Keep the level c above a tenth of what it started with; the trainer calls this after each step.

        At c <= 0 all probabilities become 0, and no gradient brings them back. The authors' code has no such guard.
        """
        np.maximum(self.att_prob_clip.data, self.least_clip, out=self.att_prob_clip.data)

    def forward(self, x):
        u = x if self.reduce is None else self.reduce(ops.pool_cells(x, self.grid, self.reduction))
        q, k, v = self.q(x), self.k(u), self.v(u)
        context = self.attend(ops.sign(q, self.q_shift), ops.sign(k, self.k_shift), ops.sign(v, self.v_shift))
        coarse = k + v
        if self.reduce is not None:
            coarse = repeat_cells(coarse, self.grid, self.reduction)
        return self.act(self.norm(context) + q + coarse)

    def attend(self, q, k, v):
        """Signs of queries (B, N, dim), keys and values (B, M, dim) -> context (B, N, dim), the heads side by side."""
        b, n, dim = q.shape
        q, k, v = (self._split(x) for x in (q, k, v))
        scores = ops.binary_matmul(q, k.swapaxes(-1, -2))
        probabilities = ops.softmax(scores, scale=q.shape[-1] ** -0.5)
        levels = ops.quantize_probabilities(probabilities, self.att_prob_clip)
        return ops.binary_matmul(levels, v).transpose(0, 2, 1, 3).reshape(b, n, dim)

    def _split(self, x):
        b, n, dim = x.shape
        return x.reshape(b, n, self.num_heads, dim // self.num_heads).transpose(0, 2, 1, 3)


class BinaryMlp(Module):
    """Two binary units (..., dim) -> (..., ratio dim) -> (..., dim), and no GELU."""

    def __init__(self, dim, ratio, *, init):
        self.fc1 = BinaryUnit(dim, ratio * dim, init=init)
        self.fc2 = BinaryUnit(ratio * dim, dim, init=init)

    def forward(self, x):
        return self.fc2(self.fc1(x))


class BinaryBlock(Module):
    """Transformer block of binary layers, (B, N, dim) -> (B, N, dim).

        x = x + Affine(unit(Attention(BatchNorm(x))))
        z = BatchNorm(x)
        x = (x + Affine(MLP(z))) + PoolingBranches(z)

    Args:
        attention: a BinaryAttention of this width.
        dim: width of the tokens.
        mlp_ratio: width of the MLP divided by dim, a whole number.
        affine: whether there are affine layers, with scales from 0.1.
        pooling_grid: (rows, columns) of the tokens for pooling branches; None: no branches.
        init: a rule of ``minivit.nn.init`` for latent weights.
    """

    def __init__(self, attention, dim, mlp_ratio, *, affine=True, pooling_grid=None, init):
        self.norm1 = TokenBatchNorm(dim)
        self.attn = attention
        self.proj = BinaryUnit(dim, dim, init=init)
        self.affine1 = Affine(dim, 0.1) if affine else None
        self.norm2 = TokenBatchNorm(dim)
        self.mlp = BinaryMlp(dim, mlp_ratio, init=init)
        self.affine2 = Affine(dim, 0.1) if affine else None
        self.pool = None if pooling_grid is None else PoolingBranches(dim, pooling_grid)

    def forward(self, x):
        y = self.proj(self.attn(self.norm1(x)))
        x = x + (y if self.affine1 is None else self.affine1(y))
        z = self.norm2(x)
        y = self.mlp(z)
        x = x + (y if self.affine2 is None else self.affine2(y))
        return x if self.pool is None else x + self.pool(z)
