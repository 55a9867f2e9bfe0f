"""Exercises of lesson 10, CaiT. Check them by: python -m lessons check 10"""


def scaled_block(z, attention, mlp, gamma_1, gamma_2):
    """Return what a block with LayerScale makes of the tokens.

    Args:
        z: tokens, array (N, D).
        attention, mlp: the two branches, functions (N, D) -> (N, D) that begin with their
            LayerNorm.
        gamma_1, gamma_2: one number for each channel, arrays (D,), for the branch of attention and
            that of the MLP.

    Returns:
        array (N, D). ``z`` is not changed.
    """
    raise NotImplementedError


def class_attention(query, keys, values):
    """Return what a class token takes home from M tokens, with one head.

    Args:
        query: of the class token of each image, array (B, d).
        keys, values: of all tokens, arrays (B, M, d).

    Returns:
        array (B, d): for each image the mean of its values with weights
        softmax(query key / sqrt d).
    """
    raise NotImplementedError


def multiply_adds(n, d):
    """Return the multiply-adds of self-attention and of class attention, a tuple of whole numbers.

    Count queries, keys, values, both products of attention, and the output layer; no biases, no
    talking heads. Self-attention has N patch tokens and no other. In class attention the class
    token asks itself and the N patches.

    Args:
        n: patch tokens, N.
        d: their width, D; the heads divide it among them, so their number does not matter.
    """
    raise NotImplementedError
