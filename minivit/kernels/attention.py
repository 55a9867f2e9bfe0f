"""softmax(scale QK^T + bias) V and its cotangents, a few images at a time, so that the scores stay in the cache.

The products are NumPy's batched ``matmul`` (BLAS), which writes straight into strided views; the softmax between
them is one pass of a Numba kernel. Each thread takes its own images.
"""

import numpy as np

from minivit.kernels import exponential
from minivit.kernels.backend import get_backend, njit
from minivit.kernels.blas_threads import single_threaded_blas
from minivit.kernels.threads import CHUNK_BYTES, parallel_for, partial_sums


def attention(q, k, v, scale, bias, diagonal, out):
    """Attention of every image and head: ``out = P v``, ``P = softmax(scale q k^T + bias)``.

    Args:
        q: (B, H, N, d). k: (B, H, M, d). v: (B, H, M, e). Any strides.
        scale: (H,), one factor for each head.
        bias: (B, H, N, M), or None.
        diagonal: value written over the diagonal of the scores (-inf masks it), or None.
        out: (B, H, N, e), written in place; may be a strided view.

    Returns:
        The probabilities P (B, H, N, M), which the backward pass needs.
    """
    if get_backend() == "numpy":
        probabilities, out[...] = attention_numpy(q, k, v, scale, bias, diagonal)
        return probabilities
    probabilities = np.empty((*q.shape[:3], k.shape[2]), q.dtype)
    step = _images_at_a_time(probabilities)

    def body(start, stop):
        for a in range(start, stop, step):
            b = min(a + step, stop)
            np.matmul(q[a:b], k[a:b].swapaxes(-1, -2), out=probabilities[a:b])
            exponential.attention_softmax(probabilities[a:b], scale, None if bias is None else bias[a:b], diagonal)
            np.matmul(probabilities[a:b], v[a:b], out=out[a:b])

    with single_threaded_blas():
        parallel_for(body, len(q), step)
    return probabilities


def attention_numpy(q, k, v, scale, bias, diagonal):
    """What ``attention`` computes: (probabilities, out)."""
    probabilities = exponential.attention_softmax_numpy(q @ k.swapaxes(-1, -2), scale, bias, diagonal)
    return probabilities, probabilities @ v


def attention_backward(g, q, k, v, scale, probabilities, diagonal, dq, dk, dv, keep_dscores):
    """Cotangents of ``attention``, given ``g`` (B, H, N, e), the cotangent of its result.

    ``dq, dk, dv`` are written in place, and may be strided views.

    Returns:
        dscale (H,), and the cotangent of the scaled scores (B, H, N, M), which is that of the bias, if
        ``keep_dscores``, else None.
    """
    if get_backend() == "numpy":
        dq[...], dk[...], dv[...], dscale, dscores = attention_backward_numpy(
            g, q, k, v, scale, probabilities, diagonal
        )
        return dscale, dscores
    dscores = np.empty_like(probabilities) if keep_dscores else None
    step = _images_at_a_time(probabilities)

    def body(start, stop, dscale):
        space = None if keep_dscores else np.empty((min(step, stop - start), *probabilities.shape[1:]), q.dtype)
        for a in range(start, stop, step):
            b = min(a + step, stop)
            ds = dscores[a:b] if keep_dscores else space[: b - a]
            np.matmul(probabilities[a:b].swapaxes(-1, -2), g[a:b], out=dv[a:b])
            np.matmul(g[a:b], v[a:b].swapaxes(-1, -2), out=ds)
            exponential.attention_softmax_backward(ds, probabilities[a:b], diagonal)
            np.matmul(ds, k[a:b], out=dq[a:b])
            np.matmul(ds.swapaxes(-1, -2), q[a:b], out=dk[a:b])
            _scale_queries_and_keys(q[a:b], dq[a:b], dk[a:b], scale, dscale)

    with single_threaded_blas():
        return partial_sums(body, len(q), step, scale.shape, q.dtype), dscores


def attention_backward_numpy(g, q, k, v, scale, probabilities, diagonal):
    """What ``attention_backward`` computes: (dq, dk, dv, dscale, dscores)."""
    dv = probabilities.swapaxes(-1, -2) @ g
    ds = exponential.attention_softmax_backward_numpy(g @ v.swapaxes(-1, -2), probabilities, diagonal)
    dscale = (ds * (q @ k.swapaxes(-1, -2))).sum(axis=(0, 2, 3))
    factor = scale[:, None, None]
    return factor * (ds @ k), factor * (ds.swapaxes(-1, -2) @ q), dv, dscale, ds


@njit
def _scale_queries_and_keys(q, dq, dk, scale, dscale):
    """dscale += <q, dq>, which is <ds, q k^T>; then multiply dq and dk by the scale."""
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            s = scale[h]
            dot = scale.dtype.type(0)
            for i in range(q.shape[2]):
                for d in range(q.shape[3]):
                    dot += q[b, h, i, d] * dq[b, h, i, d]
                    dq[b, h, i, d] *= s
            for i in range(dk.shape[2]):
                for d in range(dk.shape[3]):
                    dk[b, h, i, d] *= s
            dscale[h] += dot


def _images_at_a_time(scores):
    per_image = max(1, int(np.prod(scores.shape[1:])) * scores.itemsize)
    return max(1, CHUNK_BYTES // per_image)
