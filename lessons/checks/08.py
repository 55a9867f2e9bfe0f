"""How the exercises of lesson 08 are checked."""

import numpy as np

from lessons.checking import Exercise


def weight_cases(rng):
    q, k = rng.standard_normal((2, 3, 4, 5))
    far_q, far_k = 8 * np.abs(rng.standard_normal((2, 2, 7, 3)))  # scores far below 0
    return [(q, k, np.array([0.2, 0.5, 1.5])), (far_q, -far_k, np.array([1.0, 0.3]))]


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def masked(scores, value=-np.inf):
    return np.where(np.eye(scores.shape[-1], dtype=bool), value, scores)


def products(q, k):
    return q @ k.swapaxes(1, 2)


def heads(multiplier):
    return multiplier[:, None, None]


def without_mask(q, k, multiplier):
    return softmax(products(q, k) * heads(multiplier))


def mask_after_softmax(q, k, multiplier):
    return masked(softmax(products(q, k) * heads(multiplier)), 0)


def score_zero(q, k, multiplier):
    return softmax(masked(products(q, k) * heads(multiplier), 0))


def scaled_twice(q, k, multiplier):
    return softmax(masked(products(q, k) * heads(multiplier) / np.sqrt(q.shape[2])))


def divided(q, k, multiplier):
    return softmax(masked(products(q, k) / heads(multiplier)))


def one_for_all(q, k, multiplier):
    return softmax(masked(products(q, k) * multiplier.mean()))


def columns_normalised(q, k, multiplier):
    return softmax(masked(products(q, k) * heads(multiplier)).swapaxes(1, 2)).swapaxes(1, 2)


def entropy_cases(rng):
    rows = softmax(rng.standard_normal((2, 3, 4)))
    return [(rows,), (np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]),)]


def logarithm(weights):
    return np.log(np.where(weights > 0, weights, 1))


def in_bits(weights):
    return -(weights * logarithm(weights)).sum(axis=-1) / np.log(2)


def positive(weights):
    return (weights * logarithm(weights)).sum(axis=-1)


def mean_of_row(weights):
    return -(weights * logarithm(weights)).mean(axis=-1)


def of_all_rows(weights):
    return -(weights * logarithm(weights)).sum()


def gradient_cases(rng):
    scores, g = rng.standard_normal((2, 3, 4, 4))
    more_scores, more_g = rng.standard_normal((2, 2, 5, 5))
    return [(scores, np.array([0.3, 0.7, 1.2]), g), (more_scores, np.array([0.9, 0.4]), more_g)]


def by_scores(weights, g):
    return weights * (g - (g * weights).sum(axis=-1, keepdims=True))


def lsa(scores, multiplier):
    return softmax(masked(scores * heads(multiplier)))


def gradient_without_mask(scores, multiplier, g):
    return (by_scores(softmax(scores * heads(multiplier)), g) * scores).sum(axis=(1, 2))


def past_the_softmax(scores, multiplier, g):
    return (lsa(scores, multiplier) * g * scores).sum(axis=(1, 2))


def without_scores(scores, multiplier, g):
    return by_scores(lsa(scores, multiplier), g).sum(axis=(1, 2))


def by_m_twice(scores, multiplier, g):
    return multiplier * (by_scores(lsa(scores, multiplier), g) * scores).sum(axis=(1, 2))


def summed_over_heads(scores, multiplier, g):
    return (by_scores(lsa(scores, multiplier), g) * scores).sum()


def mean_over_tokens(scores, multiplier, g):
    return (by_scores(lsa(scores, multiplier), g) * scores).mean(axis=(1, 2))


EXERCISES = {
    "lsa_weights": Exercise(
        weight_cases,
        "scores times the multiplier of their head, then the mask, then softmax along each row",
        {
            "the diagonal is not masked": without_mask,
            "zero after the softmax is too late: the rows no longer add up to 1":
                mask_after_softmax,
            "a score of 0 is a score like others, e^0 = 1: which score has the exponential 0?":
                score_zero,
            "the multiplier takes the place of 1 / sqrt(d), it does not come on top": scaled_twice,
            "the multiplier is one over the temperature: scores are multiplied by it": divided,
            "each head has a multiplier of its own": one_for_all,
            "each row should add up to 1, not each column": columns_normalised,
        },
    ),
    "entropy": Exercise(
        entropy_cases,
        "one number for each row, the last axis; where a weight is 0 it multiplies the logarithm, "
        "so that you may put any number in its place",
        {
            "that is in bits; the natural logarithm is asked for": in_bits,
            "the sign: an entropy is never below 0": positive,
            "the sum over the row, not the mean": mean_of_row,
            "each row has an entropy of its own": of_all_rows,
        },
    ),
    "multiplier_gradient": Exercise(
        gradient_cases,
        "first the gradient by m R, as in lesson 02's softmax; then by m, which multiplies every "
        "score of its head (mind that 0 times infinity is not a number)",
        {
            "the weights have a masked diagonal: no gradient passes there": gradient_without_mask,
            "a score moves all weights of its row, since they add up to 1: that part is missing":
                past_the_softmax,
            "the derivative of m R by m is R": without_scores,
            "m times too much: that factor is for the gradient by R": by_m_twice,
            "each head has a multiplier of its own, and a gradient of its own": summed_over_heads,
            "m is used for every pair of tokens: its shares add up": mean_over_tokens,
        },
    ),
}
