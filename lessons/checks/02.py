"""How the exercises of lesson 02 are checked."""

import numpy as np

from lessons.checking import Exercise


def cube(x):
    """A number that moves differently with each element, and depends on where the others are."""
    return float((np.arange(1, x.size + 1).reshape(x.shape) * x).sum() ** 3)


def difference_cases(rng):
    return [(cube, rng.standard_normal(4), 1e-2), (cube, rng.standard_normal((2, 3)), 1e-1)]


def one_sided(f, x, h):
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        above = x.copy()
        above[index] += h
        out[index] = (f(above) - f(x)) / h
    return out


def central(f, x, h):
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        out[index] = (f(above) - f(below)) / (2 * h)
    return out


def divided_by_h(f, x, h):
    return 2 * central(f, x, h)


def not_put_back(f, x, h):
    """Moves x itself, and leaves each element below where it was."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        out[index] = (above - f(x)) / (2 * h)
    return out


def all_at_once(f, x, h):
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_cases(rng):
    shapes = ((3, 4), (2, 5))
    return [(softmax(rng.standard_normal(s)), rng.standard_normal(s)) for s in shapes]


def diagonal_only(p, g):
    return g * p * (1 - p)


def across_rows(p, g):
    return p * (g - (g * p).sum())


def down_columns(p, g):
    return p * (g - (g * p).sum(axis=0))


def plain_sum(p, g):
    return p * (g - g.sum(axis=1, keepdims=True))


def softmax_right(x, g):
    p = softmax(x)
    return p * (g - (g * p).sum(axis=1, keepdims=True))


def check_cases(rng):
    """Right and wrong VJPs: by a factor, by 1 %, for all cotangents but ones."""
    x = rng.standard_normal((2, 3))
    pairs = [
        (lambda x: np.sin(9 * x), lambda x, g: 9 * g * np.cos(9 * x)),  # no large step is enough
        (np.exp, lambda x, g: g * x),
        (softmax, softmax_right),
        (softmax, lambda x, g: 2 * softmax_right(x, g)),
        (np.exp, lambda x, g: 1.01 * g * np.exp(x)),
        (np.exp, lambda x, g: np.exp(x)),
        (lambda x: x.sum(axis=0), lambda x, g: g + np.zeros_like(x)),
    ]
    return [(f, vjp, x, np.random.default_rng(1)) for f, vjp in pairs]


def with_ones(f, vjp, x, rng):
    g = np.ones_like(f(x))
    expected = central(lambda moved: (g * f(moved)).sum(), x, 1e-6)
    return bool(np.allclose(vjp(x, g), expected, rtol=0, atol=1e-5))


def without_weighing(f, vjp, x, rng):
    """Gives the VJP a random cotangent, and compares with the derivative of the plain sum."""
    g = rng.standard_normal(f(x).shape)
    expected = central(lambda moved: f(moved).sum(), x, 1e-6)
    return bool(np.allclose(vjp(x, g), expected, rtol=0, atol=1e-5))


EXERCISES = {
    "central_difference": Exercise(
        difference_cases,
        "move one element at a time, to both sides, and see how far the number moves",
        {
            "that is the one-sided difference: its error falls with h, not with h^2": one_sided,
            "twice too much: how far are the two points from each other?": divided_by_h,
            "an element that has been moved must be back in its place "
            "before the next one moves": not_put_back,
            "all elements move together: what you get is the sum of the derivatives": all_at_once,
        },
    ),
    "softmax_vjp": Exercise(
        softmax_cases,
        "write (J^T g)_j as a sum over i, and take p_j out of it",
        {
            "every element of a row moves all others of its row: "
            "what J has off its diagonal is missing": diagonal_only,
            "a row knows nothing of other rows: along which axis do you add up?": across_rows,
            "the sum should go along each row, not down the columns": down_columns,
            "outputs with small p matter less: the sum over g needs weights": plain_sum,
        },
    ),
    "is_right": Exercise(
        check_cases,
        "J^T g is the gradient of the number sum(g * f(x)): measure that, and compare",
        {
            "a wrong VJP came through: there are functions for which "
            "this cotangent makes every VJP look right": with_ones,
            "a right VJP was refused: do both sides of the comparison weigh the outputs "
            "by the same g, and is the step small?": without_weighing,
        },
    ),
}
