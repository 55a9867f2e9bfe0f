"""Softmax, log-softmax and cross-entropy."""

import numpy as np

from minivit.kernels import exponential
from minivit.kernels.rows import row_sums
from minivit.tensor import Tensor, op, require_floats


@op
def softmax(a, /, axis=-1, scale=1.0):
    """exp(scale a) / sum(exp(scale a)) along ``axis``, shifted by the maximum so that nothing overflows; scale > 0."""
    require_floats(a)
    scale = a.dtype.type(scale)
    out = np.exp((a - a.max(axis, keepdims=True, initial=-np.inf)) * scale)
    out *= np.expand_dims(1 / row_sums(np.moveaxis(out, axis, -1)), axis)
    return out, (lambda g: scale * out * (g - (g * out).sum(axis, keepdims=True)),)


@op
def log_softmax(a, /, axis=-1):
    """log(softmax(a)) along ``axis``."""
    require_floats(a)
    shifted = a - a.max(axis, keepdims=True, initial=-np.inf)
    out = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return out, (lambda g: g - np.exp(out) * g.sum(axis, keepdims=True),)


@op
def _cross_entropy(logits, targets, /):
    require_floats(logits)
    losses, probabilities = exponential.cross_entropy(logits, targets)

    def vjp(g):
        # d/dz of -sum_c t_c log p_c; the targets of a row need not add up to 1
        return (g / len(logits)) * (probabilities * targets.sum(axis=1, keepdims=True) - targets)

    return losses.mean(), (vjp, None)


def cross_entropy(logits, targets, *, label_smoothing=0.0):
    """Mean over the batch of -sum_c t_c log softmax(logits)_c.

    Args:
        logits: (B, C).
        targets: integer labels (B,), or probabilities (B, C), which get no gradient.
        label_smoothing: s in [0, 1]: t becomes (1 - s) t + s / C (Szegedy et al. 2016).

    Raises:
        ValueError: shapes that do not fit, a label outside [0, C), an empty batch.
        TypeError: labels that are not integers.
    """
    logits = logits if isinstance(logits, Tensor) else Tensor(logits)
    shape = logits.shape
    targets = targets.data if isinstance(targets, Tensor) else np.asarray(targets)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"cross_entropy: expected logits of shape (B, C), not empty, got {shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: expected label_smoothing in [0, 1], got {label_smoothing}")
    if targets.shape == shape:
        soft = targets.astype(logits.dtype)
    elif targets.shape == shape[:1]:
        soft = _one_hot(targets, shape, logits.dtype)
    else:
        raise ValueError(
            f"cross_entropy: for logits {shape} expected labels {shape[:1]} or probabilities {shape}, "
            f"got {targets.shape}"
        )
    if label_smoothing:
        soft = (1 - label_smoothing) * soft + label_smoothing / shape[1]
    return _cross_entropy(logits, soft)


def _one_hot(labels, shape, dtype):
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: expected integer labels, got dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= shape[1]:
        raise ValueError(
            f"cross_entropy: labels must lie in [0, {shape[1]}), got {labels.min()} to {labels.max()}"
        )
    out = np.zeros(shape, dtype)
    out[np.arange(shape[0]), labels] = 1
    return out
