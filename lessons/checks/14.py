"""How the exercises of lesson 14 are checked."""

import numpy as np

from lessons.checking import Exercise


def grid_cases(rng):
    """A square grid, so that a wrong direction is no error."""
    return [(rng.standard_normal((2, 4, 4, 3)),), (rng.standard_normal((1, 2, 5, 1)),)]


def sum_along(x, axis, mode="constant"):
    """Sums of three neighbours along an axis."""
    widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
    padded = np.pad(x, widths, mode=mode)
    n = x.shape[axis]
    return sum(padded.take(range(i, i + n), axis=axis) for i in range(3))


def along_columns(x):
    return sum_along(x, 1) / 3


def divided_by_those_inside(x):
    return sum_along(x, 2) / sum_along(np.ones_like(x), 2)


def repeated_at_the_border(x):
    return sum_along(x, 2, "edge") / 3


def wrapped(x):
    return sum_along(x, 2, "wrap") / 3


def not_divided(x):
    return sum_along(x, 2)


def width_cases(rng):
    x = rng.standard_normal((4, 6))
    return [(x, 18), (x, 6), (x, 3), (x, 2)]


def narrowed(x, width):
    return x.reshape(len(x), width, -1).mean(axis=2)


def repeated_channels(x, width):
    factor = width // x.shape[1]
    return np.repeat(x, factor, axis=1) if factor else narrowed(x, width)


def means_far_apart(x, width):
    wider = width >= x.shape[1]
    return np.tile(x, width // x.shape[1]) if wider else x.reshape(len(x), -1, width).mean(axis=1)


def picked(x, width):
    wider = width >= x.shape[1]
    return np.tile(x, width // x.shape[1]) if wider else x[:, :: x.shape[1] // width]


def summed(x, width):
    if width >= x.shape[1]:
        return np.tile(x, width // x.shape[1])
    return x.reshape(len(x), width, -1).sum(axis=2)


def size_cases(rng):
    # the small ones last: in them a count that is off by 1 is beyond the tolerance
    return [(3136, 64, 8), (784, 128, 4), (196, 256, 1), (4, 2, 1), (4, 2, 2)]


def count(tokens, width, keys, reducing, products=2):
    return (tokens + 2 * keys + reducing * keys) * width**2 + products * tokens * keys * width


def never_reduced(tokens, width, reduction):
    return count(tokens, width, tokens, 0)


def reduced_along_one_side(tokens, width, reduction):
    return count(tokens, width, tokens // reduction, reduction > 1)


def without_its_unit(tokens, width, reduction):
    return count(tokens, width, tokens // reduction**2, 0)


def scores_only(tokens, width, reduction):
    return count(tokens, width, tokens // reduction**2, reduction > 1, products=1)


def with_output(tokens, width, reduction):
    return count(tokens, width, tokens // reduction**2, reduction > 1) + tokens * width**2


def always_a_unit(tokens, width, reduction):
    """Wrong only where nothing is reduced."""
    return count(tokens, width, tokens // reduction**2, 1)


EXERCISES = {
    "mean_of_three": Exercise(
        grid_cases,
        "pad the columns with zeros on both sides, then add three slices",
        {
            "these neighbours stand above and below: a row runs along the axis of its columns":
                along_columns,
            "the divisor is 3 at the border, too: the zeros beyond the grid count":
                divided_by_those_inside,
            "beyond the grid there are zeros, no copies of the border": repeated_at_the_border,
            "beyond the end of a row there is no way round to its beginning": wrapped,
            "the sum is right; the branch takes the mean": not_divided,
        },
    ),
    "shortcut": Exercise(
        width_cases,
        "wider and narrower are two cases, and they do not mirror each other",
        {
            "copies of the whole x stand side by side, not copies of each channel":
                repeated_channels,
            "narrower: the mean is over channels that stand side by side": means_far_apart,
            "narrower: this picks one of the channels; the others belong into the mean": picked,
            "narrower: this is the sum, where the mean is needed": summed,
        },
    ),
    "attention_bops": Exercise(
        size_cases,
        "a unit takes width^2 products for each token that goes through it",
        {
            "keys and values come from fewer tokens": never_reduced,
            "cells of r x r tokens: both sides become shorter": reduced_along_one_side,
            "where keys and values are reduced, one more unit is at work": without_its_unit,
            "scores, and then probabilities times values: two products": scores_only,
            "without a reduction there is no unit for it": always_a_unit,
            "the output unit is not counted here": with_output,
        },
    ),
}
