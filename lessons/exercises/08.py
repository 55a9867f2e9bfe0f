"""Exercises of lesson 08, locality self-attention. Check them by: python -m lessons check 08"""


def lsa_weights(q, k, multiplier):
    """Return the attention weights of Locality Self-Attention.

    Args:
        q, k: queries and keys, (H, N, d) each, N at least 2.
        multiplier: (H,), one over the temperature of each head: takes the place of 1 / sqrt(d).

    Returns:
        (H, N, N): row i of a head says how token i weighs all tokens. Its own weight is exactly 0,
        and the row adds up to 1.
    """
    raise NotImplementedError


def entropy(weights):
    """Return the entropy of each row of weights.

    Args:
        weights: (..., N) array, no number below 0; rows add up to 1. Some may be exactly 0.

    Returns:
        (...): -sum_j A_j log A_j, with the natural logarithm, and 0 log 0 = 0.
    """
    raise NotImplementedError


def multiplier_gradient(scores, multiplier, g):
    """Return the gradient of the loss by the multiplier of each head.

    The weights are A = softmax(m R) along the last axis, where R is the scores with -infinity on
    the diagonal, and m the multiplier of the head.

    Args:
        scores: (H, N, N), the products of queries and keys, the diagonal not yet masked.
        multiplier: (H,).
        g: (H, N, N), the gradient of the loss by A.

    Returns:
        (H,).
    """
    raise NotImplementedError
