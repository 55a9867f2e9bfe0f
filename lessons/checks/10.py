"""How the exercises of lesson 10 are checked."""

import numpy as np

from lessons.checking import Exercise


def block_cases(rng):
    a, b = rng.standard_normal((2, 4, 4))
    gamma_1, gamma_2 = rng.standard_normal((2, 4))
    z = rng.standard_normal((3, 4))
    z.flags.writeable = False
    return [(z, lambda z: np.tanh(z @ a), lambda z: np.maximum(z @ b, 0), gamma_1, gamma_2)]


def attention_cases(rng):
    sizes = [(2, 5, 4), (1, 1, 3), (3, 6, 9)]
    return [(rng.standard_normal((b, d)), *rng.standard_normal((2, b, m, d))) for b, m, d in sizes]


def cost_cases(rng):
    return [(196, 384), (16, 32), (1, 1)]


def scaled_tokens(z, attention, mlp, gamma_1, gamma_2):
    z = gamma_1 * (z + attention(z))
    return gamma_2 * (z + mlp(z))


def side_by_side(z, attention, mlp, gamma_1, gamma_2):
    return z + gamma_1 * attention(z) + gamma_2 * mlp(z)


def no_shortcut(z, attention, mlp, gamma_1, gamma_2):
    return gamma_2 * mlp(gamma_1 * attention(z))


def unscaled(z, attention, mlp, gamma_1, gamma_2):
    z = z + attention(z)
    return z + mlp(z)


def scaled_input(z, attention, mlp, gamma_1, gamma_2):
    z = z + attention(gamma_1 * z)
    return z + mlp(gamma_2 * z)


def attend(query, keys, values, scale, axis=1):
    scores = np.einsum("bd,bmd->bm", query, keys) * scale
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.einsum("bm,bmd->bd", weights / weights.sum(axis=axis, keepdims=True), values)


def without_root(query, keys, values):
    return attend(query, keys, values, 1.0)


def divided_by_width(query, keys, values):
    return attend(query, keys, values, 1 / query.shape[1])


def softmax_over_images(query, keys, values):
    return attend(query, keys, values, query.shape[1] ** -0.5, axis=0)


def mean_of_keys(query, keys, values):
    return attend(query, keys, keys, query.shape[1] ** -0.5)


def self_attention(n, d):
    return 4 * n * d**2 + 2 * n**2 * d


def all_ask(n, d):
    return self_attention(n, d), self_attention(n + 1, d)


def all_queries(n, d):
    return self_attention(n, d), 4 * (n + 1) * d**2 + 2 * (n + 1) * d


def without_itself(n, d):
    return self_attention(n, d), 2 * d**2 + 2 * n * d**2 + 2 * n * d


def one_product(n, d):
    return 4 * n * d**2 + n**2 * d, 2 * d**2 + 2 * (n + 1) * d**2 + (n + 1) * d


EXERCISES = {
    "scaled_block": Exercise(
        block_cases,
        "two lines of the same form: tokens, and what gamma lets through of a branch",
        {
            "gamma scales what a branch adds; the tokens themselves go past it": scaled_tokens,
            "the MLP sees the tokens after attention has added to them": side_by_side,
            "the shortcuts are missing: a branch only adds to the tokens": no_shortcut,
            "where is gamma?": unscaled,
            "gamma stands behind the branch; before it, LayerNorm would undo it": scaled_input,
        },
    ),
    "class_attention": Exercise(
        attention_cases,
        "scores (B, M), then weights that add up to 1 in each row, then a mean of the values",
        {
            "the scores are divided by sqrt d": without_root,
            "the square root of d, not d": divided_by_width,
            "weights add up to 1 over the tokens, not over the images": softmax_over_images,
            "keys are for the scores; the mean is of the values": mean_of_keys,
        },
    ),
    "multiply_adds": Exercise(
        cost_cases,
        "a linear layer D -> D takes D^2 for each token that it is applied to; a product of "
        "attention takes D for each pair of a query and a key",
        {
            "that is self-attention of N + 1 tokens: here only one of them asks": all_ask,
            "queries and output layer are needed for one token only": all_queries,
            "the class token is among the keys and values too": without_itself,
            "attention has two products: queries with keys, and weights with values": one_product,
        },
    ),
}
