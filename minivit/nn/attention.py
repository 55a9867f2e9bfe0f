"""Multi-head self-attention, and Locality Self-Attention as two options of it.

LSA (Lee et al. 2021, section 3.2) changes softmax(QK^T / sqrt d) V in two ways that can be had one by one:

* *learnable temperature*: the scale d^-1/2 becomes a parameter, one for each head. It is stored as the multiplier
  (the inverse of the paper's tau), without exponential or sign constraint, as in the authors' code.
* *diagonal masking*: R[i, i] = -inf before the softmax, so that a token spreads its attention over the others.
"""

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.nn.layers import Dropout, Linear
from minivit.nn.module import Module, Parameter


class Attention(Module):
    """Self-attention of tokens (B, N, dim) -> (B, N, dim).

    Args:
        dim: width; the heads have dim / num_heads each.
        num_heads: number of heads.
        qkv_bias: whether queries, keys and values have a bias.
        proj: whether the joined heads pass through an output layer.
        learnable_temperature, mask_diagonal: the two parts of LSA.
        attn_drop, proj_drop: dropout rates of the attention weights and of the output.
        init: draws the weights. rng: draws dropout masks.
    """

    def __init__(
        self,
        dim,
        num_heads,
        *,
        qkv_bias=True,
        proj=True,
        learnable_temperature=False,
        mask_diagonal=False,
        attn_drop=0.0,
        proj_drop=0.0,
        init,
        rng,
    ):
        if dim % num_heads:
            raise UsageError(f"the width {dim} does not divide into {num_heads} heads")
        scale = np.full(num_heads, (dim // num_heads) ** -0.5, np.float32)
        self.scale = Parameter(scale) if learnable_temperature else scale
        self.diagonal = -np.inf if mask_diagonal else None
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, init=init)
        self.attn_drop = Dropout(attn_drop, rng)
        self.proj = Linear(dim, dim, init=init) if proj else None
        self.proj_drop = Dropout(proj_drop, rng)

    def forward(self, x):
        qkv = self.qkv(x)
        if self.training and self.attn_drop.rate:
            out = self._attend_with_dropout(qkv)
        else:
            out = ops.self_attention(qkv, self.scale, diagonal=self.diagonal)
        return self.proj_drop(out if self.proj is None else self.proj(out))

    def _attend_with_dropout(self, qkv):
        """The same in single steps, with the attention weights at hand to be dropped."""
        b, n, width = qkv.shape
        heads = qkv.reshape(b, n, 3, self.num_heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = heads[0], heads[1], heads[2]
        scores = (q @ k.swapaxes(-1, -2)) * ops.reshape(self.scale, (-1, 1, 1))
        if self.diagonal is not None:
            scores = ops.where(np.eye(n, dtype=bool), self.diagonal, scores)
        out = self.attn_drop(ops.softmax(scores)) @ v
        return out.transpose(0, 2, 1, 3).reshape(b, n, width // 3)
