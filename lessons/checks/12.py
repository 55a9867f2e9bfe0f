"""How the exercises of lesson 12 are checked."""

import numpy as np

from lessons.checking import Exercise


def weight_cases(rng):
    return [
        (rng.normal(0.6, 1.0, (4, 9)),),
        (np.array([[1.0, -1.0, 0.0, 0.0], [3.0, 1.0, 2.0, 2.0]]),),  # some just the mean
        (rng.standard_normal((1, 2)),),
    ]


def backward_cases(rng):
    return [(rng.standard_normal((5, 6)), rng.uniform(-2, 2, (5, 6))),
            (np.array([1.0, -2.0, 3.0]), np.array([0.0, 1.0, -1.5]))]  # fmt: skip


def bit_cases(rng):
    return [
        (np.full(3, -1.0), 0.05, 0.1),
        (np.full(12, 1.0), 0.5, 0.1),
        (np.array([1.0, 1.0, 1.0, -4.0, -1.0, 9.0]), 0.25, 0.1),
        (np.array([-8.0, 3.0, 2.0]), 0.5, 0.25),  # leaves [-1, 1], and does not come back
        (np.full(4, 5.0), 1.2, 0.5),  # outside: it stays where it is
        (rng.standard_normal(40), -0.1, 0.2),
        (np.array([2.0, -1.0, 1.0]), 0.5, 0.25),  # comes to 0 exactly
        (np.full(3, 5.0), 1.0, 0.25),  # just at the edge
    ]


def signs_with(weight, scale, centred):
    return np.where(centred >= 0, scale, -scale)


def not_centred(weight):
    return signs_with(weight, np.abs(weight).mean(axis=1, keepdims=True), weight)


def scale_of_centred(weight):
    centred = weight - weight.mean(axis=1, keepdims=True)
    return signs_with(weight, np.abs(centred).mean(axis=1, keepdims=True), centred)


def one_scale(weight):
    return signs_with(weight, np.abs(weight).mean(), weight - weight.mean(axis=1, keepdims=True))


def three_values(weight):
    centred = weight - weight.mean(axis=1, keepdims=True)
    return np.abs(weight).mean(axis=1, keepdims=True) * np.sign(centred)


def columns(weight):
    return signs_with(weight, np.abs(weight).mean(axis=0), weight - weight.mean(axis=0))


def clipped(cotangent, x):
    return cotangent * (np.abs(x) <= 1)


def not_limited(cotangent, x):
    return cotangent * (2 - 2 * np.abs(x))


def true_derivative(cotangent, x):
    return np.zeros_like(x)


def without_cotangent(cotangent, x):
    return np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0.0)


def one_sided(cotangent, x):
    return cotangent * np.where(np.abs(x) <= 1, 2 - 2 * x, 0)


def surrogate_itself(cotangent, x):
    t = np.clip(x, -1, 1)
    return cotangent * t * (2 - np.abs(t))


def bit(w):
    return 1 if w >= 0 else -1


def walk(gradients, latent, rate, passes=lambda w: abs(w) <= 1, keep=lambda w: w, sign=bit):
    signs = []
    for gradient in gradients:
        latent = keep(latent - rate * gradient) if passes(latent) else latent
        signs.append(sign(latent))
    return np.array(signs)


def not_stopped(gradients, latent, rate):
    return walk(gradients, latent, rate, passes=lambda w: True)


def forgetful(gradients, latent, rate):
    return walk(gradients, latent, rate, keep=bit)


def open_interval(gradients, latent, rate):
    return walk(gradients, latent, rate, passes=lambda w: abs(w) < 1)


def limited(gradients, latent, rate):
    return walk(gradients, latent, rate, keep=lambda w: min(max(w, -1), 1))


def uphill(gradients, latent, rate):
    return walk(-gradients, latent, rate)


def sign_before(gradients, latent, rate):
    return np.concatenate([[bit(latent)], walk(gradients, latent, rate)[:-1]])


def zero_at_zero(gradients, latent, rate):
    return walk(gradients, latent, rate, sign=np.sign)


EXERCISES = {
    "binarize": Exercise(
        weight_cases,
        "two things of each row: a scale, from the row as it is, and signs, from the row less its "
        "mean",
        {
            "subtract each row's mean before you take the signs": not_centred,
            "the scale is that of the weights as they are, not less their mean": scale_of_centred,
            "each row has a scale of its own": one_scale,
            "a bit has no third value: what lies at the mean is +": three_values,
            "rows are axis 0; means go along axis 1": columns,
        },
    ),
    "sign_backward": Exercise(
        backward_cases,
        "differentiate the surrogate by x, in three pieces, and apply the chain rule",
        {
            "that is the clipped estimator; Bi-Real's slope is 2 in the middle and falls to 0":
                clipped,
            "beyond 1 and -1 the surrogate is constant": not_limited,
            "that is the true derivative, of which nothing can be learned": true_derivative,
            "the slope falls on both sides of 0": one_sided,
            "the chain rule: what comes from above counts too": without_cotangent,
            "the surrogate's derivative is wanted, not its value": surrogate_itself,
        },
    ),
    "train_bit": Exercise(
        bit_cases,
        "keep the latent weight from step to step; the sign is only read off",
        {
            "no gradient passes where the latent weight lies beyond 1 or -1": not_stopped,
            "do not put the sign in the latent weight's place: small steps must add up": forgetful,
            "1 and -1 themselves belong to [-1, 1]": open_interval,
            "the latent weight is not limited: where it has left [-1, 1], it stays where it is":
                limited,
            "descent goes against the gradient": uphill,
            "the sign is wanted after each step, not before it": sign_before,
            "a bit has no third value: sign(0) is +1": zero_at_zero,
        },
    ),
}
