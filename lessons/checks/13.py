"""How the exercises of lesson 13 are checked."""

import numpy as np

from lessons.checking import Exercise


def words(bits, order="little"):
    """Booleans (R, 32 W) as words (R, W)."""
    return np.packbits(bits, axis=1, bitorder=order).view("<u4" if order == "little" else ">u4")


def padded(bits, value=False):
    width = -(-bits.shape[1] // 32) * 32
    return np.pad(bits, ((0, 0), (0, width - bits.shape[1])), constant_values=value)


def pack_cases(rng):
    rows = [rng.standard_normal((3, k)) for k in (40, 32, 5, 65)]
    for x in rows:
        x[0, 0], x[1, 1] = 0.0, -0.0
    return [(x,) for x in rows]


def zero_is_minus(x):
    return words(padded(x > 0))


def minus_zero_is_minus(x):
    return words(padded(~np.signbit(x)))


def highest_first(x):
    return words(padded(x >= 0), "big")


def bytes_highest_first(x):
    return np.packbits(padded(x >= 0), axis=1).view("<u4")


def padding_is_plus(x):
    return words(padded(x >= 0, True))


def product_cases(rng):
    return [
        (words(padded(rng.random((4, k)) < 0.5)), words(padded(rng.random((3, k)) < 0.5)), k)
        for k in (40, 64, 7)
    ]


def differing(a, b):
    return np.bitwise_count(a[:, None] ^ b[None]).sum(axis=-1, dtype=int)


def of_all_bits(a, b, k):
    return 32 * a.shape[1] - 2 * differing(a, b)


def only_equal_ones(a, b, k):
    return k - differing(a, b)


def with_and(a, b, k):
    return k - 2 * np.bitwise_count(a[:, None] & b[None]).sum(axis=-1, dtype=int)


def opposite(a, b, k):
    return 2 * differing(a, b) - k


def in_unsigned(a, b, k):
    """NumPy adds up counts, which are uint8, as uint64."""
    return np.uint64(k) - 2 * differing(a, b).astype(np.uint64)


def masked_cases(rng):
    return [
        (words(padded(rng.random((4, k)) < 0.4)), words(padded(rng.random((3, k)) < 0.5)))
        for k in (40, 64)
    ]


def plus_ones(mask, values):
    return np.bitwise_count(mask[:, None] & values[None]).sum(axis=-1, dtype=int)


def as_signs(mask, values):
    return 32 * mask.shape[1] - 2 * differing(mask, values)


def masked_in_unsigned(mask, values):
    ones = np.bitwise_count(mask).sum(axis=-1, dtype=np.uint64)[:, None]
    return 2 * plus_ones(mask, values).astype(np.uint64) - ones


def less_all_bits(mask, values):
    return 2 * plus_ones(mask, values) - 32 * mask.shape[1]


def less_ones_of_values(mask, values):
    return 2 * plus_ones(mask, values) - np.bitwise_count(values).sum(axis=-1, dtype=int)


EXERCISES = {
    "pack": Exercise(
        pack_cases,
        "compare with 0, fill up to a multiple of 32 bits, and let np.packbits do the rest",
        {
            "0 has the sign +1 here, and so has -0.0": zero_is_minus,
            "-0.0 is 0, and has the sign +1 here": minus_zero_is_minus,
            "the first sign belongs into the lowest bit of its word": highest_first,
            "the bytes stand in the right order, the bits within them do not: "
            "np.packbits has an option": bytes_highest_first,
            "the bits that fill the last word are 0, not the sign of a 0": padding_is_plus,
        },
        tolerance=1e-11,  # words are large, and each bit counts
    ),
    "sign_products": Exercise(
        product_cases,
        "how many of the k products are -1, and what do the others add up to?",
        {
            "k is the number of signs, not of the bits in the words": of_all_bits,
            "this is how many signs are equal; each that differs also takes one away":
                only_equal_ones,
            "both bits 1 is one way to be equal; both bits 0 is the other": with_and,
            "turned round: signs that are equal have the product +1": opposite,
            "unsigned integers cannot go below 0: they begin anew at the top": in_unsigned,
        },
    ),
    "masked_products": Exercise(
        masked_cases,
        "only where the mask is 1 anything is added: how often +1, and how often -1?",
        {
            "this is how often +1 is added; where is the -1?": plus_ones,
            "a 0 of the mask is no -1: there, nothing is added": as_signs,
            "where the mask is 0, no -1 is added: do not count all bits": less_all_bits,
            "unsigned integers cannot go below 0: they begin anew at the top": masked_in_unsigned,
            "+1 and -1 together are the ones of the mask, not of the values": less_ones_of_values,
        },
    ),
}
