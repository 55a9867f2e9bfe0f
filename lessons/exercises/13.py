"""Exercises of lesson 13, products of signs. Check them by: python -m lessons check 13"""


def pack(x):
    """Return the signs of rows as words of 32 bits.

    Args:
        x: (R, K) floats.

    Returns:
        (R, W) of uint32, where W is K / 32 rounded up. Bit j % 32 of word j // 32 is 1 where
        x[:, j] >= 0, else 0. Bit 0 is the lowest one, that of the value 1. Bits for which there is
        no x are 0.
    """
    raise NotImplementedError


def sign_products(a, b, k):
    """Return the products of all rows of a with all rows of b.

    Args:
        a: (M, W) words, the signs of rows (M, k), as ``pack`` gives them.
        b: (N, W) words, of rows (N, k).
        k: how many signs a row has.

    Returns:
        (M, N) of signed integers: sum_j of sign a[m, j] times sign b[n, j]. ``np.bitwise_count``
        counts the bits of words.
    """
    raise NotImplementedError


def masked_products(mask, values):
    """Return the products of rows of zeros and ones with rows of signs.

    Args:
        mask: (M, W) words: bit 1 for the number 1, bit 0 for the number 0.
        values: (N, W) words: bit 1 for +1, bit 0 for -1.

    Returns:
        (M, N) of signed integers. Nobody tells you how many bits of the words are in use, and you
        need not know.
    """
    raise NotImplementedError
