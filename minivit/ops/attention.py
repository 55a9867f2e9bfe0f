"""Scaled dot-product attention in one op: softmax(scale QK^T + bias) V, with per-head scale and diagonal mask."""

import numpy as np

from minivit.kernels import attention as kernel
from minivit.tensor import op, require_floats


@op
def attention(q, k, v, scale, bias=None, /, diagonal=None):
    """``softmax(scale q k^T + bias) v`` for every image and head (Vaswani et al. 2017; LSA: Lee et al. 2021, eq. 4-5).

    Args:
        q: (B, H, N, d). k: (B, H, M, d). v: (B, H, M, e).
        scale: (H,), a factor for each head: LSA's learnable temperature is its inverse.
        bias: added to the scaled scores, broadcasts to (B, H, N, M); or None.
        diagonal: a value that overwrites entry [i, i] of the scores last of all; -inf masks the diagonal, so that
            no token attends to itself (a single token then has nothing to attend to: NaN). Overwritten entries pass
            no gradient. None: no overwriting.

    Returns:
        (B, H, N, e).
    """
    require_floats(q, k, v, scale, bias)
    ranks = {q.ndim, k.ndim, v.ndim}
    if ranks != {4} or not (q.shape[:2] == k.shape[:2] == v.shape[:2] and q.shape[3] == k.shape[3]):
        raise ValueError("expected q (B, H, N, d), k (B, H, M, d) and v (B, H, M, e)")
    if k.shape[2] != v.shape[2] or k.shape[2] == 0 or scale.shape != q.shape[1:2]:
        raise ValueError("expected as many keys as values, at least one, and a scale of shape (H,)")
    b, h, n, _ = q.shape
    full_bias = None if bias is None else np.broadcast_to(bias, (b, h, n, k.shape[2]))
    out = _heads_last(b, n, h, v.shape[3], q.dtype)
    probabilities = kernel.attention(q, k, v, scale, full_bias, diagonal, out)

    def vjp(g):
        dq, dk, dv = (_heads_last(*np.array(x.shape)[[0, 2, 1, 3]], q.dtype) for x in (q, k, v))
        dscale, dbias = kernel.attention_backward(
            g, q, k, v, scale, probabilities, diagonal, dq, dk, dv, bias is not None
        )
        return dq, dk, dv, dscale, dbias

    return out, vjp


@op
def self_attention(qkv, scale, bias=None, /, diagonal=None):
    """``attention`` of the queries, keys and values that one linear layer made, without copying them apart.

    Args:
        qkv: (B, N, 3 H d): q, k, v in this order, each heads first, as in timm.
        scale, bias, diagonal: as for ``attention``.

    Returns:
        (B, N, H d), the heads side by side.
    """
    require_floats(qkv, scale, bias)
    if qkv.ndim != 3 or scale.ndim != 1 or 0 in (*qkv.shape[1:], scale.size) or qkv.shape[2] % (3 * scale.size):
        raise ValueError("expected qkv of shape (B, N, 3 H d), not empty but for B, and a scale of shape (H,)")
    b, n, width = qkv.shape
    heads = len(scale)
    d = width // (3 * heads)
    q, k, v = _split_heads(qkv, heads)
    full_bias = None if bias is None else np.broadcast_to(bias, (b, heads, n, n))
    out = _heads_last(b, n, heads, d, qkv.dtype)
    probabilities = kernel.attention(q, k, v, scale, full_bias, diagonal, out)

    def vjp(g):
        g = g.reshape(b, n, heads, d).transpose(0, 2, 1, 3)
        dqkv = np.empty(qkv.shape, qkv.dtype)
        dscale, dbias = kernel.attention_backward(
            g, q, k, v, scale, probabilities, diagonal, *_split_heads(dqkv, heads), bias is not None
        )
        return dqkv, dscale, dbias

    return out.transpose(0, 2, 1, 3).reshape(b, n, heads * d), vjp


def _split_heads(qkv, heads):
    """Views q, k, v (B, H, N, d) of qkv (B, N, 3 H d)."""
    b, n, width = qkv.shape
    return qkv.reshape(b, n, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)


def _heads_last(b, n, h, d, dtype):
    """A new (B, H, N, d) view of an array (B, N, H, d), so that joining the heads afterwards costs no copy."""
    return np.empty((b, n, h, d), dtype).transpose(0, 2, 1, 3)
