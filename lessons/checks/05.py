"""How the exercises of lesson 05 are checked."""

import numpy as np

from lessons.checking import Exercise


def image_cases(rng):
    return [(rng.standard_normal((3, 8, 12)), 4), (rng.standard_normal((2, 6, 6)), 3)]


def only_reshaped(image, p):
    return image.reshape(-1, len(image) * p * p)


def column_by_column(image, p):
    c, h, w = image.shape
    return image.reshape(c, h // p, p, w // p, p).transpose(3, 1, 0, 2, 4).reshape(-1, c * p * p)


def channels_last(image, p):
    c, h, w = image.shape
    return image.reshape(c, h // p, p, w // p, p).transpose(1, 3, 2, 4, 0).reshape(-1, c * p * p)


def patches_transposed(image, p):
    c, h, w = image.shape
    return image.reshape(c, h // p, p, w // p, p).transpose(1, 3, 0, 4, 2).reshape(-1, c * p * p)


def qkv_cases(rng):
    return [(rng.standard_normal((5, 24)), 2), (rng.standard_normal((4, 12)), 4)]


def heads_only_reshaped(qkv, heads):
    return tuple(part.reshape(heads, len(qkv), -1) for part in np.split(qkv, 3, axis=1))


def numbers_before_heads(qkv, heads):
    n, width = qkv.shape
    return tuple(qkv.reshape(n, 3, width // (3 * heads), heads).transpose(1, 3, 0, 2))


def heads_before_parts(qkv, heads):
    n, width = qkv.shape
    return tuple(qkv.reshape(n, heads, 3, width // (3 * heads)).transpose(2, 1, 0, 3))


def tokens_first(qkv, heads):
    n, width = qkv.shape
    return tuple(qkv.reshape(n, 3, heads, width // (3 * heads)).transpose(1, 0, 2, 3))


def attention_cases(rng):
    """As many tokens as numbers in a head, so that a wrong axis is no error."""
    return [tuple(rng.standard_normal((3, 4, 4)) for _ in range(3)),
            tuple(rng.standard_normal((2, 5, 3)) for _ in range(3))]


def weighted(scores, v, axis=2):
    e = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True) @ v


def without_scale(q, k, v):
    return weighted(q @ k.swapaxes(1, 2), v)


def scaled_by_width(q, k, v):
    return weighted(q @ k.swapaxes(1, 2) / q.shape[2], v)


def columns_normalised(q, k, v):
    return weighted(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2]), v, axis=1)


def keys_ask(q, k, v):
    return weighted(k @ q.swapaxes(1, 2) / np.sqrt(q.shape[2]), v)


EXERCISES = {
    "patch_vectors": Exercise(
        image_cases,
        "split the rows in two axes, and the columns in two, then bring the axes into order",
        {
            "reshape alone keeps the pixels in their order, and takes them row by row of the "
            "image: a patch lies in several rows": only_reshaped,
            "the patches should come row by row of the grid, not column by column":
                column_by_column,
            "in a vector the channels should come one after the other, not pixel by pixel":
                channels_last,
            "each patch is mirrored at its diagonal: rows before columns": patches_transposed,
        },
    ),
    "split_heads": Exercise(
        qkv_cases,
        "give each of part, head and number an axis of its own, then bring the axes into order",
        {
            "reshape alone mixes tokens: the numbers of one head and token lie together, but "
            "those of one head do not": heads_only_reshaped,
            "the numbers of one head lie side by side, so the axis of heads comes before theirs":
                numbers_before_heads,
            "all queries come first, of all heads; then all keys": heads_before_parts,
            "heads should be the first axis of q, k and v, and tokens the second": tokens_first,
        },
    ),
    "attention": Exercise(
        attention_cases,
        "scores, then softmax along each row, then the mean of the values with these weights",
        {
            "the scores are not scaled": without_scale,
            "the scores are scaled by too much: their spread grows as the square root of d":
                scaled_by_width,
            "each token's weights should add up to 1; here what each token gives does":
                columns_normalised,
            "a row should hold the scores of one query with all keys, not of one key with all "
            "queries": keys_ask,
        },
    ),
}
