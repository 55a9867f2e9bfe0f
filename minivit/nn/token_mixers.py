"""What mixes the tokens between the soft splits of T2T-ViT (Yuan et al. 2021, section 3.1): from width in_dim to dim.

Both keep what a token is by adding the values v, because their input has another width:

    y = v + Linear(A v),   out = y + MLP(LN(y)),   q, k, v from LN(x)

In the *token transformer* A = softmax(q k^T / sqrt(in_dim)): the authors take the width of the input, not that of the
queries. In the *token performer* (Choromanski et al. 2020) random features phi stand for the softmax,

    A[s, t] = phi(q_s) . phi(k_t) / sum_u phi(q_s) . phi(k_u),   phi(z) = exp(w z - |z|^2 / 2) / sqrt(m),

so that A v is computed through a matrix of dim x m numbers, at a cost linear in the number of tokens.
"""

import numpy as np

from minivit import ops
from minivit.nn.attention import HeadAttention
from minivit.nn.block import Mlp
from minivit.nn.layers import Dropout, Gelu, LayerNorm, Linear
from minivit.nn.module import Buffer, Module


class TokenTransformer(Module):
    """Tokens (B, N, in_dim) -> (B, N, dim), by attention with one head.

    Args:
        learnable_temperature, diagonal: the two parts of LSA, see ``HeadAttention``.
        init: a rule of ``minivit.nn.init``. rng: of the (unused) dropout.
    """

    def __init__(self, in_dim, dim, *, norm_eps=1e-5, init, rng, **options):
        self.norm1 = LayerNorm(in_dim, norm_eps)
        self.attn = TokenAttention(in_dim, dim, init=init, rng=rng, **options)
        self.norm2 = LayerNorm(dim, norm_eps)
        self.mlp = Mlp(dim, dim, init=init, rng=rng)

    def forward(self, x):
        y = self.attn(self.norm1(x))
        return y + self.mlp(self.norm2(y))


class TokenAttention(HeadAttention):
    """v + Linear(A v), one head: (B, N, in_dim) -> (B, N, dim)."""

    def __init__(self, in_dim, dim, *, init, rng, **options):
        super().__init__(1, in_dim, rng=rng, **options)
        self.qkv = Linear(in_dim, 3 * dim, bias=False, init=init)
        self.proj = Linear(dim, dim, init=init)

    def forward(self, x):
        qkv = self.qkv(x)
        values = qkv[:, :, 2 * self.proj.weight.shape[1] :]
        return values + self.proj(ops.self_attention(qkv, self.scale, diagonal=self.diagonal))


class TokenPerformer(Module):
    """Tokens (B, N, in_dim) -> (B, N, dim), by random features; dim is even.

    The dropout of rate 0.1 after both linear layers is the authors', whatever the rate of the rest of the network.

    Args:
        rng: draws the fixed random features ``w`` (dim / 2, dim); None leaves them 0, to be loaded.
        generator: draws dropout masks.
    """

    def __init__(self, in_dim, dim, *, norm_eps=1e-5, init, rng, generator):
        self.dim = dim
        self.w = Buffer(orthogonal_features(dim // 2, dim, rng))
        self.kqv = Linear(in_dim, 3 * dim, init=init)
        self.proj = Linear(dim, dim, init=init)
        self.norm1 = LayerNorm(in_dim, norm_eps)
        self.norm2 = LayerNorm(dim, norm_eps)
        self.mlp = [Linear(dim, dim, init=init), Gelu(), Linear(dim, dim, init=init)]  # the authors' mlp.0 and mlp.2
        self.drop = Dropout(0.1, generator)

    def forward(self, x):
        k, q, v = ops.split(self.kqv(self.norm1(x)), 3, axis=2)
        k, q = self.features(k), self.features(q)
        normaliser = q @ k.sum(axis=1, keepdims=True).swapaxes(1, 2)  # B, N, 1
        attended = (q @ (k.swapaxes(1, 2) @ v)) / (normaliser + 1e-8)
        y = v + self.drop(self.proj(attended))
        hidden = self.norm2(y)
        for layer in self.mlp:
            hidden = layer(hidden)
        return y + self.drop(hidden)

    def features(self, z):
        """phi(z): (B, N, dim) -> (B, N, m), positive."""
        squared = (z * z).sum(axis=-1, keepdims=True) * 0.5
        return ops.exp(ops.linear(z, self.w) - squared) * self.w.shape[0] ** -0.5


def orthogonal_features(count, dim, rng):
    """``count`` <= dim random orthonormal rows of width ``dim`` times sqrt(count), float32; zeros without ``rng``."""
    if rng is None:
        return np.zeros((count, dim), np.float32)
    rows = np.linalg.qr(rng.standard_normal((dim, count)))[0].T
    return (rows * np.sqrt(count)).astype(np.float32)
