"""Multi-head self-attention, softmax(scale QK^T + bias) V, and the papers' changes to it as options.

Locality Self-Attention, LSA (Lee et al. 2021), changes softmax(QK^T / sqrt d) V in two ways that can be
had one by one:

* *learnable temperature*: the scale d^-1/2 becomes a parameter, one for each head. It is stored as the multiplier
  (the inverse of the paper's tau), without exponential or sign constraint, as in the authors' code.
* *diagonal masking*: R[i, i] = -inf before the softmax, so that a token spreads its attention over the others.

Talking heads (Shazeer et al. 2020; CaiT, Touvron et al. 2021, section 2) let the heads exchange what they see:

    S'_i = sum_j Wl_ij S_j + bl_i,   A = softmax(S'),   A'_i = sum_j Ww_ij A_j + bw_i
"""

import numpy as np

from minivit import ops
from minivit.errors import UsageError
from minivit.nn.layers import Dropout, Linear
from minivit.nn.module import Module, Parameter


class HeadAttention(Module):
    """What every attention does with queries, keys and values (B, H, N, d); base class.

    Args:
        num_heads: H. head_dim: d; the scale is d^-1/2.
        learnable_temperature: makes the scale a parameter (H,).
        diagonal: written over the diagonal of the scaled scores, before heads are mixed: -inf masks it, None leaves it.
        mask_after_mixing: masks the diagonal by -inf where talking heads have mixed the scores.
        talking_heads: function that makes a layer (..., H) -> (..., H), for each of the two mixings; None: no mixing.
        attn_drop: dropout rate of the attention weights; masks come from ``rng``.
    """

    def __init__(
        self, num_heads, head_dim, *, learnable_temperature=False, diagonal=None, mask_after_mixing=False,
        talking_heads=None, attn_drop=0.0, rng,
    ):  # fmt: skip
        if mask_after_mixing and talking_heads is None or diagonal == -np.inf and talking_heads is not None:
            raise UsageError("talking heads are masked after the mixing, other heads by diagonal=-inf")
        scale = np.full(num_heads, head_dim**-0.5)  # fixed, it takes the dtype of the queries
        self.scale = Parameter(scale.astype(np.float32)) if learnable_temperature else scale
        self.diagonal, self.mask_after_mixing = diagonal, mask_after_mixing
        self.num_heads = num_heads
        self.attn_drop = Dropout(attn_drop, rng)
        self.proj_l = talking_heads() if talking_heads else None
        self.proj_w = talking_heads() if talking_heads else None

    @property
    def needs_weights(self):
        """Whether the attention weights must be at hand between the softmax and the values."""
        return self.proj_l is not None or bool(self.training and self.attn_drop.rate)

    def attend(self, q, k, v, bias=None):
        """Queries (B, H, N, d), keys and values (B, H, M, d) -> (B, N, H d), the heads side by side."""
        if self.needs_weights:
            out = self.weights(q, k, bias) @ v
        else:
            out = ops.attention(q, k, v, self.scale, bias, diagonal=self.diagonal)
        b, h, n, d = out.shape
        return out.transpose(0, 2, 1, 3).reshape(b, n, h * d)

    def weights(self, q, k, bias=None):
        """The attention weights (B, H, N, M) that multiply the values."""
        scores = (q * self.scale.reshape(-1, 1, 1)) @ k.swapaxes(-1, -2)
        scores = scores if bias is None else scores + bias
        if self.diagonal is not None:
            scores = overwrite_diagonal(scores, self.diagonal)
        if self.proj_l is not None:
            scores = mix_heads(scores, self.proj_l)
            if self.mask_after_mixing:
                scores = overwrite_diagonal(scores, -np.inf)
        weights = ops.softmax(scores)
        return self.attn_drop(weights if self.proj_w is None else mix_heads(weights, self.proj_w))


def overwrite_diagonal(scores, value):
    """Write ``value`` to the entries [..., i, i] of (..., N, M); they pass no gradient."""
    return ops.where(np.eye(*scores.shape[-2:], dtype=bool), value, scores)


def mix_heads(x, layer):
    """Apply a linear layer to the heads' axis of (B, H, N, M)."""
    b, h, n, m = x.shape
    mixed = layer.weight @ x.reshape(b, h, n * m)
    mixed = mixed if layer.bias is None else mixed + layer.bias.reshape(h, 1)
    return mixed.reshape(b, h, n, m)


def width_of_head(dim, num_heads):
    """dim / num_heads, or UsageError where that is no whole number."""
    if dim % num_heads:
        raise UsageError(f"the width {dim} does not divide into {num_heads} heads")
    return dim // num_heads


class Attention(HeadAttention):
    """Self-attention of tokens (B, N, dim) -> (B, N, dim).

    Args:
        dim: width of the tokens. num_heads: number of heads.
        head_dim: width of a head; by default dim / num_heads.
        qkv_bias: whether queries, keys and values have a bias.
        proj: whether the joined heads pass through an output layer.
        proj_drop: dropout rate of the output.
        init: a rule of ``minivit.nn.init``. rng: draws dropout masks.
        others: of ``HeadAttention``.
    """

    def __init__(self, dim, num_heads, *, head_dim=None, qkv_bias=True, proj=True, proj_drop=0.0, init, rng, **options):
        head_dim = head_dim or width_of_head(dim, num_heads)
        super().__init__(num_heads, head_dim, rng=rng, **options)
        inner = num_heads * head_dim
        self.qkv = Linear(dim, 3 * inner, bias=qkv_bias, init=init)
        self.proj = Linear(inner, dim, init=init) if proj else None
        self.proj_drop = Dropout(proj_drop, rng)

    def forward(self, x, bias=None):
        """``bias``: added to the scaled scores, broadcasts to (B, H, N, N); or None."""
        out = self.attend_qkv(self.qkv(x), bias)
        return self.proj_drop(out if self.proj is None else self.proj(out))

    def attend_qkv(self, qkv, bias=None):
        """``attend`` with queries, keys and values side by side, (B, N, 3 H d) -> (B, N, H d)."""
        if not self.needs_weights:
            return ops.self_attention(qkv, self.scale, bias, diagonal=self.diagonal)
        b, n, width = qkv.shape
        heads = qkv.reshape(b, n, 3, self.num_heads, width // (3 * self.num_heads)).transpose(2, 0, 3, 1, 4)
        return self.attend(heads[0], heads[1], heads[2], bias)


class ClassAttention(HeadAttention):
    """Class attention (CaiT, section 3): one token asks, all are asked. (B, 1, dim), (B, M, dim) -> (B, 1, dim).

    Its cost is linear in the number of tokens. Arguments as for ``Attention``.
    """

    def __init__(self, dim, num_heads, *, head_dim=None, qkv_bias=True, proj=True, proj_drop=0.0, init, rng, **options):
        head_dim = head_dim or width_of_head(dim, num_heads)
        super().__init__(num_heads, head_dim, rng=rng, **options)
        inner = num_heads * head_dim
        self.q = Linear(dim, inner, bias=qkv_bias, init=init)
        self.k = Linear(dim, inner, bias=qkv_bias, init=init)
        self.v = Linear(dim, inner, bias=qkv_bias, init=init)
        self.proj = Linear(inner, dim, init=init) if proj else None
        self.proj_drop = Dropout(proj_drop, rng)

    def forward(self, query, tokens):
        q, k, v = (self._split(x) for x in (self.q(query), self.k(tokens), self.v(tokens)))
        out = self.attend(q, k, v)
        return self.proj_drop(out if self.proj is None else self.proj(out))

    def _split(self, x):
        b, n, width = x.shape
        return x.reshape(b, n, self.num_heads, width // self.num_heads).transpose(0, 2, 1, 3)
