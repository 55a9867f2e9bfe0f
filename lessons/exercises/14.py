"""Exercises of lesson 14, BinaryViT. Check them by: python -m lessons check 14"""


def mean_of_three(x):
    """Return the pooling branch w3: the mean of each token with its two neighbours in its row.

    Args:
        x: (B, H, W, C), tokens on a grid of H rows and W columns.

    Returns:
        (B, H, W, C). Beyond the grid all is 0, and counts: the divisor is 3 everywhere.
    """
    raise NotImplementedError


def shortcut(x, width):
    """Return the shortcut of a binary unit: x with another number of channels, without weights.

    Args:
        x: (R, C) floats.
        width: a multiple of C, or a divisor of it.

    Returns:
        (R, width). Where that is wider: copies of x side by side, so that channel j is channel
        j % C of x. Where it is narrower: means of neighbours, channel j that of the C / width
        channels from j * C / width on.
    """
    raise NotImplementedError


def attention_bops(tokens, width, reduction):
    """Return how many products of bits the attention of one block takes.

    Args:
        tokens: N, how many tokens there are, each with one query.
        width: C, channels of a token. It stays the same everywhere.
        reduction: r. Keys and values are computed from M = N / r^2 tokens, the means of r x r. If
            r is more than 1, these go through one more unit before.

    Returns:
        An int: the products in the units for queries, keys, values, and for the reduction if there
        is one; in the scores, queries times keys; and in probabilities times values. The output
        unit behind it is not a part of attention. Heads need no care: whatever their number, all
        of them together take as many products as one of width C.
    """
    raise NotImplementedError
